"""What a deduplication mark stands for, and the record of a unit's end."""

from typing import NamedTuple

from gateway.event import SealedEvent
from gateway.outbox import Lane
from gateway.outcome import Settled

WAITING, DEAD, DOOMED = 0, 1, 2
#: A tombstone outlives every copy that may still come.
TOMBSTONE_S = 30 * 86_400


class Sent(NamedTuple):
    """What is known of a delivered unit: what it carried, who told it first, and whether the page's tag told it too."""

    signals: frozenset[str]
    source: str
    tag: bool


class Target:
    """What a mark stands for, as far as this batch knows."""

    __slots__ = ("attempts", "event", "event_id", "lane", "marks", "released", "state", "unit")

    def __init__(self, unit: int, event_id: str | None) -> None:
        self.unit = unit
        self.event_id = event_id
        self.state: int | None = None  # None: no row, so delivered or a tombstone
        self.lane = 0
        self.attempts = 0
        self.event: SealedEvent | None = None
        self.marks = b""
        self.released = False  # not held any longer

    @property
    def is_tombstone(self) -> bool:
        """Whether the mark stands for a refused consent."""
        return self.unit < 0

    @property
    def is_sent(self) -> bool:
        """Whether it stands for an event that was delivered."""
        return self.state not in (WAITING, DEAD) and self.unit > 0


def settled(unit: int, lane: Lane, event: SealedEvent, end: str, reason: str | None, **more: object) -> Settled:
    """Return the record of a unit's end."""
    return Settled(
        unit=format(unit, "x"), destination=lane.destination, event_id=event.event_id, event_name=event.event_name,
        source=event.source, end=end, reason=reason, is_test=event.test, **more,  # type: ignore[arg-type]
    )  # fmt: skip
