"""The periods that a page or a command may look at."""

from gateway.event import Struct

PERIODS = {"24h": 86_400.0, "7d": 604_800.0, "28d": 2_419_200.0}
NAMES = {"24h": "last 24 hours", "7d": "last 7 days", "28d": "last 28 days"}
DEFAULT = "7d"


class Period(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """``since`` to ``until`` in Unix s; roll-ups are of whole hours (over a week: of UTC days), the first one too."""

    key: str
    name: str
    since: float
    until: float

    @property
    def by(self) -> str:
        """How a plot of it is stepped: ``hour`` or ``day``."""
        return "hour" if self.key == "24h" else "day"


def period_of(key: str | None, now: float) -> Period:
    """
    Return the period that ends now.

    Raises:
        ValueError: There is no such period.
    """
    key = key or DEFAULT
    if key not in PERIODS:
        raise ValueError(f"period must be one of {', '.join(PERIODS)}.")
    return Period(key=key, name=NAMES[key], since=now - PERIODS[key], until=now)
