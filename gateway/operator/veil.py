"""
What a page may show of an event: enough to recognise it, too little to find the person.

Hashes and click ids are cut to six characters, addresses to their network, URLs to their path; raw identifiers are gone
before (:func:`gateway.explain.mask`).
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

from gateway.explain import mask

_SHOWN = 6
#: Source: the project's issue 6, *Live events*: addresses are shown shortened.
_NETWORKS = {4: 24, 6: 48}
#: Fields that hold an id of one browser or basket, wherever they stand; below ``click_ids`` everything is one.
_IDS = frozenset({"click_id", "click_ids", "client_id", "cart_token", "epik", "partner_id"})
_MOST_TEXT = 300


def veiled(value: Any, *, is_id: bool = False) -> Any:
    """Return plain objects with everything in them masked; the shape stays."""
    return _veil(mask(value), is_id=is_id)


def _veil(value: Any, *, is_id: bool) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _veil(item, is_id=is_id or key in _IDS) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_veil(item, is_id=is_id) for item in value]
    return text(value, is_id=is_id) if isinstance(value, str) else value


def text(value: str, *, is_id: bool = False) -> str:
    """Return one masked text."""
    if is_id and len(value) > _SHOWN and not value.endswith("…"):
        return f"{value[:_SHOWN]}…"
    if "://" in value[:12]:
        return without_query(value)
    network = _network(value) if 2 < len(value) < 46 and value[-1] in "0123456789abcdefABCDEF:" else None
    if network is not None:
        return network
    return value if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]}…"


def without_query(url: str) -> str:
    """Return a URL without query and fragment."""
    base = url.partition("#")[0].partition("?")[0]
    return base[:_MOST_TEXT]


def _network(value: str) -> str | None:
    """Return an address's network, None for what is no address."""
    if "." not in value and ":" not in value:
        return None
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    return str(ipaddress.ip_network((address, _NETWORKS[address.version]), strict=False))
