"""What the store holds, by lane, as numbers in memory: changed after each commit, counted anew at each start."""

import sqlite3
from collections.abc import Iterable, Mapping

from gateway.outbox import Lane
from gateway.outbox.admission import WAITING


class Holdings:
    """Lanes and their numbers in the file, units waiting (leased ones too) and dead by lane number."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, int] = {}
        self.waiting: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        #: The number of the next unit.
        self.next_unit = 1

    def load(self, connection: sqlite3.Connection) -> None:
        """Count everything."""
        rows = connection.execute("SELECT id, destination, kind FROM lane")
        self.lanes = {Lane(destination=destination, kind=kind): number for number, destination, kind in rows}
        for lane, state, count in connection.execute("SELECT lane, state, count(*) FROM unit GROUP BY lane, state"):
            (self.waiting if state == WAITING else self.dead)[lane] = count
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'unit'").fetchone()
        self.next_unit = row[0] + 1 if row else 1

    def with_lanes(self, connection: sqlite3.Connection, wanted: Iterable[Lane]) -> dict[Lane, int]:
        """Return all lanes with these among them, writing those that are new; keep it only after the commit."""
        lanes = self.lanes
        for lane in wanted:
            if lane not in lanes:
                names = (lane.destination, lane.kind)
                connection.execute("INSERT OR IGNORE INTO lane (destination, kind) VALUES (?, ?)", names)
                row = connection.execute("SELECT id FROM lane WHERE destination = ? AND kind = ?", names).fetchone()
                lanes = {**lanes, lane: int(row[0])}
        return lanes

    def add(self, waiting: Mapping[int, int] | None = None, dead: Mapping[int, int] | None = None) -> None:
        """Change the numbers by these."""
        _add(self.waiting, waiting or {})
        _add(self.dead, dead or {})


def _add(counters: dict[int, int], change: Mapping[int, int]) -> None:
    for key, count in change.items():
        if count:
            counters[key] = counters.get(key, 0) + count


def negative(counts: Mapping[int, int]) -> dict[int, int]:
    """Return the counts with the other sign."""
    return {key: -count for key, count in counts.items()}
