"""What the store holds of a person, read beside the writer: for the person, who may ask for it."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from gateway.errors import Unavailable
from gateway.outbox import Kept, KeptUnit, Remembered
from gateway.outbox.admission import DEAD, DOOMED
from gateway.outbox.memories import read_subjects
from gateway.outbox.records import split, unpack
from gateway.outbox.schema import connect_reader

_UNITS = (
    "SELECT l.destination, u.state, u.accepted_at, u.ended_at, u.attempts, u.reason, u.event, u.subjects"
    f" FROM unit u JOIN lane l ON l.id = u.lane WHERE u.state <> {DOOMED} ORDER BY u.id"
)


def kept_of(path: Path, subjects: Collection[bytes], dead_keep_s: float, now: float) -> Kept:
    """
    Return everything that belongs to any of these subjects; looks at every row, one at a time.

    Raises:
        Unavailable: The store cannot be read.
    """
    try:
        return _read(path, subjects, dead_keep_s, now)
    except sqlite3.Error as error:
        raise Unavailable("store_failed", "The store cannot be read.", retry_after_s=5) from error


def _read(path: Path, subjects: Collection[bytes], dead_keep_s: float, now: float) -> Kept:
    wanted = set(subjects)
    with closing(connect_reader(path)) as reader:
        reader.execute("BEGIN")  # one state of the store for all of it
        units = tuple(_units(reader, wanted, dead_keep_s))
        memories: tuple[Remembered, ...] = tuple(read_subjects(reader, wanted, now))
        times = [
            before
            for subject in sorted(wanted)
            for (before,) in reader.execute(
                "SELECT before FROM erased WHERE subject = ? AND expires > ?", (subject, now)
            )
        ]
    return Kept(units=units, memories=memories, erased_before=max(times, default=None))


def _units(reader: sqlite3.Connection, wanted: set[bytes], dead_keep_s: float) -> Iterator[KeptUnit]:
    for destination, state, accepted_at, ended_at, attempts, reason, stored, subjects in reader.execute(_UNITS):
        if not wanted.isdisjoint(split(subjects)):
            is_dead = state == DEAD
            yield KeptUnit(
                destination=destination, event=unpack(stored), accepted_at=accepted_at, attempts=attempts,
                is_dead=is_dead, reason=reason, until=ended_at + dead_keep_s if is_dead else None,
            )  # fmt: skip
