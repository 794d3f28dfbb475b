"""
Cart attributes: what a shop's theme may tell about the visit; a webhook has no other place for it.

Names are compared without case and leading underscores (which hide an attribute at the checkout).
The convention is this adapter's own:

=====================  ==============================================================
``_epik``, ``epik``    Pinterest's click id
``limited_data``       true or false: limited data processing
``opt_out_type``       flags separated by commas; ``LDP`` among them is limited data
``us_privacy``         the IAB string
``gpp``, ``gpp_sid``   the IAB's GPP string, and the ids of its applicable sections
``gpc``                true or false: Global Privacy Control of the visitor's browser
``marketing_allowed``  true or false: the visitor's consent to marketing
``sale_of_data_allowed``  true or false: false is an opt-out of sale or sharing
=====================  ==============================================================
"""

from collections.abc import Mapping
from typing import Any

from gateway import Consent, Struct, coerce

#: Longer lists are not read to their end: a cart has a handful.
_MOST = 100


class Attributes(Struct, frozen=True, kw_only=True):
    """What the cart's attributes say; None is silence."""

    epik: str | None = None
    limited_data: bool | None = None
    consent: Consent = Consent()


_NOTHING = Attributes()


def read(value: Any) -> Attributes:
    """Read a webhook's ``note_attributes`` (``name``), a pixel's ``attributes`` (``key``), or an object."""
    exact = _pairs(value)
    if not exact:
        return _NOTHING
    named = {name.lstrip("_"): content for name, content in reversed(exact.items())}
    return Attributes(
        epik=coerce.first((exact.get("_epik"), exact.get("epik"))),
        limited_data=_limited(named),
        consent=Consent(
            marketing=coerce.boolean(named.get("marketing_allowed")),
            sale_of_data=coerce.boolean(named.get("sale_of_data_allowed")),
            gpc=coerce.boolean(named.get("gpc")),
            us_privacy=coerce.text(named.get("us_privacy")),
            gpp=coerce.text(named.get("gpp"), coerce.MAX_URL),
            gpp_sid=coerce.text(named.get("gpp_sid")),
        ),
    )


def _pairs(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        given = list(value.items())[:_MOST]
    else:
        entries = (coerce.mapping(entry) for entry in coerce.sequence(value)[:_MOST])
        given = [(entry.get("name", entry.get("key")), entry.get("value")) for entry in entries]
    found: dict[str, Any] = {}
    for name, content in given:
        if isinstance(name, str):
            found.setdefault(name.strip().lower(), content)
    return found


def _limited(named: Mapping[str, Any]) -> bool | None:
    flags = coerce.text(named.get("opt_out_type"))
    if flags is not None and "LDP" in (flag.strip().upper() for flag in flags.split(",")):
        return True
    return coerce.boolean(named.get("limited_data"))
