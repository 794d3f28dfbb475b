"""App and device of the tag's JSON, under our names or the Conversions API's."""

from typing import Any

from gateway import App, Device, coerce
from gateway.plugins.browser_tag.reader import SILENT, Reader

_APP_TEXTS = ("id", "name", "version", "package_name", "store")
_DEVICE_ALIASES = {name: f"device_{name}" for name in ("brand", "model", "type", "carrier")}
_DEVICE_TEXTS = (
    "brand", "model", "type", "carrier", "form_factor", "os_family", "os_name", "os_version",
    "os_release_name", "kernel_version", "locale", "network_type", "timezone", "timezone_abbr",
)  # fmt: skip
_DEVICE_NUMBERS = (
    "battery_level", "cpu_cores", "screen_density", "screen_height", "screen_width", "storage_size",
    "storage_free_space", "external_storage_size", "external_storage_free_space",
)  # fmt: skip


def app_of(event: Reader) -> App:
    """Read ``app``: our field names, or the API's (``app_id``, ``app_package_name``, …)."""
    given = event.object("app")
    if given is None:
        return SILENT.app
    found: dict[str, Any] = {name: given.text(name, f"app_{name}") for name in _APP_TEXTS}
    for name in ("window_height", "window_width"):
        found[name] = given.read(name, _natural, complaint="not_a_number")
    install_time = given.read("install_time", coerce.unix_time, complaint="not_a_time")
    found["install_time"] = None if install_time is None else int(install_time)
    found["user_agent"] = given.text("user_agent")
    return App(**found)


def device_of(event: Reader) -> Device:
    """Read ``device``: the fields of :class:`gateway.Device`, or the API's names (``device_brand``, …)."""
    given = event.object("device")
    if given is None:
        return SILENT.device
    found: dict[str, Any] = {name: given.text(name, _DEVICE_ALIASES.get(name, "")) for name in _DEVICE_TEXTS}
    for name in _DEVICE_NUMBERS:
        found[name] = given.read(name, _natural, complaint="not_a_number")
    found["wifi"] = given.flag("wifi")
    found["languages"] = tuple(
        code for code in (coerce.language(tag) for tag in given.texts("languages", "")) if code is not None
    )
    return Device(**found)


def _natural(value: Any) -> int | None:
    number = coerce.integer(value)
    return None if number is None or not 0 <= number < 2**31 else number
