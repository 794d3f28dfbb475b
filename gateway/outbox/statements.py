"""
Bulk statements.

The interpreter's lock is given up and taken back around every step of a statement, and under load each taking back can
wait for the event loop's thread. So a batch is a few statements of many rows, not many of one.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

_SIZES = (64, 32, 16, 8, 4, 2, 1)
_READ = 64
#: Look-ups bind this many digests at once, padded, so that few statements are prepared.
_CHUNKS = (1, 8, 64, 512)


def insert_rows(connection: sqlite3.Connection, head: str, row: str, tail: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run ``head VALUES row, row, … tail`` over all rows in as few statements as a handful of sizes allows."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            values = [value for part in rows[start : start + size] for value in part]
            connection.execute(_insert(head, row, tail, size), values)
            start += size


@cache
def _insert(head: str, row: str, tail: str, size: int) -> str:
    return f"{head} VALUES {','.join([row] * size)} {tail}"


def read_rows(
    connection: sqlite3.Connection, columns: Sequence[str], ids: Sequence[int]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield (id, columns) of units in the order asked for, 64 units a step; a missing unit has None in each column."""
    for start in range(0, len(ids), _READ):
        part = ids[start : start + _READ]
        padded = [*part, *[part[-1]] * (_READ - len(part))]
        row = connection.execute(_read(tuple(columns)), padded).fetchone()
        width = len(columns)
        for index, unit in enumerate(part):
            yield unit, row[index * width : (index + 1) * width]


@cache
def _read(columns: tuple[str, ...]) -> str:
    cells = [f"(SELECT {column} FROM unit WHERE id = ?{index})" for index in range(1, _READ + 1) for column in columns]
    return "SELECT " + ",".join(cells)


def by_ids(
    connection: sqlite3.Connection, statement: str, ids: Sequence[int | bytes], values: Sequence[Any] = ()
) -> None:
    """Run ``statement`` with its ``{}`` standing for the placeholders of up to 512 ids; ``values`` come first."""
    for start in range(0, len(ids), 512):
        part = ids[start : start + 512]
        size = next(size for size in (1, 8, 64, 512) if size >= len(part))
        padded = [*part, *[part[-1]] * (size - len(part))]
        connection.execute(statement.format(",".join("?" * size)), [*values, *padded])


def chunks(digests: list[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield slices of digests, each with how many places a statement for them has."""
    start = 0
    while start < len(digests):
        left = len(digests) - start
        size = next((size for size in _CHUNKS if size >= left), _CHUNKS[-1])
        yield digests[start : start + size], size
        start += size
