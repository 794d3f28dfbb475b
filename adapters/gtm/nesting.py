"""
Event data in one shape, whether it came nested or flattened.

stape's JSON HTTP request tag can flatten: keys of nested objects are joined with "_", and "-" in keys becomes
"_" (``x-ga-gcs`` → ``x_ga_gcs``, ``user_data.address.city`` → ``user_data_address_city``). Source:
stape-io/json-http-request-tag template.js, read 2026-11: arrays stay arrays in one version, and become
``items_0_item_id`` in another.
"""

from collections.abc import Mapping
from typing import Any

#: Objects that the adapter reads inside of, and that may therefore have been flattened.
_OBJECTS = ("user_data", "common_cookie", "consent_state", "ecommerce", "x_ga_system_properties")
_LISTS = ("items", "contents", "content_ids", "line_items")
_FIRST = tuple(f"{name}_" for name in _OBJECTS + _LISTS)
_MAX_INDEX = 1_000


def nested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event data with "_" for "-" in its "x-" keys, and flattened objects put together again."""
    result: dict[str, Any] = {}
    flat: list[tuple[str, Any]] = []
    for given, value in data.items():
        key = given.replace("-", "_") if given.startswith("x-") else given
        result[key] = value
        if key.startswith(_FIRST):
            flat.append((key, value))
    if flat:
        for name in _OBJECTS:
            _gather(result, name, flat)
        for name in _LISTS:
            _gather_list(result, name, flat)
    return result


def _gather(result: dict[str, Any], name: str, flat: list[tuple[str, Any]]) -> None:
    parts = {key[len(name) + 1 :]: value for key, value in flat if key.startswith(name + "_")}
    if not parts:
        return
    whole = result.get(name)
    # a new object: the hit stays as it came
    built: dict[str, Any] = {**parts, **whole} if isinstance(whole, dict) else parts
    if name == "user_data":
        _gather_address(built)
    elif name == "ecommerce":
        _gather_list(built, "items", list(built.items()))
    result[name] = built


def _gather_address(user_data: dict[str, Any]) -> None:
    """Put ``address_city`` and ``address_0_city`` under ``address``; of several the first counts."""
    if "address" in user_data:
        return
    address: dict[str, Any] = {}
    for key, value in user_data.items():
        if key.startswith("address_"):
            field = key[8:].removeprefix("0_")
            if not field[:1].isdigit():
                address.setdefault(field, value)
    if address:
        user_data["address"] = address


def _gather_list(result: dict[str, Any], name: str, flat: list[tuple[str, Any]]) -> None:
    """Put ``items_0_item_id`` and ``content_ids_0`` together as lists, in the order of their numbers."""
    if name in result:
        return
    found: dict[int, Any] = {}
    for key, value in flat:
        if not key.startswith(name + "_"):
            continue
        number, _, field = key[len(name) + 1 :].partition("_")
        if not number.isascii() or not number.isdigit() or len(number) > 4 or int(number) >= _MAX_INDEX:
            continue
        if not field:
            found[int(number)] = value
        elif isinstance(item := found.setdefault(int(number), {}), dict):
            item[field] = value
    if found:
        result[name] = [found[number] for number in sorted(found)]
