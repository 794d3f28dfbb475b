"""The closed schema of a Pinterest `events/create` request, as the sandbox enforces it.

Source: Pinterest's OpenAPI description v5.23.0, `ConversionEvents`. A breach of it refuses the whole request
(400); rules that Pinterest applies to each event are in `rules.py` (422). `user_data` is the one object that
the description leaves open: keys it does not know are ignored, as Pinterest ignores them.
"""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_EVENTS: Final = 1000
"""Events in one request, at most (`data.maxItems`)."""

Text = str | UnsetType
NullableText = str | UnsetType | None
Text100 = Annotated[str, Meta(max_length=100)] | UnsetType
Text200 = Annotated[str, Meta(max_length=200)] | UnsetType
Hashes = list[str] | UnsetType
Gigabytes = Annotated[int, Meta(ge=0, le=1048576)] | UnsetType
Pixels = Annotated[int, Meta(ge=0, le=30720)] | UnsetType


class InvalidRequest(ValueError):
    """The request breaks the schema; the text is the message of the 400 answer."""


class _Closed(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """An object that refuses keys it does not know."""


class Content(_Closed, frozen=True):
    """One product: `custom_data.contents[]`."""

    id: Text = UNSET
    item_brand: Text = UNSET
    item_category: Text = UNSET
    item_name: Text = UNSET
    item_price: Text = UNSET
    quantity: int | UnsetType = UNSET


class CustomData(_Closed, frozen=True):
    """What was bought or looked at; amounts are text that Pinterest parses as a number."""

    content_brand: NullableText = UNSET
    content_category: NullableText = UNSET
    content_ids: list[str] | UnsetType = UNSET
    content_name: NullableText = UNSET
    contents: list[Content] | UnsetType = UNSET
    currency: NullableText = UNSET
    external_measurement_id: NullableText = UNSET
    external_measurement_vendor_id: int | UnsetType | None = UNSET
    np: NullableText = UNSET
    num_items: int | UnsetType = UNSET
    opt_out_type: NullableText = UNSET
    order_id: NullableText = UNSET
    predicted_ltv: NullableText = UNSET
    search_string: NullableText = UNSET
    value: NullableText = UNSET


class UserData(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """Who it was: open to further keys, but one of three identities must be present."""

    click_id: NullableText = UNSET
    client_ip_address: Text = UNSET
    client_user_agent: Text = UNSET
    country: Hashes = UNSET
    ct: Hashes = UNSET
    db: Hashes = UNSET
    em: Hashes = UNSET
    external_id: Hashes = UNSET
    fn: Hashes = UNSET
    ge: Hashes = UNSET
    hashed_maids: Hashes = UNSET
    ln: Hashes = UNSET
    partner_id: NullableText = UNSET
    ph: Hashes = UNSET
    st: Hashes = UNSET
    zp: Hashes = UNSET

    def __post_init__(self) -> None:
        client = self.client_ip_address is not UNSET and self.client_user_agent is not UNSET
        if not client and self.em is UNSET and self.hashed_maids is UNSET:
            raise ValueError("em, hashed_maids, or client_ip_address with client_user_agent is required")


class AppInfo(_Closed, frozen=True):
    """The app that reported the event."""

    app_id: Text200 = UNSET
    app_name: Text200 = UNSET
    app_package_name: Text200 = UNSET
    app_store: Text100 = UNSET
    app_version: Text100 = UNSET
    install_time: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    user_agent: Annotated[str, Meta(max_length=16384)] | UnsetType = UNSET
    window_height: Pixels = UNSET
    window_width: Pixels = UNSET


class DeviceInfo(_Closed, frozen=True):
    """The device that reported the event."""

    battery_level: Annotated[int, Meta(ge=0, le=100)] | UnsetType = UNSET
    brand: Text100 = UNSET
    carrier: Text100 = UNSET
    cpu_cores: Annotated[int, Meta(ge=0, le=1152)] | UnsetType = UNSET
    external_storage_free_space: Gigabytes = UNSET
    external_storage_size: Gigabytes = UNSET
    form_factor: (
        Literal["desktop", "laptop", "cellphone", "tablet", "smartwatch", "tv", "vr", "console", "other"] | UnsetType
    ) = UNSET
    kernel_version: Text100 = UNSET
    languages: Annotated[list[str], Meta(max_length=100)] | UnsetType = UNSET
    locale: Annotated[str, Meta(max_length=35)] | UnsetType = UNSET
    model: Text100 = UNSET
    network_type: (
        Literal[
            "wifi",
            "cellular_2g",
            "cellular_3g",
            "cellular_4g",
            "cellular_5g",
            "cellular_6g",
            "ethernet",
            "unknown",
        ]
        | UnsetType
    ) = UNSET
    os_family: Literal["ios", "android", "macos", "windows", "linux", "bsd", "other"] | UnsetType = UNSET
    os_name: Text100 = UNSET
    os_release_name: Text100 = UNSET
    os_version: Text100 = UNSET
    screen_density: Annotated[int, Meta(ge=0, le=100000)] | UnsetType = UNSET
    screen_height: Pixels = UNSET
    screen_width: Pixels = UNSET
    storage_free_space: Gigabytes = UNSET
    storage_size: Gigabytes = UNSET
    timezone: Annotated[str, Meta(max_length=40)] | UnsetType = UNSET
    timezone_abbr: Annotated[str, Meta(max_length=5)] | UnsetType = UNSET
    type: Text100 = UNSET


class Event(_Closed, frozen=True):
    """One conversion event as it is sent; `event_time` is in Unix seconds."""

    event_name: str
    action_source: str
    event_time: int
    event_id: str
    user_data: UserData
    app_id: NullableText = UNSET
    app_info: AppInfo | UnsetType = UNSET
    app_name: NullableText = UNSET
    app_version: NullableText = UNSET
    custom_data: CustomData | UnsetType = UNSET
    device_brand: NullableText = UNSET
    device_carrier: NullableText = UNSET
    device_info: DeviceInfo | UnsetType = UNSET
    device_model: NullableText = UNSET
    device_type: NullableText = UNSET
    event_source_url: NullableText = UNSET
    language: NullableText = UNSET
    opt_out: bool | UnsetType = UNSET
    os_version: NullableText = UNSET
    partner_name: NullableText = UNSET
    wifi: bool | UnsetType = UNSET


class _Request(_Closed, frozen=True):
    data: Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class _Parts(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


_request: Final = msgspec.json.Decoder(_Request)
_parts: Final = msgspec.json.Decoder(_Parts)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`( - at `.*`)?", re.DOTALL)


def decode_events(body: bytes) -> list[Event]:
    """Return the events of a request body, in order.

    Raises `InvalidRequest` when anything in the body breaks the schema; its message names the key.
    """
    try:
        return _request.decode(body).data
    except msgspec.ValidationError as error:
        raise InvalidRequest(_message(str(error))) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidRequest("Invalid request: the body is not valid JSON") from None


def raw_events(body: bytes) -> list[msgspec.Raw]:
    """Return the JSON text of each event of a body that `decode_events` has accepted (views of `body`)."""
    return _parts.decode(body).data


def _message(reason: str) -> str:
    # Pinterest's own wording for an unknown key was seen in the wild (pinterest-for-woocommerce, issue 967).
    if unknown := _UNKNOWN.fullmatch(reason):
        reason = f"Additional properties are not allowed ('{unknown[1]}' was unexpected){unknown[2] or ''}"
    return f"Invalid request: {reason}"
