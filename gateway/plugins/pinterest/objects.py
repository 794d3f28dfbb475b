"""
The objects of ``events/create``, closed: a key that the API does not know cannot be written.

The API refuses a whole request for one unknown key. Absent values are None and are left out of the JSON; a Struct that
equals its own default has nothing to say. Source: Pinterest's OpenAPI description, 5.23.0, ``ConversionEvents``.
"""

from gateway import Struct

Hashes = tuple[str, ...]


class UserData(Struct, frozen=True, kw_only=True):
    """``user_data``: lists of SHA-256 hashes; click id, address, user agent and partner id in clear."""

    em: Hashes | None = None
    ph: Hashes | None = None
    ge: Hashes | None = None
    db: Hashes | None = None
    ln: Hashes | None = None
    fn: Hashes | None = None
    ct: Hashes | None = None
    st: Hashes | None = None
    zp: Hashes | None = None
    country: Hashes | None = None
    external_id: Hashes | None = None
    hashed_maids: Hashes | None = None
    client_ip_address: str | None = None
    client_user_agent: str | None = None
    click_id: str | None = None
    partner_id: str | None = None


class Content(Struct, frozen=True, kw_only=True):
    """``custom_data.contents[]``: one product; ``item_price`` is a number as text, per unit, before any discount."""

    id: str | None = None
    item_name: str | None = None
    item_brand: str | None = None
    item_category: str | None = None
    item_price: str | None = None
    quantity: int | None = None


class CustomData(Struct, frozen=True, kw_only=True):
    """``custom_data``: ``value`` and ``predicted_ltv`` are numbers as text; ``num_items`` counts units."""

    value: str | None = None
    currency: str | None = None
    content_ids: tuple[str, ...] | None = None
    contents: tuple[Content, ...] | None = None
    num_items: int | None = None
    order_id: str | None = None
    search_string: str | None = None
    content_name: str | None = None
    content_category: str | None = None
    content_brand: str | None = None
    predicted_ltv: str | None = None
    opt_out_type: str | None = None


class AppInfo(Struct, frozen=True, kw_only=True):
    """``app_info``: ``install_time`` in Unix seconds, window sizes in pixels."""

    app_id: str | None = None
    app_name: str | None = None
    app_package_name: str | None = None
    app_store: str | None = None
    app_version: str | None = None
    install_time: int | None = None
    user_agent: str | None = None
    window_height: int | None = None
    window_width: int | None = None


class DeviceInfo(Struct, frozen=True, kw_only=True):
    """``device_info``: storage in GB, battery in percent, screen in pixels."""

    battery_level: int | None = None
    brand: str | None = None
    carrier: str | None = None
    cpu_cores: int | None = None
    external_storage_free_space: int | None = None
    external_storage_size: int | None = None
    form_factor: str | None = None
    kernel_version: str | None = None
    languages: tuple[str, ...] | None = None
    locale: str | None = None
    model: str | None = None
    network_type: str | None = None
    os_family: str | None = None
    os_name: str | None = None
    os_release_name: str | None = None
    os_version: str | None = None
    screen_density: int | None = None
    screen_height: int | None = None
    screen_width: int | None = None
    storage_free_space: int | None = None
    storage_size: int | None = None
    timezone: str | None = None
    timezone_abbr: str | None = None
    type: str | None = None


class ConversionEvent(Struct, frozen=True, kw_only=True):
    """One item of ``data``; ``event_time`` in Unix seconds."""

    event_name: str
    action_source: str
    event_time: int
    event_id: str
    user_data: UserData
    event_source_url: str | None = None
    custom_data: CustomData | None = None
    opt_out: bool | None = None
    language: str | None = None
    partner_name: str | None = None
    app_id: str | None = None
    app_name: str | None = None
    app_version: str | None = None
    app_info: AppInfo | None = None
    device_brand: str | None = None
    device_carrier: str | None = None
    device_model: str | None = None
    device_type: str | None = None
    os_version: str | None = None
    wifi: bool | None = None
    device_info: DeviceInfo | None = None


class EventsRequest(Struct, frozen=True, kw_only=True):
    """The body of one call: 1 to 1,000 events."""

    data: tuple[ConversionEvent, ...]
