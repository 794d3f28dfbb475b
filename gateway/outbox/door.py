"""What admission counts: a few additions to a dictionary for each unit."""

from collections.abc import Callable, Mapping, Sequence

from gateway.event import SealedEvent
from gateway.history import Cell, add, code_of, what_of
from gateway.outbox import Admission, Unit
from gateway.outbox.targets import DEAD, Sent, Target
from gateway.outcome import Settled


class Door:
    """
    Counts the decisions of one group commit; :mod:`gateway.history` says what is what.

    ``sent`` are delivered units, as far as they are known.
    """

    def __init__(self, sent: Mapping[int, Sent]) -> None:
        self._sent = sent
        self.cells: dict[Cell, int] = {}
        #: Delivered units that the page's tag turned out to have told too.
        self.tagged: dict[int, Sent] = {}

    def sent(self, target: Target) -> Sent | None:
        """Return what is known of a delivered unit."""
        return self.tagged.get(target.unit) or self._sent.get(target.unit)

    def decided(self, unit: Unit, admission: Admission) -> None:
        """Count a fate."""
        event, fate = unit.event, admission.fate
        what = what_of(fate, is_test=True) if event.test else fate
        reason = "" if admission.reason is None else code_of(admission.reason)
        # equal to a Cell, and made in half the time
        cell: Cell = (event.source, unit.lane.destination, event.event_name, what, reason)  # type: ignore[assignment]
        self.cells[cell] = self.cells.get(cell, 0) + 1
        if not unit.marks and fate == "accepted" and not event.test:
            self._add(event, unit.lane.destination, "keyless")

    def met(self, event: SealedEvent, destination: str, fate: str, other: str | None) -> None:
        """Count a copy that met another event; ``other`` is that one's source."""
        if not event.test:
            self._add(event, destination, "pair", f"{fate}:{other or '?'}")

    def ended(self, settled: Settled, state: int | None) -> None:
        """Count a unit that a copy took away, waiting or dead."""
        reason = code_of(settled.reason) or settled.end
        what = what_of("discarded" if state == DEAD else "ended", is_test=settled.is_test)
        add(self.cells, Cell(settled.source, settled.destination, settled.event_name, what, reason))

    def revived(self, event: SealedEvent, destination: str) -> None:
        """Count a dead letter that a copy completed."""
        self._add(event, destination, what_of("revived", is_test=event.test))

    def first_told(
        self, unit: Unit, met: Sequence[Target], known: Mapping[bytes, Target],
        event_of: Callable[[Target], SealedEvent],
    ) -> Target | None:  # fmt: skip
        """
        Return what the page's own tag tells of for the first time with this copy, None when it did before.

        An event knows that its id is the tag's; an id that stands for an event under another id was told before.
        ``known`` are targets by mark.
        """
        if unit.event.test:
            return None
        own = next((mark for mark in unit.marks if not mark.business), None)
        target = None if own is None else known.get(own.digest)
        if target is None:
            # the keys of an unsigned copy that comes late are not kept: it could be counted again and again
            return None if unit.event.unsigned and any(one.is_sent for one in met) else Target(0, None)
        if target.is_tombstone:
            return None
        if target.is_sent:
            sent = self.sent(target)
            is_same = target.event_id in (None, unit.event.event_id)
            return target if sent is not None and is_same and not sent.tag else None
        event = event_of(target)
        return target if event.event_id == unit.event.event_id and not event.tag else None

    def tag_seen(self, unit: Unit, met: Target | None) -> None:
        """
        Count an event that the page's own tag told for the first time.

        ``met``: the delivered event with the same id, which has met it then.
        """
        self._add(unit.event, unit.lane.destination, "tag_seen")
        known = None if met is None else self.sent(met)
        if met is not None and known is not None:
            self._add(unit.event, unit.lane.destination, "tag_met")
            self.tagged[met.unit] = known._replace(tag=True)

    def _add(self, event: SealedEvent, destination: str, what: str, detail: str = "") -> None:
        add(self.cells, Cell(event.source, destination, event.event_name, what, detail))
