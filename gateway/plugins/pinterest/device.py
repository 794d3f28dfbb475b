"""``app_info`` and ``device_info``: what the API would refuse is left out, as one bad value refuses the whole call."""

from typing import Any

from gateway import App, Device, coerce
from gateway.plugins.pinterest.objects import AppInfo, DeviceInfo

#: Every bound below: OpenAPI 5.23.0, ``ConversionEventAppInfo`` and ``ConversionEventDeviceInfo``.
_MAX_INT = 2**63 - 1
_PIXELS = 30_720
_GIGABYTES = 1_048_576
_MAX_LANGUAGES = 100

#: (our field, the API's field, longest text in characters)
_APP_TEXTS = (
    ("id", "app_id", 200),
    ("name", "app_name", 200),
    ("package_name", "app_package_name", 200),
    ("store", "app_store", 100),
    ("version", "app_version", 100),
    ("user_agent", "user_agent", 16_384),
)
_APP_NUMBERS = (("install_time", _MAX_INT), ("window_height", _PIXELS), ("window_width", _PIXELS))

_DEVICE_TEXTS = (
    ("brand", 100),
    ("carrier", 100),
    ("kernel_version", 100),
    ("locale", 35),
    ("model", 100),
    ("os_name", 100),
    ("os_release_name", 100),
    ("os_version", 100),
    ("timezone", 40),
    ("timezone_abbr", 5),
    ("type", 100),
)
_DEVICE_NUMBERS = (
    ("battery_level", 100),
    ("cpu_cores", 1_152),
    ("external_storage_free_space", _GIGABYTES),
    ("external_storage_size", _GIGABYTES),
    ("screen_density", 100_000),
    ("screen_height", _PIXELS),
    ("screen_width", _PIXELS),
    ("storage_free_space", _GIGABYTES),
    ("storage_size", _GIGABYTES),
)


def _words(closed: str, **others: str) -> dict[str, str]:
    """Return the closed set, each word for itself, and other usual words for one of it."""
    return {**{word: word for word in closed.split()}, **others}


_DEVICE_WORDS = (
    (
        "form_factor",
        _words(
            "desktop laptop cellphone tablet smartwatch tv vr console other",
            mobile="cellphone",
            phone="cellphone",
            smartphone="cellphone",
            pc="desktop",
        ),
    ),
    (
        "network_type",
        _words(
            "wifi cellular_2g cellular_3g cellular_4g cellular_5g cellular_6g ethernet unknown",
            **{"wi-fi": "wifi", "2g": "cellular_2g", "3g": "cellular_3g", "4g": "cellular_4g", "5g": "cellular_5g"},
        ),
    ),
    (
        "os_family",
        _words(
            "ios android macos windows linux bsd other",
            **{"mac os x": "macos", "mac os": "macos", "os x": "macos", "ipados": "ios"},
        ),
    ),
)
_NO_APP = App()
_NO_DEVICE = Device()


def app_info(app: App) -> AppInfo | None:
    """Return the app as far as the API takes it, None when nothing is left."""
    if app == _NO_APP:
        return None
    found: dict[str, Any] = {}
    for name, key, longest in _APP_TEXTS:
        text = getattr(app, name)
        if text and len(text) <= longest:
            found[key] = text
    for name, largest in _APP_NUMBERS:
        _number(app, name, largest, found)
    return AppInfo(**found) if found else None


def device_info(device: Device) -> DeviceInfo | None:
    """Return the device as far as the API takes it, None when nothing is left."""
    if device == _NO_DEVICE:
        return None
    found: dict[str, Any] = {}
    for name, longest in _DEVICE_TEXTS:
        text = getattr(device, name)
        if text and len(text) <= longest:
            found[name] = text
    for name, largest in _DEVICE_NUMBERS:
        _number(device, name, largest, found)
    for name, words in _DEVICE_WORDS:
        given = getattr(device, name)
        if given and (word := words.get(given.strip().lower())):
            found[name] = word
    if device.languages:
        codes = dict.fromkeys(code for tag in device.languages[:_MAX_LANGUAGES] if (code := coerce.language(tag)))
        if codes:
            found["languages"] = tuple(codes)
    return DeviceInfo(**found) if found else None


def _number(given: App | Device, name: str, largest: int, found: dict[str, Any]) -> None:
    number = getattr(given, name)
    if number is not None and 0 <= number <= largest:
        found[name] = number
