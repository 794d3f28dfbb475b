"""
The memory's table: one row a key.

Rows expire by a walk round the table in key order, as marks do. The table is bounded: beyond ``limit`` rows the walk
takes the share that is too much, those that would expire first; far beyond it nothing new is remembered.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping

import msgspec

from gateway.outbox import Remembered
from gateway.outbox.records import split
from gateway.outbox.statements import by_ids, insert_rows

#: Source: the project's design, *Memory*: address and user agent 24 h at most.
CLIENT_LIFE_S = 86_400
#: Rows looked at in one go.
SLICE = 1_000
_COLUMNS = 12
_ROW = f"({','.join('?' * _COLUMNS)})"
_SIZES = (1, 4, 16)
_clicks = msgspec.json.Decoder(dict[str, str])


def write(connection: sqlite3.Connection, records: Mapping[bytes, Remembered]) -> None:
    """Write the records as they are now; one that was blanked meanwhile is left out."""
    rows = [_row(digest, records[digest]) for digest in sorted(records) if not records[digest].is_empty]
    insert_rows(connection, "INSERT OR REPLACE INTO memory", _ROW, "", rows)


def _row(digest: bytes, record: Remembered) -> tuple[object, ...]:
    clicks = None if record.clicks is None else msgspec.json.encode(record.clicks).decode()
    return (
        digest, record.expires, b"".join(record.subjects), clicks, record.click_at, record.ip, record.user_agent,
        record.seen_at, record.marketing, record.marketing_at, record.sale, record.sale_at,
    )  # fmt: skip


def read(connection: sqlite3.Connection, digests: Collection[bytes], now: float) -> dict[bytes, Remembered]:
    """Return what is remembered under these keys and has not expired."""
    asked = list(digests)
    found: dict[bytes, Remembered] = {}
    while asked:
        size = next((size for size in _SIZES if size >= len(asked)), _SIZES[-1])
        part, asked = asked[:size], asked[size:]
        padded = part + [part[-1]] * (size - len(part))
        holes = ",".join("?" * size)
        rows = connection.execute(f"SELECT * FROM memory WHERE digest IN ({holes}) AND expires > ?", (*padded, now))
        found.update(map(_record, rows.fetchall()))
    return found


def _record(row: tuple[object, ...]) -> tuple[bytes, Remembered]:
    digest, expires, subjects, clicks, click_at, ip, agent, seen_at, marketing, marketing_at, sale, sale_at = row
    record = Remembered(tuple(split(subjects)))  # type: ignore[arg-type]
    record.expires = expires  # type: ignore[assignment]
    record.clicks = None if clicks is None else _clicks.decode(clicks)  # type: ignore[arg-type]
    record.click_at, record.seen_at = click_at, seen_at  # type: ignore[assignment]
    record.ip, record.user_agent = ip, agent  # type: ignore[assignment]
    record.marketing = None if marketing is None else bool(marketing)
    record.marketing_at, record.sale, record.sale_at = marketing_at, sale, sale_at  # type: ignore[assignment]
    return digest, record  # type: ignore[return-value]


def erase(connection: sqlite3.Connection, subjects: Collection[bytes], after: bytes) -> bytes | None:
    """Delete what one slice of the table remembers of these subjects; returns where the next slice starts."""
    wanted = set(subjects)
    rows = connection.execute(
        "SELECT digest, subjects FROM memory WHERE digest > ? ORDER BY digest LIMIT ?", (after, SLICE)
    ).fetchall()
    gone = [digest for digest, stored in rows if digest in wanted or not wanted.isdisjoint(split(stored))]
    by_ids(connection, "DELETE FROM memory WHERE digest IN ({})", gone)
    return rows[-1][0] if len(rows) == SLICE else None


def of_subjects(connection: sqlite3.Connection, subjects: Collection[bytes]) -> Iterator[Remembered]:
    """Yield everything that is remembered of these subjects; looks at the whole table."""
    wanted = set(subjects)
    for row in connection.execute("SELECT * FROM memory"):
        digest, record = _record(row)
        if digest in wanted or not wanted.isdisjoint(record.subjects):
            yield record


class Walk:
    """The walk round the table; one step is small enough that no commit waits for it noticeably."""

    def __init__(self, connection: sqlite3.Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._cursor = b""
        self._seen = 0
        #: How many rows there are, as of the last round, plus those written since.
        self.rows = 0

    def step(self, now: float) -> None:
        """Delete what has expired in the next slice, addresses that are too old, and what is beyond the limit."""
        keys = self._connection.execute(
            "SELECT digest, expires FROM memory WHERE digest > ? ORDER BY digest LIMIT ?", (self._cursor, SLICE)
        ).fetchall()
        if keys:
            self._forget([key for key, expires in keys if expires <= now])
            self._forget(self._surplus([(expires, key) for key, expires in keys if expires > now]))
            self._connection.execute(
                "UPDATE memory SET ip = NULL, user_agent = NULL WHERE digest >= ? AND digest <= ? AND seen_at < ?"
                " AND (ip IS NOT NULL OR user_agent IS NOT NULL)",
                (keys[0][0], keys[-1][0], now - CLIENT_LIFE_S),
            )
        self._seen += len(keys)
        if len(keys) == SLICE:
            self._cursor = keys[-1][0]
        else:
            self._cursor, self.rows, self._seen = b"", self._seen, 0

    def _surplus(self, live: list[tuple[int, bytes]]) -> list[bytes]:
        if self.rows <= self._limit:
            return []
        share = len(live) - len(live) * self._limit // self.rows
        return [key for _, key in sorted(live)[:share]]

    def _forget(self, keys: list[bytes]) -> None:
        by_ids(self._connection, "DELETE FROM memory WHERE digest IN ({})", keys)
        self._seen -= len(keys)
