"""Erasure and dead letters: the operator's changes to what is stored, a slice a commit, so that hits go on."""

import sqlite3
from collections.abc import Callable, MutableMapping, Sequence

from gateway.event import SealedEvent
from gateway.history import Cell, changed
from gateway.outbox import DeadFilter, DeadLetter, Replayed
from gateway.outbox import letters as dead_letters
from gateway.outbox.holdings import Holdings, negative
from gateway.outbox.leases import After, Ledger
from gateway.outbox.memories import Memories, erase_memories
from gateway.outbox.records import split
from gateway.outbox.rollups import Rollups
from gateway.outbox.writer import Writer
from gateway.outcome import Settled
from gateway.steady import Steady


class Revision:
    """
    Changes what is stored.

    Args:
        erasures: Those in force, by subject. ``business_key_s`` is the lifetime of marks that a replay renews.
    """

    def __init__(
        self, connection: sqlite3.Connection, writer: Writer, ledger: Ledger, memories: Memories, holdings: Holdings,
        erasures: MutableMapping[bytes, float], steady: Steady, business_key_s: int, rollups: Rollups,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._writer = writer
        self._ledger = ledger
        self._memories = memories
        self._holdings = holdings
        self._erasures = erasures
        self._steady = steady
        self._business_key_s = business_key_s
        self._rollups = rollups

    async def erase(self, subjects: Sequence[bytes], requested_at: float) -> list[Settled]:
        """Erase the units of these subjects slice by slice, after refusing older copies from now on."""
        wanted = set(subjects)

        def remember() -> tuple[None, After]:
            dead_letters.remember_erasure(self._connection, subjects, requested_at, self._steady.guarded())
            before = {subject: max(requested_at, self._erasures.get(subject, 0.0)) for subject in subjects}
            return None, lambda: self._erasures.update(before)

        await self._writer.run(remember)

        def matches(stored: bytes, event: SealedEvent) -> bool:
            return event.event_time < requested_at and not wanted.isdisjoint(split(stored))

        await erase_memories(self._writer, self._memories, wanted)
        ended: list[Settled] = []
        for bounds in await self._writer.run(lambda: (list(dead_letters.slices(self._connection)), None)):
            ended += await self._writer.run(lambda bounds=bounds: self._erase(bounds, matches))  # type: ignore[misc]
        return ended

    def _erase(
        self, bounds: tuple[int, int], matches: Callable[[bytes, SealedEvent], bool]
    ) -> tuple[list[Settled], After]:
        lanes = {number: lane for lane, number in self._holdings.lanes.items()}
        now = self._steady.guarded()
        erased = dead_letters.erase(self._connection, bounds, matches, lanes, self._ledger.units, now)
        counted = self._rollups.write(erased.cells)

        def after() -> None:
            counted()
            self._ledger.doomed |= erased.doomed
            self._holdings.add(negative(erased.waiting), negative(erased.dead))

        return erased.settled, after

    async def dead(self, which: DeadFilter, limit: int, after: str | None) -> list[DeadLetter]:
        """Return a page of dead letters."""
        start = int(after, 16) if after else 0
        return await self._writer.run(lambda: (dead_letters.dead(self._connection, which, limit, start), None))

    async def replay(self, which: DeadFilter) -> Replayed:
        """Queue dead letters again, a slice a commit."""
        queued, duplicates, after = 0, [], None
        while letters := await self.dead(which, dead_letters.SLICE, after):
            after = letters[-1].unit
            done, refused = await self._writer.run(lambda letters=letters: self._replay(letters))  # type: ignore[misc]
            queued += len(done)
            duplicates += refused
        return Replayed(queued=queued, duplicates=tuple(duplicates))

    def _replay(self, letters: Sequence[DeadLetter]) -> tuple[tuple[list[str], list[str]], After]:
        queued, duplicates = dead_letters.replay(self._connection, letters, self._steady, self._business_key_s)
        again = set(queued)
        done = [letter for letter in letters if letter.unit in again]
        moved, counted = dead_letters.by_lane(done, self._holdings.lanes), self._count(done, "replayed")

        def after() -> None:
            counted()
            self._holdings.add(moved, negative(moved))

        return (queued, duplicates), after

    def _count(self, letters: Sequence[DeadLetter], what: str, detail: str = "") -> After:
        cells: dict[Cell, int] = {}
        for letter in letters:
            changed(cells, letter.event, letter.destination, what, detail)
        return self._rollups.write(cells)

    async def discard(self, which: DeadFilter) -> int:
        """Delete dead letters, a slice a commit."""
        total = 0
        while letters := await self.dead(which, dead_letters.SLICE, None):
            total += await self._writer.run(lambda letters=letters: self._discard(letters))  # type: ignore[misc]
        return total

    def _discard(self, letters: Sequence[DeadLetter]) -> tuple[int, After]:
        count = dead_letters.discard(self._connection, letters)
        counted = self._count(letters, "discarded", "operator")

        def after() -> None:
            counted()
            self.discarded(dead_letters.by_lane(letters, self._holdings.lanes))

        return count, after

    def discarded(self, gone: dict[int, int]) -> None:
        """Know that dead letters are gone, by lane number."""
        self._holdings.add(dead=negative(gone))
