"""
What happened in each of the last minutes, in memory: the plot of the overview, and when each source was heard of last.

Hours and days are in the store, see :mod:`gateway.history`; these begin anew with the process.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from gateway.interfaces import Observer
from gateway.outcome import Settled

#: How many minutes are kept, the current one among them.
KEPT = 60
_ENDS = {"delivered": 1, "dead": 2}


class Minute(NamedTuple):
    """``start`` is Unix s. Received are events at the door, each once; delivered and dead are per destination."""

    start: int
    received: int = 0
    delivered: int = 0
    dead: int = 0


class Minutes(Observer):
    """
    A ring of counts.

    Args:
        clock: Returns Unix seconds. One that jumps back counts in the newest minute until it has caught up.
    """

    name: ClassVar[str] = "minutes"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ring: list[list[int]] = [[0, 0, 0] for _ in range(KEPT)]
        self._newest = int(clock() // 60)
        self.begun_at = clock()
        #: Source: when its last event came (Unix s).
        self.seen_at: dict[str, float] = {}

    def received(self, source: str) -> None:
        """Count an event of a source."""
        now = self._clock()
        self.seen_at[source] = now
        self._at(now)[0] += 1

    def settled(self, settled: Settled) -> None:
        """Count the end of a unit: ``delivered`` or ``dead``; others, and test events, are not shown."""
        if settled.end in _ENDS and not settled.is_test:
            self._at(self._clock())[_ENDS[settled.end]] += 1

    def last(self) -> list[Minute]:
        """Return the last hour, oldest first; its last minute is the current one, not over yet."""
        self._at(self._clock())
        minutes = range(self._newest - KEPT + 1, self._newest + 1)
        return [Minute(at * 60, *self._ring[at % KEPT]) for at in minutes]

    def _at(self, now: float) -> list[int]:
        minute = int(now // 60)
        if minute > self._newest:
            for at in range(max(self._newest + 1, minute - KEPT + 1), minute + 1):
                self._ring[at % KEPT] = [0, 0, 0]
            self._newest = minute
        return self._ring[self._newest % KEPT]
