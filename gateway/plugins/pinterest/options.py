"""The options of ``[destinations.NAME]`` with ``type = "pinterest"``."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from gateway import Secret, Struct, check_url

_TOKEN = re.compile(r"[\x21-\x7e]+\Z")

#: Source: Pinterest's tag for GTM server containers allows these characters in an advertiser-defined name.
EventName = Annotated[str, Meta(pattern=r"\A[a-zA-Z_]+\Z", max_length=100)]


class PinterestOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    r"""
    One ad account and how it is sent to.

    Args:
        ad_account_id: Up to 18 digits. Source: OpenAPI 5.23.0, path parameter of ``events/create`` (``^\d+$``, 18).
        token: A conversion token of Ads Manager, or an OAuth token with ``ads:write``.
        base_url: Without a trailing path of the call; https, or http to this machine (the sandbox).
        test: Every event is validated by Pinterest and never recorded (``?test=true``).
        batch_size: Events in one call, 1 to 1,000 (``data.maxItems`` of OpenAPI 5.23.0).
        linger_s: The longest wait for a fuller batch, in seconds.
        late: What becomes of an event over an hour old, which Pinterest counts as offline and cannot deduplicate.
        in_flight: Calls under way at the same time.
        timeout_s: For one call, from connecting to the last byte, in seconds.
        max_event_age_s: Older events are refused; 0: no limit; None: the pipeline's.
        event_names: Advertiser-defined event names, exactly as defined at Pinterest.
        partner_name: ``ss-name``, only where Pinterest has agreed one.
        quality_token: An OAuth token with ``ads:read``, for Pinterest's event quality score; None: ``token`` is tried.
        match_rate: What Ads Manager shows as the match rate, 0 to 1; for the page Health only.
    """

    ad_account_id: Annotated[str, Meta(pattern=r"\A[0-9]{1,18}\Z")]
    token: Secret
    base_url: str = "https://api.pinterest.com/v5"
    test: bool = False
    batch_size: Annotated[int, Meta(ge=1, le=1000)] = 1000
    linger_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    late: Literal["send", "dead"] = "send"
    in_flight: Annotated[int, Meta(ge=1, le=64)] = 4
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 30.0  # a lease outlives it
    max_event_age_s: Annotated[int, Meta(ge=0)] | None = None
    event_names: tuple[EventName, ...] = ()
    partner_name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")] | None = None
    quality_token: Secret | None = None
    match_rate: Annotated[float, Meta(ge=0, le=1)] | None = None


def check(options: PinterestOptions) -> None:
    """
    Refuse what would show only at the first call, and an address to which a token must not be sent.

    Raises:
        ValueError: The token cannot stand in a header; ``base_url`` is not https (http is for this machine only), or
            has credentials, a query or a fragment. The message names the option and never its secret.
    """
    if not _TOKEN.match(options.token.value.strip()):
        raise ValueError("token must be printable ASCII without spaces: copy it again from Ads Manager.")
    if options.quality_token is not None and not _TOKEN.match(options.quality_token.value.strip()):
        raise ValueError("quality_token must be printable ASCII without spaces: copy it again.")
    check_url("base_url", options.base_url)
