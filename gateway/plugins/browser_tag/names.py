"""Names of events in any spelling."""

from functools import lru_cache

from gateway import STANDARD_NAMES

#: "PageVisit", "page visit" and "pagevisit" are all page_visit.
_CANONICAL = {name.replace("_", ""): name for name in STANDARD_NAMES}
_SEPARATORS = str.maketrans("", "", "_- ")


@lru_cache(1_024)
def canonical_name(given: str) -> str:
    """Return the standard name of any spelling (``PageVisit``, ``page visit``), else the name itself."""
    if given in STANDARD_NAMES:
        return given
    return _CANONICAL.get(given.lower().translate(_SEPARATORS), given)
