"""
Salvage: what can be read of a damaged store is put into the current one.

The damaged store's roll-ups are not brought: what is brought is counted as ``salvaged``.

Erasures first, so that nothing erased comes back; then units, each with its own marks; then the marks of what was
delivered, and what is remembered. A unit one of whose keys is known meanwhile is a duplicate, so salvaging twice, or
after it was interrupted, adds nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.errors import StoreError
from gateway.history import Cell, changed
from gateway.outbox import Lane, Remembered, Salvaged
from gateway.outbox.admission import DOOMED, TOMBSTONE_S, WAITING
from gateway.outbox.damage import find_key
from gateway.outbox.holdings import Holdings
from gateway.outbox.leases import After, unpack_ids
from gateway.outbox.memories import Memories, record_of
from gateway.outbox.records import split, unpack
from gateway.outbox.rollups import Rollups
from gateway.outbox.wreck import SLICE, Row, Wreck
from gateway.outbox.writer import Writer
from gateway.steady import Steady

T = TypeVar("T")
#: No unit is held, or waits for its next attempt, longer than this.
LONGEST_DUE_S = 3_600.0
_INSERT = "INSERT INTO unit VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
#: A key that is known stays as it is, except that one of a unit brought just now gets its own expiry.
_MARK = (
    "INSERT INTO mark VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE"
    " SET expires = excluded.expires, event_id = excluded.event_id WHERE unit = excluded.unit"
)
#: Where the expiry of a unit's keys cannot be read: the window in which event ids are duplicates.
_WINDOW_S = 172_800.0


class Salvage:
    """Puts damaged stores into the current one; its parts are the outbox's own."""

    def __init__(
        self, connection: sqlite3.Connection, writer: Writer, holdings: Holdings, memories: Memories,
        erasures: dict[bytes, float], steady: Steady, digest: Callable[..., bytes],
        remembered: Callable[[dict[bytes, int]], None], rollups: Rollups,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._writer = writer
        self._holdings = holdings
        self._memories = memories
        self._erasures = erasures
        self._steady = steady
        self._digest = digest
        self._remembered = remembered
        self._rollups = rollups
        #: Keys whose memory came from the damaged store: a newer record of it takes the place of an older one.
        self._brought: set[bytes] = set()

    async def run(self, path: Path, own_key: bytes) -> Salvaged:
        """
        Read a damaged store into the current one, a slice a commit.

        Raises:
            StoreError: Nothing can be read of it.
            Unavailable: The current store cannot be written; run it again.
        """
        counts = dict.fromkeys(("read", "queued", "dead", "duplicates", "erased", "marks", "erasures", "memories"), 0)
        comparable = await asyncio.to_thread(find_key, path) == own_key
        self._brought.clear()
        wreck = await asyncio.to_thread(Wreck(path).__enter__)
        try:
            last = await asyncio.to_thread(lambda: wreck.last_unit)
            base = await self._writer.run(lambda: self._reserve(last))
            leased = await asyncio.to_thread(_leased, wreck)
            for statement, name, bring in (
                ("SELECT subject, before, expires FROM erased", "subject", self._bring_erasures),
                (None, "unit", lambda rows: self._bring_units(rows, base, leased)),
                ("SELECT digest, unit, expires, event_id FROM mark", "digest",
                 lambda rows: self._bring_marks(rows, base, last, wreck.lost_units)),
                (None, "memory", self._bring_memories),
            ):  # fmt: skip
                slices = _slices(wreck, statement, name)
                while (rows := await asyncio.to_thread(next, slices, None)) is not None:
                    if rows and (comparable or name == "unit"):
                        found = await self._writer.run(lambda bring=bring, rows=rows: bring(rows))  # type: ignore[misc]
                        counts = {what: count + found.get(what, 0) for what, count in counts.items()}
        finally:
            await asyncio.to_thread(wreck.__exit__, None, None, None)
        return Salvaged(**counts, unreadable=wreck.unreadable, is_comparable=comparable)

    def _reserve(self, last: int) -> tuple[int, After]:
        """Keep numbers free for the units of the damaged store, delivered ones too; returns what to add to theirs."""
        base = self._holdings.next_unit - 1
        if not self._connection.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'unit'", (base + last,)
        ).rowcount:
            self._connection.execute("INSERT INTO sqlite_sequence VALUES ('unit', ?)", (base + last,))

        def after() -> None:
            self._holdings.next_unit = base + last + 1

        return base, after

    def _bring_erasures(self, rows: Sequence[Row]) -> tuple[dict[str, int], After]:
        now = self._steady.guarded()
        valid = [row for row in rows if _are_numbers(row[1:]) and now < row[2] <= now + TOMBSTONE_S]
        self._connection.executemany(
            "INSERT INTO erased VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE"
            " SET before = max(before, excluded.before), expires = max(expires, excluded.expires)",
            valid,
        )
        before = {row[0]: max(row[1], self._erasures.get(row[0], 0.0)) for row in valid}
        return {"erasures": len(valid)}, lambda: self._erasures.update(before)

    def _bring_units(self, rows: Sequence[Row], base: int, leased: set[int]) -> tuple[dict[str, int], After]:
        waiting: dict[int, int] = {}
        dead: dict[int, int] = {}
        cells: dict[Cell, int] = {}
        counts = {"read": 0, "queued": 0, "dead": 0, "duplicates": 0, "erased": 0}
        lanes = self._holdings.with_lanes(self._connection, {Lane(destination=row[1], kind=row[2]) for row in rows})
        for row in rows:
            if row[3] == DOOMED:
                continue
            counts["read"] += 1
            fate = self._fate(row)
            counts[fate] += 1
            if fate in ("queued", "dead"):
                lane = lanes[Lane(destination=row[1], kind=row[2])]
                self._insert(row, base + row[0], lane, was_leased=row[0] in leased)
                counter = waiting if fate == "queued" else dead
                counter[lane] = counter.get(lane, 0) + 1
                changed(cells, unpack(row[13]), row[1], "salvaged", fate)
        counted = self._rollups.write(cells)

        def after() -> None:
            counted()
            self._holdings.lanes = lanes
            self._holdings.add(waiting, dead)

        return counts, after

    def _marks_of(self, row: Row) -> list[bytes]:
        """Return the unit's own keys, and one of the salvage itself: not every event has a key."""
        return [*split(row[11]), self._digest("salvaged", str(row[0]), repr(row[6]), unpack(row[13]).event_id)]

    def _fate(self, row: Row) -> str:
        now, event = self._steady.now(), unpack(row[13])
        if any(event.event_time < self._erasures.get(subject, 0.0) for subject in split(row[12])):
            return "erased"
        for digest in self._marks_of(row):
            found = self._connection.execute(
                "SELECT 1 FROM mark WHERE digest = ? AND"
                " (expires > ? OR EXISTS (SELECT 1 FROM unit WHERE unit.id = mark.unit))",
                (digest, now),
            ).fetchone()
            if found:
                return "duplicates"
        return "queued" if row[3] == WAITING else "dead"

    def _insert(self, row: Row, number: int, lane: int, *, was_leased: bool) -> None:
        _, _, _, state, event_time, due, accepted_at, attempts, twice, ended_at, reason, marks, subjects, event = row
        now = self._steady.now()
        due = due if due <= now + LONGEST_DUE_S else now
        self._connection.execute(
            _INSERT,
            (number, lane, state, event_time, due, accepted_at, attempts + was_leased, twice or was_leased, ended_at,
             reason, marks, subjects, event),
        )  # fmt: skip
        *own, ours = self._marks_of(row)
        name, expires = unpack(event).event_id, int(accepted_at + _WINDOW_S)
        self._connection.executemany(
            "INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?)",
            [*((digest, number, expires, name) for digest in own), (ours, number, int(now + TOMBSTONE_S), name)],
        )

    def _bring_marks(
        self, rows: Sequence[Row], base: int, last: int, lost: set[int]
    ) -> tuple[dict[str, int], After | None]:
        """Bring marks; not those of events that are lost: a copy that comes again must be taken."""
        now = self._steady.now()
        valid = [row for row in rows if _are_numbers(row[1:3]) and now < row[2] <= now + 2 * TOMBSTONE_S]
        brought = [
            (digest, unit if unit < 0 else base + min(unit, last), expires, event_id)
            for digest, unit, expires, event_id in valid
            if unit not in lost
        ]
        found = self._connection.executemany(_MARK, brought)
        return {"marks": found.rowcount}, None

    def _bring_memories(self, rows: Sequence[Row]) -> tuple[dict[str, int], After]:
        now = self._steady.guarded()
        records = {row[1]: record for row in rows if (record := _memory(row)) is not None and record.expires > now}
        known = self._memories.known(records)
        fresh = {
            digest: record
            for digest, record in records.items()
            if (digest not in known or digest in self._brought)
            and not any(subject in self._erasures for subject in (digest, *record.subjects))
        }
        self._brought.update(fresh)
        numbers = self._memories.write(fresh)
        return {"memories": len(numbers)}, lambda: self._remembered(numbers)


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _memory(row: Row) -> Remembered | None:
    try:
        return record_of(row) if _are_numbers((row[2], row[5], row[8])) and isinstance(row[1], bytes) else None
    except (msgspec.DecodeError, TypeError):
        return None


def _leased(wreck: Wreck) -> set[int]:
    """Return the units that were out when the damaged store was left: they may have arrived."""
    try:
        return {unit for rows in wreck.keyed("SELECT CAST(token AS BLOB), units FROM lease", "CAST(token AS BLOB)")
                for row in rows for unit in unpack_ids(row[1])}  # fmt: skip
    except (TypeError, StoreError):
        return set()


def _slices(wreck: Wreck, statement: str | None, name: str) -> Iterator[list[Any]]:
    if statement is None:
        yield from wreck.units() if name == "unit" else wreck.memories()
        return
    gathered: list[Row] = []
    for rows in wreck.keyed(statement, name):
        gathered += rows
        if len(gathered) >= SLICE:
            yield gathered
            gathered = []
    yield gathered
