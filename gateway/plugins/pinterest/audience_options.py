"""The options of ``[audience_sinks.NAME]`` with ``type = "pinterest"``."""

import re
from typing import Annotated

from msgspec import Meta

from gateway import Secret, Struct, check_url

_TOKEN = re.compile(r"[\x21-\x7e]+\Z")


class AudienceOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    r"""
    One Pinterest user or business; ``token``, or ``app_id`` and ``app_secret`` of an app to sign in with.

    Args:
        ad_account_id: The one account that is used; None: one of those that the credentials open.
        token: An OAuth token with ``ads:read`` and ``ads:write``; a conversion token does not open audiences.
        app_id: Of an app at developers.pinterest.com.
        app_secret: Of the same app.
        token_file: Where the tokens of a sign-in are kept, relative to the configuration file; empty: beside the store.
        base_url: Without a trailing path of the call; https, or http to this machine (the sandbox).
        authorize_url: Where the operator's browser signs in.
        reads_per_minute: Source: developers.pinterest.com, "Rate limits": ``ads_read``, 1,000 a minute with Standard
            access, for each user and app.
        writes_per_minute: ``ads_write``; the page's number could not be read, 400 is of an older one.
        calls_per_day: 0: no limit; 1,000 with Trial access (same page).
        timeout_s: For one call, from connecting to the last byte, in seconds.
    """

    ad_account_id: Annotated[str, Meta(pattern=r"\A[0-9]{1,18}\Z")] | None = None
    token: Secret | None = None
    app_id: Annotated[str, Meta(pattern=r"\A[\x21-\x39\x3b-\x7e]*\Z")] = ""
    app_secret: Secret | None = None
    token_file: str = ""
    base_url: str = "https://api.pinterest.com/v5"
    authorize_url: str = "https://www.pinterest.com/oauth/"
    reads_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 600
    writes_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 300
    calls_per_day: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 60.0


def check(options: AudienceOptions) -> None:
    """
    Refuse what would show only at the first call, and an address to which a token must not be sent.

    Raises:
        ValueError: The message names the option and never its secret.
    """
    has_app = bool(options.app_id) and options.app_secret is not None
    if options.token is None and not has_app:
        raise ValueError("give token, or app_id and app_secret of an app to sign in with.")
    if options.token is not None and (options.app_id or options.app_secret is not None):
        raise ValueError("give either token, or app_id and app_secret: with both it is unclear which one is meant.")
    if options.token is not None and not _TOKEN.match(options.token.value.strip()):
        raise ValueError("token must be printable ASCII without spaces: copy it again.")
    check_url("base_url", options.base_url)
    check_url("authorize_url", options.authorize_url)
