"""
Dead letters and erasure: the rare operations that look at stored events, in slices that never stall a commit for long.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway.event import SealedEvent
from gateway.history import Cell, changed
from gateway.outbox import DeadFilter, DeadLetter, Lane, kind_of
from gateway.outbox.admission import DEAD, DOOMED, TOMBSTONE_S, settled
from gateway.outbox.leases import forget
from gateway.outbox.records import split, unpack
from gateway.outbox.statements import by_ids
from gateway.outcome import Settled
from gateway.steady import Steady

#: Rows looked at in one go.
SLICE = 500
_SELECT = (
    "SELECT u.id, l.destination, u.event, u.reason, u.ended_at, u.attempts, u.twice"
    " FROM unit u JOIN lane l ON l.id = u.lane"
    f" WHERE u.state <> 0 AND u.state = {DEAD} AND u.id > ?"
    " AND (? IS NULL OR l.destination = ?) AND (? IS NULL OR u.reason = ?)"
    " AND (? IS NULL OR substr(u.reason || ':', 1, length(?) + 1) = ? || ':') AND (? IS NULL OR u.ended_at <= ?)"
    # a text stands in the stored event as it is: most others need not be decoded
    " AND (? IS NULL OR instr(u.event, ?)) AND (? IS NULL OR instr(u.event, ?))"
    "{which} ORDER BY u.id LIMIT ?"
)
_NAMED = " AND u.id IN (SELECT value FROM json_each(?))"


def dead(connection: sqlite3.Connection, which: DeadFilter, limit: int, after: int) -> list[DeadLetter]:
    """Return up to ``limit`` dead letters that match, with ids above ``after``."""
    wanted = {number for unit in which.units if (number := _number(unit)) is not None}
    if which.units and not wanted:
        return []
    units = json.dumps(sorted(wanted)) if wanted else None
    name, source = (
        None if text is None else text.encode("utf-8", "replace") for text in (which.event_name, which.source)
    )
    given = (
        which.destination, which.destination, which.reason, which.reason, *[which.code] * 3, *[which.until] * 2,
        name, name, source, source,
    )  # fmt: skip
    found: list[DeadLetter] = []
    while len(found) < limit:
        if units is None:
            rows = connection.execute(_SELECT.format(which=""), (after, *given, SLICE)).fetchall()
        else:
            rows = connection.execute(_SELECT.format(which=_NAMED), (after, *given, units, SLICE)).fetchall()
        for unit, destination, event, reason, died_at, attempts, twice in rows:
            after = unit
            letter = DeadLetter(
                unit=format(unit, "x"),
                destination=destination,
                event=unpack(event),
                reason=reason,
                died_at=died_at,
                attempts=attempts,
                maybe_twice=bool(twice),
            )
            if _matches(letter.event, which):
                found.append(letter)
                if len(found) >= limit:
                    break
        if len(rows) < SLICE:
            break
    return found


def _number(unit: str) -> int | None:
    """Return the number of a unit's text id, None for a text that is none."""
    try:
        return int(unit, 16)
    except ValueError:
        return None


def _matches(event: SealedEvent, which: DeadFilter) -> bool:
    return which.event_name in (None, event.event_name) and which.source in (None, event.source)


def replay(
    connection: sqlite3.Connection, letters: Sequence[DeadLetter], steady: Steady, lifetime_s: int
) -> tuple[list[str], list[str]]:
    """
    Queue letters again; returns (queued, refused as duplicates).

    A letter's own marks are renewed, wherever they had expired. One whose mark now stands for another event that was
    delivered stays dead: sending it would count a conversion twice.
    """
    queued: list[str] = []
    duplicates: list[str] = []
    for letter in letters:
        unit = int(letter.unit, 16)
        row = connection.execute("SELECT marks FROM unit WHERE id = ? AND state = 1", (unit,)).fetchone()
        if row is None:
            continue
        marks = split(row[0])
        if any(_stands_for_another(connection, mark, unit) for mark in marks):
            duplicates.append(letter.unit)
            continue
        connection.execute(
            "UPDATE unit SET state = 0, due = 0, accepted_at = ?, ended_at = NULL, reason = NULL WHERE id = ?",
            (steady.guarded(), unit),
        )
        connection.executemany(
            "INSERT INTO mark VALUES (?, ?, ?, NULL) ON CONFLICT (digest) DO UPDATE"
            " SET unit = excluded.unit, expires = max(expires, excluded.expires)",
            [(mark, unit, int(steady.now() + lifetime_s)) for mark in marks],
        )
        queued.append(letter.unit)
    return queued, duplicates


def by_lane(letters: Sequence[DeadLetter], lanes: Mapping[Lane, int]) -> dict[int, int]:
    """Count letters by lane number."""
    counted: dict[int, int] = {}
    for letter in letters:
        number = lanes[Lane(destination=letter.destination, kind=kind_of(letter.event))]
        counted[number] = counted.get(number, 0) + 1
    return counted


def _stands_for_another(connection: sqlite3.Connection, mark: bytes, unit: int) -> bool:
    row = connection.execute("SELECT unit FROM mark WHERE digest = ?", (mark,)).fetchone()
    return row is not None and row[0] != unit


def discard(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> int:
    """Delete letters and their marks; returns how many there were."""
    count = 0
    for letter in letters:
        row = connection.execute(
            "SELECT marks FROM unit WHERE id = ? AND state = 1", (int(letter.unit, 16),)
        ).fetchone()
        if row is not None:
            forget(connection, row[0])
            connection.execute("DELETE FROM unit WHERE id = ?", (int(letter.unit, 16),))
            count += 1
    return count


def discard_old(connection: sqlite3.Connection, before: float, cells: dict[Cell, int]) -> dict[int, int]:
    """Delete a slice of dead letters that ended before this time, and count them; returns how many by lane number."""
    rows = connection.execute(
        "SELECT u.id, u.lane, u.state, u.marks, l.destination, u.event FROM unit u JOIN lane l ON l.id = u.lane"
        " WHERE u.state <> 0 AND u.ended_at < ? ORDER BY u.ended_at LIMIT ?",
        (before, SLICE),
    ).fetchall()
    gone: dict[int, int] = {}
    for _, lane, state, marks, destination, event in rows:
        forget(connection, marks)
        gone[lane] = gone.get(lane, 0) + 1
        if state == DEAD:
            changed(cells, unpack(event), destination, "discarded", "expired")
    by_ids(connection, "DELETE FROM unit WHERE id IN ({})", [row[0] for row in rows])
    return gone


def slices(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Yield (first, last) unit ids that cover the table, ``SLICE`` ids at a time."""
    first, last = connection.execute("SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM unit").fetchone()
    for start in range(first, last + 1, SLICE):
        yield start, start + SLICE - 1


class Erased:
    """
    What one slice of an erasure ended: the records, the change of counters by lane number, leased units among them.
    """

    def __init__(self) -> None:
        self.settled: list[Settled] = []
        self.waiting: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        self.doomed: set[int] = set()
        self.cells: dict[Cell, int] = {}


def erase(
    connection: sqlite3.Connection,
    bounds: tuple[int, int],
    matches: Callable[[bytes, SealedEvent], bool],
    lanes: Mapping[int, Lane],
    leased: Mapping[int, str],
    now: float,
) -> Erased:
    """
    Erase the units of one slice whose (subjects, event) match.

    Their marks stay: erasing never frees deduplication keys, so a late copy is a duplicate and not a new event.
    """
    result = Erased()
    rows = connection.execute(
        f"SELECT id, lane, state, subjects, event FROM unit WHERE id BETWEEN ? AND ? AND state <> {DOOMED}", bounds
    ).fetchall()
    for unit, lane, state, subjects, stored in rows:
        event = unpack(stored)
        if not matches(subjects, event):
            continue
        counter = result.dead if state == DEAD else result.waiting
        counter[lane] = counter.get(lane, 0) + 1
        if unit in leased:
            result.doomed.add(unit)
            connection.execute(
                f"UPDATE unit SET state = {DOOMED}, ended_at = ?, reason = 'erased' WHERE id = ?", (now, unit)
            )
        else:
            connection.execute("DELETE FROM unit WHERE id = ?", (unit,))
        result.settled.append(settled(unit, lanes[lane], event, "dropped", "erased"))
        changed(result.cells, event, lanes[lane].destination, "discarded" if state == DEAD else "ended", "erased")
    return result


def remember_erasure(
    connection: sqlite3.Connection, subjects: Sequence[bytes], requested_at: float, now: float
) -> None:
    """Refuse copies of these people's earlier events for as long as a copy may still come."""
    connection.executemany(
        "INSERT INTO erased VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE"
        " SET before = max(before, excluded.before), expires = excluded.expires",
        [(subject, requested_at, now + TOMBSTONE_S) for subject in subjects],
    )
