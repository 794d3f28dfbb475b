"""A country and, in the US, a state."""

from typing import Any, NamedTuple

from gateway.plugins.privacy.states import STATES

US = "US"
#: Not countries: unknown (Cloudflare ``XX``, App Engine ``ZZ``).
_UNKNOWN = frozenset({"XX", "ZZ"})


class Place(NamedTuple):
    """``country`` as ISO 3166-1 alpha-2, ``state`` as the code of a US state; None is unknown."""

    country: str | None = None
    state: str | None = None


NOWHERE = Place()


def place_of(country: Any, region: Any) -> Place:
    """Return the place of two codes that a machine wrote; anything unusual is unknown."""
    code = country.strip().upper() if isinstance(country, str) else ""
    if len(code) != 2 or not (code.isascii() and code.isalpha()) or code in _UNKNOWN:
        return NOWHERE
    if code != US:
        return Place(code)
    state = region.strip().upper().removeprefix("US-") if isinstance(region, str) else ""
    return Place(US, state if state in STATES else None)
