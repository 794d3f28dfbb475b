"""The options of ``[audience_sources.NAME]`` with ``type = "klaviyo"``."""

import re
from typing import Annotated

from msgspec import Meta

from gateway import Secret, Struct, check_url

_KEY = re.compile(r"[\x21-\x7e]+\Z")


class KlaviyoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One Klaviyo account; ``api_key``, or ``client_id`` and ``client_secret`` of an app to sign in with.

    Args:
        api_key: A private key with the scopes ``lists:read segments:read profiles:read``.
        client_id: Of an OAuth app.
        client_secret: Of an OAuth app.
        token_file: Where the tokens of a sign-in are kept, relative to the configuration file; empty: beside the store.
        base_url: https, or http to this machine (the sandbox).
        authorize_url: Where the operator's browser signs in.
        revision: The API's version, sent with each call. Source: OpenAPI 2026-07-15, header ``revision``.
        requests_per_minute: This gateway's share of the account's 750 a minute, which all private keys of an account
            have together. Source: OpenAPI 2026-07-15, ``x-klaviyo-ratelimit`` of ``/api/lists/{id}/profiles``.
        timeout_s: For one call, from connecting to the last byte, in seconds.
    """

    api_key: Secret | None = None
    client_id: Annotated[str, Meta(pattern=r"\A[\x21-\x39\x3b-\x7e]*\Z")] = ""
    client_secret: Secret | None = None
    token_file: str = ""
    base_url: str = "https://a.klaviyo.com"
    authorize_url: str = "https://www.klaviyo.com/oauth/authorize"
    revision: Annotated[str, Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-z]+)?\Z")] = "2026-07-15"
    requests_per_minute: Annotated[int, Meta(ge=1, le=3500)] = 700
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 30.0


def check(options: KlaviyoOptions) -> None:
    """
    Refuse what would show only at the first call, and an address to which a key must not be sent.

    Raises:
        ValueError: The message names the option and never its secret.
    """
    has_app = bool(options.client_id) and options.client_secret is not None
    if (options.api_key is not None) == has_app:
        raise ValueError("give either api_key (a private key), or client_id and client_secret (an OAuth app).")
    if options.api_key is not None and not _KEY.match(options.api_key.value.strip()):
        raise ValueError("api_key must be printable ASCII without spaces: copy it again from Klaviyo.")
    for name, url in (("base_url", options.base_url), ("authorize_url", options.authorize_url)):
        check_url(name, url)
