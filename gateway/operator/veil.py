"""
What a page may show of an event: enough to recognise it, too little to find the person.

Hashes and click ids are cut to six characters, addresses to their network, URLs to their path; raw identifiers are gone
before (:func:`gateway.explain.mask`).
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.explain import mask, network_of

_SHOWN = 6
#: Fields that hold an id of one browser or basket, wherever they stand; below ``click_ids`` everything is one.
_IDS = frozenset({"click_id", "click_ids", "client_id", "cart_token", "epik", "partner_id"})
_MOST_TEXT = 300
#: What :func:`gateway.explain.mask` put in a raw value's place.
_MASKED = re.compile(r"\([0-9]{1,9} characters\)")


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
    if is_id and len(value) > _SHOWN and not value.endswith("…") and _MASKED.fullmatch(value) is None:
        return f"{value[:_SHOWN]}…"
    if "://" in value[:12]:
        return without_query(value)
    could_be_one = 2 < len(value) < 46 and value[-1] in "0123456789abcdefABCDEF:" and ("." in value or ":" in value)
    network = network_of(value) if could_be_one else None
    if network is not None:
        return network
    return value if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]}…"


def without_query(url: str) -> str:
    """Return a URL without query and fragment."""
    base = url.partition("#")[0].partition("?")[0]
    return base[:_MOST_TEXT]
