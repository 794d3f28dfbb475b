"""
Reading a damaged store, row by row: what cannot be read is skipped and counted, nothing is changed.

A header that is no longer one is mended in a copy. Rows with a number are asked for one by one around a damaged page;
tables in the order of their keys are read from both ends of 256 ranges.
"""

import contextlib
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.errors import StoreError
from gateway.outbox.failures import failure_of, words_of
from gateway.outbox.records import DIGEST_SIZE, is_sound
from gateway.outbox.schema import VERSION, connect_reader

SLICE = 200
#: When it is not known how many rows there were, so many in a row that cannot be read are the end.
_GIVE_UP = 20_000
_PAGE = 4_096
_UNIT = (
    "SELECT u.id, l.destination, l.kind, u.state, u.event_time, u.due, u.accepted_at, u.attempts, u.twice, u.ended_at,"
    " u.reason, u.marks, u.subjects, u.event FROM unit u JOIN lane l ON l.id = u.lane WHERE u.id"
)
_MEMORY = "SELECT * FROM memory WHERE id"
Row = tuple[Any, ...]


class Wreck:
    """
    A damaged store that nobody writes; ``unreadable`` are the numbers of rows and ranges that cannot be read.

    Use it as a context manager. Raises StoreError when nothing at all can be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy = path.with_name(path.name + ".mended")
        self._reader: sqlite3.Connection | None = None
        #: Units that were there and cannot be read.
        self.lost_units: set[int] = set()
        self.unreadable = 0

    def __enter__(self) -> Self:
        if not self._path.is_file() or not self._path.stat().st_size:
            raise StoreError(f"{self._path} is not a file with something in it.")
        try:
            self._reader = _opened(self._path)
        except sqlite3.Error as error:
            if failure_of(error) != "damaged":
                raise StoreError(f"{self._path} cannot be read ({words_of(error)}).") from error
            self._reader = self._mended()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
        for suffix in ("", "-wal", "-shm"):
            self._copy.with_name(self._copy.name + suffix).unlink(missing_ok=True)

    def _mended(self) -> sqlite3.Connection:
        try:
            for suffix in ("", "-wal"):
                source = self._path.with_name(self._path.name + suffix)
                if source.exists():
                    shutil.copyfile(source, self._copy.with_name(self._copy.name + suffix))
                    self._copy.with_name(self._copy.name + suffix).chmod(0o600)
            with self._copy.open("r+b") as file:
                head = file.read(100).ljust(100, b"\0")
                file.seek(0)
                file.write(_header(head, self._copy.stat().st_size // _PAGE))
            return _opened(self._copy)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"Nothing of {self._path} can be read ({words_of(error)}): restore a backup, or take note with "
                "tag-gateway salvage --acknowledge."
            ) from error

    def value(self, statement: str, *values: object) -> Any:
        """Return the first cell of the first row, None when there is none or it cannot be read."""
        try:
            row = self._db.execute(statement, values).fetchone()
        except sqlite3.Error:
            return None
        return row[0] if row else None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StoreError("The damaged store is not open.")
        return self._reader

    @property
    def last_unit(self) -> int:
        """The highest number that a unit ever had, as far as that is known."""
        asked = ("SELECT seq FROM sqlite_sequence WHERE name = 'unit'", "SELECT max(id) FROM unit")
        return max((found for one in asked if isinstance(found := self.value(one), int)), default=0)

    def units(self) -> Iterator[list[Row]]:
        """Yield units with their lane, as they were written, a slice at a time."""
        for rows in self._numbered(_UNIT, self.last_unit, self.lost_units):
            sound = [row for row in rows if _is_whole(row)]
            self.lost_units.update({row[0] for row in rows} - {row[0] for row in sound})
            self.unreadable += len(rows) - len(sound)
            yield sound

    def memories(self) -> Iterator[list[Row]]:
        """Yield what is remembered, oldest first, a slice at a time."""
        last = self.value("SELECT max(id) FROM memory")
        yield from self._numbered(_MEMORY, last if isinstance(last, int) else 0, set())

    def keyed(self, statement: str, key: str) -> Iterator[list[Row]]:
        """Yield the rows of a table in the order of its key, the statement's first column, a slice at a time."""
        for first in range(256):
            low, high = bytes([first]), bytes([first + 1]) if first < 255 else b"\xff" * 64
            seen, is_whole = b"", True
            for order, step in (("ASC", ">"), ("DESC", "<")):
                edge = b"" if order == "ASC" else high
                while True:
                    bounds = f"{key} >= ? AND {key} < ? AND {key} {step} ? ORDER BY {key} {order} LIMIT {SLICE}"
                    try:
                        rows = self._db.execute(f"{statement} WHERE {bounds}", (low, high, edge)).fetchall()
                    except sqlite3.Error:
                        is_whole = False
                        break
                    rows = [row for row in rows if isinstance(row[0], bytes) and (order == "ASC" or row[0] > seen)]
                    yield rows
                    if len(rows) < SLICE:
                        break
                    edge = rows[-1][0]
                    seen = edge if order == "ASC" else seen
                if is_whole:
                    break
            self.unreadable += not is_whole

    def _numbered(self, statement: str, last: int, lost: set[int]) -> Iterator[list[Row]]:
        at, failed = 0, 0
        while (at < last) if last else (failed < _GIVE_UP):
            try:
                rows = self._db.execute(f"{statement} > ? ORDER BY 1 LIMIT {SLICE}", (at,)).fetchall()
            except sqlite3.Error:
                rows = []
                for number in range(at + 1, at + SLICE + 1):
                    try:
                        rows += self._db.execute(f"{statement} = ?", (number,)).fetchall()
                    except sqlite3.Error:
                        lost.add(number)
                        self.unreadable += last == 0 or number <= last
                        failed += 1
                at += SLICE
                yield rows
                continue
            yield rows
            if len(rows) < SLICE:
                return
            at = max(rows[-1][0], at + 1)


def _is_whole(row: Row) -> bool:
    state, event_time, due, accepted_at, attempts, twice = row[3:9]
    numbers = (event_time, due, accepted_at, attempts, twice)
    texts = isinstance(row[1], str) and row[2] in ("live", "offline", "test")
    digests = all(isinstance(one, bytes) and len(one) % DIGEST_SIZE == 0 for one in row[11:13])
    are_numbers = all(isinstance(one, int | float) for one in numbers)
    return state in (0, 1, 2) and are_numbers and texts and digests and is_sound(row[13])


def _opened(path: Path) -> sqlite3.Connection:
    reader = connect_reader(path)
    try:
        reader.execute("PRAGMA writable_schema = ON")  # a damaged line of the schema hides only its own table
        with contextlib.suppress(sqlite3.OperationalError):
            reader.execute("SELECT count(*) FROM unit LIMIT 1")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        reader.close()
        raise
    return reader


def _header(head: bytes, pages: int) -> bytes:
    """
    Return a header with every field that is always the same, or can be known, put right.

    Source: sqlite.org, "Database File Format", section 1.3.
    """
    counter = head[24:28]
    fixed = b"SQLite format 3\0" + struct.pack(">H", _PAGE) + bytes([2, 2, 0, 64, 32, 32])
    middle = struct.pack(">III", pages, 0, 0) + head[40:44] + struct.pack(">IIIIII", 4, 0, 0, 1, VERSION, 0)
    return fixed + counter + middle + bytes(24) + counter + head[96:100]
