"""
Raw GA4 hits (``/g/collect``), turned into the event data that a server container would make of them.

Google publishes no reference of this protocol. Source: hits in public code, read 2026-11; what could not be
confirmed (escaping in ``prN``, other segments of ``em``, the letters of ``gcd``) is not relied on.
"""

import re
from collections.abc import Mapping
from typing import Any

_PARAMETERS = {
    "en": "event_name",
    "cid": "client_id",
    "uid": "user_id",
    "dl": "page_location",
    "dr": "page_referrer",
    "dt": "page_title",
    "ul": "language",
    "cu": "currency",
    "gcs": "x_ga_gcs",
    "npa": "x_ga_npa",
    "rdp": "x_ga_rdp",
    "us_privacy": "us_privacy",
    "gpp": "gpp",
    "gpp_sid": "gpp_sid",
}
_ITEM = re.compile(r"pr([1-9]\d{0,2})\Z", re.ASCII)
_ITEM_CODES = {
    "id": "item_id",
    "nm": "item_name",
    "br": "item_brand",
    "ca": "item_category",
    "pr": "price",
    "qt": "quantity",
}


def is_collect(parameters: Mapping[str, str]) -> bool:
    """Whether these are parameters of a GA4 hit: an event name, or a measurement id of protocol 2."""
    return "en" in parameters or ("tid" in parameters and parameters.get("v") == "2")


def shared(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the event data of one GA4 event; the protocol wins over event parameters of the same name."""
    data: dict[str, Any] = {}
    items: list[tuple[int, dict[str, str]]] = []
    for name, value in parameters.items():
        if name.startswith(("ep.", "epn.")):
            data[name.partition(".")[2]] = value
        elif match := _ITEM.match(name):
            items.append((int(match[1]), _item(value)))
    for name, key in _PARAMETERS.items():
        if name in parameters:
            data[key] = parameters[name]
    if items:
        data["items"] = [item for _, item in sorted(items, key=lambda pair: pair[0])]
    if "_dbg" in parameters:
        data["x_ga_system_properties"] = {"dbg": parameters["_dbg"]}
    if "em" in parameters and (digest := _email_digest(parameters["em"])):
        data["user_data"] = {"sha256_email_address": digest}
    return data


def _item(value: str) -> dict[str, str]:
    """Read ``idSKU~nmName~pr10.01~qt3``; other codes are ignored."""
    item: dict[str, str] = {}
    for part in value.split("~"):
        key = _ITEM_CODES.get(part[:2])
        if key is not None:
            item.setdefault(key, part[2:])
    return item


def _email_digest(value: str) -> str | None:
    """Return the base64url SHA-256 of ``tv.1~em.<digest>``; other segments are not documented, nor read."""
    version, *segments = value.split("~")
    if version != "tv.1":
        return None
    return next((segment[3:] for segment in segments if segment.startswith("em.")), None)
