"""
The latest outcomes, in memory: what *Live events* shows.

A ring of what became of each event, without raw identifiers: it is filled from sealed events and outcomes. Nothing is
computed while events come in; an :class:`Entry` is made when somebody asks. After a restart it is empty.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from time import time
from typing import Self
from weakref import WeakSet

import msgspec

from gateway.event import SealedEvent, Struct
from gateway.interfaces import Observer
from gateway.merge import provenance
from gateway.outcome import Fate, Outcome, Settled

#: Entries that wait for a subscriber; one that is slower misses the oldest of them.
_WAITING = 256
#: A source's hits that are refused for one reason are shown once in so many seconds: who floods must not push out what
#: others sent.
_REFUSED_EVERY_S = 1.0
_REASONS = 256


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What became of one event at one destination, of one item without a destination, or of a hit that was refused.

    Args:
        serial: Grows by one with each entry.
        at: When it came in, Unix seconds.
        fate: What admission said: accepted, merged, duplicate, dropped, rejected.
        of: The event id that a merged or duplicate copy belongs to.
        notes: What was corrected or dropped on the way, without values.
        event: The sealed event: the joint one of a merged copy; None when it was decided before there was one.
        signals: Names of signals by where they came from (``browser:NAME``, ``server:NAME``, ``memory:KEY``).
        missed: What a duplicate brought too late.
        unit: The store's id of the event, also of the one that a copy met.
        end: How the unit ended so far (delivered, dead, dropped, merged), None while it waits.
        warning: The vendor's own, of a delivered one.
        status: The HTTP status of a hit that was refused as a whole, None for everything else.
    """

    serial: int
    at: float
    source: str
    event_name: str
    event_id: str | None
    destination: str | None
    fate: Fate
    reason: str | None = None
    of: str | None = None
    notes: tuple[str, ...] = ()
    event: SealedEvent | None = None
    signals: dict[str, list[str]] = msgspec.field(default_factory=dict)
    missed: tuple[str, ...] = ()
    unit: str | None = None
    end: str | None = None
    end_reason: str | None = None
    ended_at: float | None = None
    warning: str | None = None
    maybe_twice: bool = False
    is_test: bool = False
    status: int | None = None


class _Row(msgspec.Struct, frozen=True, gc=False):
    """An entry before it is one."""

    serial: int
    at: float
    source: str
    outcome: Outcome
    event: SealedEvent | None
    status: int | None


class Subscription(AsyncIterator[Entry]):
    """Entries as they come; who is too slow misses the oldest that wait."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Entry | None] = asyncio.Queue(_WAITING)
        self._closed = False

    def put(self, entry: Entry | None) -> None:
        """Hand an entry over, without waiting."""
        if self._closed:
            return
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(entry)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        entry = None if self._closed and self._queue.empty() else await self._queue.get()
        if entry is None:
            raise StopAsyncIteration
        return entry

    async def aclose(self) -> None:
        """End it: who waits for the next entry hears that there is none."""
        self.put(None)
        self._closed = True


class Recent(Observer):
    """
    The ring; used on the event loop only.

    Args:
        size: How many entries are kept. ``clock``: wall time, Unix seconds.
    """

    name = "recent"

    def __init__(self, size: int = 10_000, clock: Callable[[], float] = time) -> None:
        self._size = size
        self._clock = clock
        self._rows: list[_Row] = []
        self._serial = 0
        #: The serial of the latest entry of a unit.
        self._units: dict[str, int] = {}
        self._ends: OrderedDict[str, tuple[Settled, float]] = OrderedDict()
        self._refused: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    def add(
        self, source: str, outcome: Outcome, event: SealedEvent | None = None, *, status: int | None = None
    ) -> None:
        """Keep one outcome; ``status`` is that of a hit that was refused as a whole."""
        serial = self._serial = self._serial + 1
        row = _Row(serial, self._clock(), source, outcome, event, status)
        unit, rows = outcome.unit, self._rows
        if serial <= self._size:
            rows.append(row)
        else:
            slot = (serial - 1) % self._size
            old = rows[slot]
            if (gone := old.outcome.unit) is not None and self._units.get(gone) == old.serial:
                del self._units[gone]
            rows[slot] = row
        if unit is not None:
            self._units[unit] = serial
        if self._subscriptions:
            self._tell(row)

    def refused(self, source: str, status: int, reason: str) -> None:
        """Keep a hit that was refused as a whole; of many alike one a second."""
        now, key = self._clock(), (source, reason)
        if abs(now - self._refused.get(key, -1e12)) < _REFUSED_EVERY_S:
            return
        self._refused[key] = now
        self._refused.move_to_end(key)
        if len(self._refused) > _REASONS:
            self._refused.popitem(last=False)
        self.add(source, Outcome(fate="rejected", reason=reason), status=status)

    def settled(self, settled: Settled, now: float | None = None) -> None:
        """Know how a unit ended; a replayed one may end again."""
        self._ends[settled.unit] = (settled, self._clock() if now is None else now)
        self._ends.move_to_end(settled.unit)
        if len(self._ends) > self._size:
            self._ends.popitem(last=False)
        if self._subscriptions and (serial := self._units.get(settled.unit)) is not None:
            self._tell(self._row(serial))

    def forget(self) -> None:
        """Let go of every event; the outcomes stay. After an erasure: whose an event is, is not known here."""
        self._rows = [msgspec.structs.replace(row, event=None) for row in self._rows]

    @property
    def last(self) -> int:
        """The serial of the newest entry, 0 before any."""
        return self._serial

    def get(self, serial: int) -> Entry | None:
        """Return an entry, None when it is not there (any more)."""
        row = self._row(serial)
        return None if row is None else self._entry(row)

    def since(
        self,
        serial: int = 0,
        *,
        limit: int = 100,
        source: str | None = None,
        name: str | None = None,
        fate: str | None = None,
        before: int | None = None,
    ) -> list[Entry]:
        """
        Return entries newer than ``serial``, newest first.

        Args:
            name: The event's name. ``fate``: what admission said, or how the unit ended (``delivered``, ``dead``).
            before: Only entries older than this serial: the next page.
        """
        found: list[Entry] = []
        last = self._serial if before is None else min(self._serial, before - 1)
        for number in range(last, max(serial, self._serial - len(self._rows)), -1):
            row = self._rows[(number - 1) % self._size]
            if source not in (None, row.source) or name not in (None, row.outcome.event_name):
                continue
            if fate is not None and fate != row.outcome.fate and fate != self._end(row):
                continue
            found.append(self._entry(row))
            if len(found) >= limit:
                break
        return found

    def subscribe(self) -> "Subscription":
        """
        Return entries as they come from now on, and again when their unit ends.

        It ends with ``aclose()``, or when nobody holds it any more.
        """
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def _tell(self, row: _Row | None) -> None:
        if row is None:
            return
        entry = self._entry(row)
        for subscription in list(self._subscriptions):
            subscription.put(entry)

    def _row(self, serial: int) -> _Row | None:
        if not 0 < serial <= self._serial or serial <= self._serial - len(self._rows):
            return None
        return self._rows[(serial - 1) % self._size]

    def _end(self, row: _Row) -> str | None:
        known = self._ends.get(row.outcome.unit) if row.outcome.unit is not None else None
        return None if known is None else known[0].end

    def _entry(self, row: _Row) -> Entry:
        told = row.outcome
        end, ended_at = self._ends.get(told.unit or "", (None, None))
        return Entry(
            serial=row.serial, at=row.at, source=row.source, event_name=told.event_name, event_id=told.event_id,
            destination=told.destination, fate=told.fate, reason=told.reason, of=told.of, notes=told.notes,
            event=row.event, signals=told.signals or ({} if row.event is None else provenance(row.event)),
            missed=told.missed, unit=told.unit, end=end.end if end else None, end_reason=end.reason if end else None,
            ended_at=ended_at, warning=end.warning if end else None, maybe_twice=bool(end and end.maybe_twice),
            is_test=told.is_test, status=row.status,
        )  # fmt: skip
