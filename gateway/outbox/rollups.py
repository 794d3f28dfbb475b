"""
Roll-ups: counts by hour, written in the transaction of what they count.

``rollup`` has a row for each hour and key that had any, the rows of an hour beside each other: a commit changes a few
pages. ``rollup_key`` gives the keys small numbers; they are known in memory. Days that are over are added up once more
in ``rollup_day``, so that a month of them is read in milliseconds. Hours and UTC days are those of wall time at the
moment of counting; expiry goes by the judging time.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path

from gateway.history import By, Cell, Cells, Rolled
from gateway.outbox.schema import connect_reader
from gateway.outbox.statements import insert_rows
from gateway.steady import Steady

HOUR_S, DAY_S = 3_600, 86_400
_DAY = DAY_S // HOUR_S
#: What has no commit of its own goes with a commit at most so often, so that most commits stay as small as they are.
_PENDING_EVERY_S = 1.0
#: Rows that expire, and hours that are added up, in one go.
_EXPIRED_A_SLICE = 2_000
_KEEP = " ON CONFLICT (hour, key) DO UPDATE SET count = count + excluded.count"
_ADD_UP = "INSERT INTO rollup_day SELECT hour / 24, key, sum(count) FROM rollup WHERE hour BETWEEN ? AND ? GROUP BY key"
#: The rows of an hour or a day are beside each other: (from, to) is one range of the table.
HOURS = "SELECT hour, key, count FROM rollup WHERE hour BETWEEN ? AND ?"
DAYS = "SELECT day, key, count FROM rollup_day WHERE day BETWEEN ? AND ?"
CHOSEN = " AND key IN (SELECT value FROM json_each(?))"
IN_ONE = "SELECT 0, key, sum(count) FROM ({}) GROUP BY key"
_KEYS = "SELECT source, destination, event, what, detail, id FROM rollup_key"


def _nothing() -> None:
    """Nothing to remember."""


class Rollups:
    """
    The roll-ups of one store.

    :meth:`count` and :meth:`history` are called on the event loop, everything else on the writer's thread inside its
    transaction; what a write means for memory is returned as a callable, to be called after the commit.

    Args:
        clock: Wall time, Unix seconds. ``keep_s``: how long hours are kept.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, clock: Callable[[], float], steady: Steady, keep_s: float
    ) -> None:
        self._connection = connection
        self._path = path
        self._clock = clock
        self._steady = steady
        self._keep_s = keep_s
        self._keys: dict[Cell, int] = {Cell(*row[:5]): row[5] for row in connection.execute(_KEYS)}
        found = connection.execute("SELECT max(day) FROM rollup_day").fetchone()
        #: The last UTC day that is added up.
        self._added_up: int = -1 if found[0] is None else found[0]
        self._pending: dict[Cell, int] = {}
        self._counting = threading.Lock()
        #: Taken from the pending ones, and not committed yet.
        self._taken: dict[Cell, int] = {}
        self._taken_at = 0.0

    # -- on the loop

    def count(self, cells: Cells) -> None:
        """Keep counts for the next commit."""
        with self._counting:
            pending = self._pending
            for cell, count in cells.items():
                pending[cell] = pending.get(cell, 0) + count

    @property
    def has_pending(self) -> bool:
        """Whether counts wait for a commit."""
        return bool(self._pending or self._taken)

    async def history(self, since: float, until: float, by: By, whats: Collection[str], names: "Names") -> list[Rolled]:
        """Read beside the writer; ``names`` are those of source, destination and event."""
        return await asyncio.to_thread(read, self._path, since, until, by, frozenset(whats), names)

    # -- on the writer's thread

    def write(self, cells: Mapping[Cell, int], *, force: bool = False) -> Callable[[], None]:
        """Add counts to this hour's, with the pending ones when they are due (``force``: at once)."""
        now, is_due = self._clock(), False
        if self._taken or (self._pending and (force or not 0 <= now - self._taken_at < _PENDING_EVERY_S)):
            self._take()
            is_due = True
            cells = _sum(cells, self._taken)
        if not cells:
            return _nothing
        hour = int(now) // HOUR_S
        new = {cell: self._key(cell) for cell in cells if cell not in self._keys}
        known = {**self._keys, **new} if new else self._keys
        rows = sorted([(hour, known[cell], count) for cell, count in cells.items()])
        insert_rows(self._connection, "INSERT INTO rollup", "(?,?,?)", _KEEP, rows)
        is_behind = hour // _DAY <= self._added_up
        if is_behind:
            # the clock was set back: that day is added up again
            self._connection.execute("DELETE FROM rollup_day WHERE day >= ?", (hour // _DAY,))

        def after() -> None:
            self._keys.update(new)
            if is_due:
                self._taken, self._taken_at = {}, now
            if is_behind:
                self._added_up = hour // _DAY - 1

        return after

    def flush(self) -> tuple[None, Callable[[], None]]:
        """Write the pending counts."""
        return None, self.write({}, force=True)

    def tend(self) -> Callable[[], None]:
        """Write what is pending, add up a day that is over, and delete a slice of what is too old."""
        after = self.write({}, force=True) if self.has_pending else _nothing
        added_up = self._add_up()
        oldest = int(self._steady.guarded() - self._keep_s) // HOUR_S
        self._connection.execute(
            "DELETE FROM rollup WHERE (hour, key) IN (SELECT hour, key FROM rollup WHERE hour < ? ORDER BY hour, key"
            " LIMIT ?)",
            (oldest, _EXPIRED_A_SLICE),
        )
        self._connection.execute("DELETE FROM rollup_day WHERE day < ?", (oldest // _DAY,))

        def done() -> None:
            after()
            self._added_up = max(self._added_up, added_up)

        return done

    def _take(self) -> None:
        with self._counting:
            taken, self._pending = self._pending, {}
        self._taken = _sum(self._taken, taken) if self._taken else taken

    def _key(self, cell: Cell) -> int:
        self._connection.execute(
            "INSERT OR IGNORE INTO rollup_key (source, destination, event, what, detail) VALUES (?, ?, ?, ?, ?)", cell
        )
        (number,) = self._connection.execute(
            "SELECT id FROM rollup_key WHERE source = ? AND destination = ? AND event = ? AND what = ? AND detail = ?",
            cell,
        ).fetchone()
        return int(number)

    def _add_up(self) -> int:
        """Add up the next day that is over; returns the last one that is."""
        today = int(self._clock()) // DAY_S
        first = self._connection.execute(
            "SELECT min(hour) FROM rollup WHERE hour >= ? AND hour < ?", ((self._added_up + 1) * _DAY, today * _DAY)
        ).fetchone()[0]
        if first is None:
            return self._added_up
        day: int = first // _DAY
        self._connection.execute(_ADD_UP, (day * _DAY, day * _DAY + _DAY - 1))
        return day


def _sum(one: Mapping[Cell, int], other: Mapping[Cell, int]) -> dict[Cell, int]:
    total = dict(one)
    for cell, count in other.items():
        total[cell] = total.get(cell, 0) + count
    return total


Names = tuple[str | None, str | None, str | None]


def read(path: Path, since: float, until: float, by: By, whats: frozenset[str], names: Names) -> list[Rolled]:
    """Return the roll-ups of a range on a connection of its own; opens the file."""
    first, last = int(since) // HOUR_S, _last(until)
    if by == "day":
        first, last = first // _DAY * _DAY, last // _DAY * _DAY + _DAY - 1
    with closing(connect_reader(path)) as reader:
        reader.execute("BEGIN")
        keys = {row[5]: Cell(*row[:5]) for row in reader.execute(_KEYS) if _is_wanted(row, whats, names)}
        chosen = json.dumps(list(keys)) if whats or any(names) else None
        totals: dict[tuple[int, int], int] = {}
        for statement, size, start, end in _ranges(reader, by, first, last):
            scale = {"hour": 1, "day": _DAY // size, "all": 0}[by]
            values: tuple[object, ...] = (start, end)
            if chosen is not None:
                statement, values = statement + CHOSEN, (start, end, chosen)
            if by == "all":
                statement = IN_ONE.format(statement)
            for unit, key, count in reader.execute(statement, values):
                at = (unit // scale if scale else 0, key)
                totals[at] = totals.get(at, 0) + count
    length = {"hour": HOUR_S, "day": DAY_S, "all": 0}[by]
    return [Rolled(at * length, *keys[key], count) for (at, key), count in sorted(totals.items())]


def _last(until: float) -> int:
    """Return the last hour that begins before this moment."""
    return -(-int(until) // HOUR_S) - 1 if until == int(until) else int(until) // HOUR_S


def _is_wanted(row: tuple[str, ...], whats: frozenset[str], names: Names) -> bool:
    return (not whats or row[3] in whats) and all(
        name is None or name == found for name, found in zip(names, row, strict=False)
    )


def _ranges(reader: sqlite3.Connection, by: By, first: int, last: int) -> list[tuple[str, int, int, int]]:
    """Return what to read: (statement, hours in a row, first, last); whole days from the table that has them."""
    added_up = reader.execute("SELECT max(day) FROM rollup_day").fetchone()[0]
    days = (-(-first // _DAY), min((last + 1) // _DAY - 1, -1 if added_up is None else added_up))
    if by == "hour" or days[0] > days[1]:
        return [(HOURS, 1, first, last)]
    return [
        (HOURS, 1, first, days[0] * _DAY - 1), (DAYS, _DAY, *days), (HOURS, 1, (days[1] + 1) * _DAY, last),
    ]  # fmt: skip
