"""The vendors' warnings on events that they took, in their own words: the last distinct ones, in memory."""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from gateway.event import Struct
from gateway.interfaces import Observer
from gateway.outcome import Settled

#: Distinct warnings that are kept; a new one takes the place of the one not heard for longest.
MOST = 200
#: Characters of a warning that are kept; a destination's own limit may be lower.
LONGEST = 300


class Warned(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    One wording of one destination.

    ``count`` events since ``first_at`` had it, the last one ``last_at`` (Unix s), which came from ``source`` under the
    name ``event_name``. ``is_test``: that one was a test event.
    """

    destination: str
    text: str
    count: int
    first_at: float
    last_at: float
    source: str
    event_name: str
    is_test: bool = False


class WarningsSeen(Observer):
    """
    Hears of every settled unit.

    Args:
        clock: Unix seconds.
    """

    name: ClassVar[str] = "warnings"

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._seen: OrderedDict[tuple[str, str], Warned] = OrderedDict()
        #: Wordings that had to make room.
        self.forgotten = 0

    def settled(self, settled: Settled) -> None:
        """Keep a delivered unit's warning."""
        if not settled.warning:
            return
        now, key = self._clock(), (settled.destination, settled.warning[:LONGEST])
        known = self._seen.pop(key, None)
        self._seen[key] = Warned(
            destination=key[0],
            text=key[1],
            count=known.count + 1 if known else 1,
            first_at=known.first_at if known else now,
            last_at=now,
            source=settled.source,
            event_name=settled.event_name,
            is_test=settled.is_test,
        )
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
            self.forgotten += 1

    def list(self) -> list[Warned]:
        """Return all, the one heard last first."""
        return list(reversed(self._seen.values()))
