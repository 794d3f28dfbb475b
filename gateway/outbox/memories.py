"""
The memory's tables: records are appended in the order in which they come, and an index of keys is brought up to date
later, in bulk.

A key is a hash, so each row of a table in key order would touch a page of its own; appended rows share pages, and the
small index touches each page once for many keys. What is not in the index yet is known in memory, and found again after
a crash by the number of the last indexed record. Records expire by a walk round the table; beyond the limit the oldest
go.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from gateway.errors import Unavailable
from gateway.outbox import Remembered
from gateway.outbox.records import split
from gateway.outbox.statements import by_ids, insert_rows
from gateway.outbox.writer import Writer

#: Source: the project's design, *Memory*: address and user agent 24 h at most.
CLIENT_LIFE_S = 86_400
#: Rows looked at in one go.
SLICE = 1_000
#: The index is brought up to date when so many keys wait for it, or after so long.
_ROUND = 50_000
_ROUND_S = 60.0
_ROW = f"({','.join('?' * 13)})"
_SIZES = (1, 4, 16)
_clicks = msgspec.json.Decoder(dict[str, str])
_encode = msgspec.json.Encoder().encode


def _row(number: int, digest: bytes, record: Remembered) -> tuple[object, ...]:
    clicks = None if record.clicks is None else _encode(record.clicks).decode()
    return (
        number, digest, record.expires, b"".join(record.subjects), clicks, record.click_at, record.ip,
        record.user_agent, record.seen_at, record.marketing, record.marketing_at, record.sale, record.sale_at,
    )  # fmt: skip


def record_of(row: tuple[Any, ...]) -> Remembered:
    """Return what a row of the table remembers."""
    expires, subjects, clicks, click_at, ip, agent, seen_at, marketing, marketing_at, sale, sale_at = row[2:]
    record = Remembered(tuple(split(subjects)))
    record.expires, record.is_saved = expires, True
    record.clicks = None if clicks is None else _clicks.decode(clicks)
    record.click_at, record.seen_at = click_at, seen_at
    record.ip, record.user_agent = ip, agent
    record.marketing = None if marketing is None else bool(marketing)
    record.marketing_at, record.sale, record.sale_at = marketing_at, sale, sale_at
    return record


class Memories:
    """
    The tables as the writer sees them; every method but :meth:`read` is called on its thread.

    Args:
        limit: So many records are kept; beyond them the oldest go.
    """

    def __init__(self, connection: sqlite3.Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        found = connection.execute("SELECT value FROM meta WHERE name = 'memory_indexed'").fetchone()
        indexed = found[0] if found else 0
        #: Records that are not in the index yet, by key: those to come, and those of the round under way.
        self._pending: dict[bytes, int] = {}
        self._folding: dict[bytes, int] = {}
        self._queue: list[bytes] = []
        self._replaced: list[int] = []
        self._indexing = indexed
        self._next = indexed + 1
        self.rows: int = connection.execute("SELECT count(*) FROM memory_key").fetchone()[0]
        for number, digest in connection.execute(
            "SELECT id, digest FROM memory WHERE id > ? ORDER BY id", (indexed,)
        ).fetchall():
            self._note(digest, number)
        self._next_round = 0.0
        #: Where the walk round all records stands.
        self._cursor = 0

    @property
    def has_room(self) -> bool:
        """Whether new keys should be remembered: expiry may lag behind the limit, but not far."""
        return self.rows < self._limit * 1.25

    # -- writing

    def write(self, records: Mapping[bytes, Remembered]) -> dict[bytes, int]:
        """Append the records as they are now; returns their numbers, for :meth:`written`."""
        numbers: dict[bytes, int] = {}
        rows = []
        for digest, record in records.items():
            record.is_saved = True  # before it is read: a later change says otherwise, and comes with its own write
            if record.is_empty:  # blanked meanwhile
                self._forget(digest)
                continue
            rows.append(_row(self._next, digest, record))
            numbers[digest] = self._next
            self._next += 1
        insert_rows(self._connection, "INSERT INTO memory", _ROW, "", rows)
        return numbers

    def _forget(self, digest: bytes) -> None:
        """Delete every record of a key."""
        numbers = [waiting[digest] for waiting in (self._pending, self._folding) if digest in waiting]
        indexed = self._connection.execute("SELECT record FROM memory_key WHERE digest = ?", (digest,)).fetchone()
        numbers += indexed or ()
        self._delete(dict.fromkeys(numbers, digest))

    def written(self, numbers: Mapping[bytes, int]) -> None:
        """Know committed records."""
        for digest, number in numbers.items():
            self._note(digest, number)

    def _note(self, digest: bytes, number: int) -> None:
        replaced = self._pending.get(digest)
        if replaced is not None:
            self._replaced.append(replaced)
        self._pending[digest] = number
        self.rows += 1
        self._next = max(self._next, number + 1)

    # -- reading

    def read(self, reader: sqlite3.Connection, digests: Collection[bytes], now: float) -> dict[bytes, Remembered]:
        """Return what is remembered under these keys and has not expired; on a reading connection's thread."""
        numbers: dict[int, bytes] = {}
        for waiting in (self._pending, self._folding):
            numbers |= {number: digest for digest in digests if (number := waiting.get(digest)) is not None}
        reader.execute("BEGIN")  # index and records of one moment
        try:
            for digest, number in _select(reader, "SELECT digest, record FROM memory_key WHERE digest", digests):
                numbers[number] = digest
            rows = _select(reader, "SELECT * FROM memory WHERE id", numbers)
        finally:
            reader.execute("COMMIT")
        found: dict[bytes, Remembered] = {}
        for row in sorted(rows):  # the newest last
            if row[1] == numbers[row[0]] and row[2] > now:
                found[row[1]] = record_of(row)
        return found

    def known(self, digests: Collection[bytes]) -> set[bytes]:
        """Return those of the keys under which something is remembered."""
        found = _select(self._connection, "SELECT digest FROM memory_key WHERE digest", digests)
        return {row[0] for row in found} | {one for one in digests if one in self._pending or one in self._folding}

    def unindexed(self) -> list[bytes]:
        """Return the keys that are not in the index yet."""
        return [*self._folding.copy(), *self._pending.copy()]

    # -- upkeep, a slice at a time, each in a transaction of the caller's

    def index(self, now: float, *, force: bool = False) -> bool:
        """
        Bring a slice of the index up to date; returns whether there was something to do.

        ``now`` is monotonic time; ``force`` does not wait for company.
        """
        if not self._queue:
            is_due = force or len(self._pending) >= _ROUND or now >= self._next_round
            if not is_due or not (self._pending or self._replaced):
                return False
            self._next_round = now + _ROUND_S
            self._folding, self._pending = self._pending, {}
            self._queue = sorted(self._folding, reverse=True)
            self._indexing = self._next - 1
        backlog = max(SLICE, (len(self._pending) + len(self._queue)) // 8)
        part = [digest for digest in self._queue[-backlog:] if digest in self._folding]
        known = _select(self._connection, "SELECT digest, record FROM memory_key WHERE digest", part)
        gone = [record for digest, record in known if record != self._folding[digest]]
        insert_rows(
            self._connection, "INSERT OR REPLACE INTO memory_key", "(?,?)", "",
            [(digest, self._folding[digest]) for digest in reversed(part)],
        )  # fmt: skip
        gone += self._replaced
        self._replaced = []
        by_ids(self._connection, "DELETE FROM memory WHERE id IN ({})", gone)
        self.rows -= len(gone)
        del self._queue[-backlog:]
        if not self._queue:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('memory_indexed', ?)", (self._indexing,))
        return True

    def restart_round(self) -> None:
        """Index everything of the round anew: a commit of it failed, and what it held is known here alone."""
        self._pending = {**self._folding, **self._pending}
        self._folding, self._queue = {}, []

    def step(self, now: float) -> None:
        """Go on with the walk: delete what has expired, addresses that are too old, and the oldest beyond the limit."""
        rows = self._connection.execute(
            "SELECT id, digest, expires, seen_at, ip IS NOT NULL OR user_agent IS NOT NULL FROM memory"
            " WHERE id > ? ORDER BY id LIMIT ?", (self._cursor, SLICE),
        ).fetchall()  # fmt: skip
        self._delete({number: digest for number, digest, expires, _, _ in rows if expires <= now})
        too_old = [
            number for number, _, expires, seen_at, has_client in rows
            if has_client and expires > now and seen_at < now - CLIENT_LIFE_S
        ]  # fmt: skip
        by_ids(self._connection, "UPDATE memory SET ip = NULL, user_agent = NULL WHERE id IN ({})", too_old)
        self._cursor = rows[-1][0] if len(rows) == SLICE else 0
        surplus = min(self.rows - self._limit, SLICE)
        if surplus > 0:
            oldest = self._connection.execute("SELECT id, digest FROM memory ORDER BY id LIMIT ?", (surplus,))
            self._delete(dict(oldest.fetchall()))

    def _delete(self, gone: Mapping[int, bytes]) -> None:
        by_ids(self._connection, "DELETE FROM memory WHERE id IN ({})", list(gone))
        stale = [
            digest
            for digest, number in _select(
                self._connection, "SELECT digest, record FROM memory_key WHERE digest", gone.values()
            )
            if number in gone
        ]
        by_ids(self._connection, "DELETE FROM memory_key WHERE digest IN ({})", stale)
        for number, digest in gone.items():
            for waiting in (self._pending, self._folding):
                if waiting.get(digest) == number:
                    del waiting[digest]
        self.rows -= len(gone)

    # -- erasure

    def erase(self, subjects: Collection[bytes], after: int) -> int | None:
        """
        Delete what one slice remembers of these subjects; returns where the next slice starts.

        Call :meth:`index` to its end first: an older record of a key does not say whose it is yet.
        """
        wanted = set(subjects)
        rows = self._connection.execute(
            "SELECT id, digest, subjects FROM memory WHERE id > ? ORDER BY id LIMIT ?", (after, SLICE)
        ).fetchall()
        self._delete({
            number: digest
            for number, digest, stored in rows
            if digest in wanted or not wanted.isdisjoint(split(stored))
        })  # fmt: skip
        return rows[-1][0] if len(rows) == SLICE else None


def read_subjects(connection: sqlite3.Connection, wanted: set[bytes], now: float) -> Iterator[Remembered]:
    """Yield what is remembered of these subjects and has not expired, the newest of each key; looks at all records."""
    newest: dict[bytes, Remembered] = {}
    for row in connection.execute("SELECT * FROM memory WHERE expires > ? ORDER BY id", (now,)):
        record = record_of(row)
        if row[1] in wanted or not wanted.isdisjoint(record.subjects):
            newest[row[1]] = record
    yield from newest.values()


async def erase_memories(writer: Writer, memories: Memories, subjects: Collection[bytes]) -> None:
    """Delete what is remembered of these subjects, a slice a commit."""
    try:
        while await writer.run(lambda: (memories.index(0.0, force=True), None)):
            pass  # older records of a key do not say whose they are: they go first
    except Unavailable:
        memories.restart_round()
        raise
    start: int | None = 0
    while start is not None:
        start = await writer.run(lambda start=start: (memories.erase(subjects, start), None))  # type: ignore[misc]


def _select(connection: sqlite3.Connection, statement: str, values: Collection[int | bytes]) -> list[tuple[Any, ...]]:
    """Return the rows of ``statement IN (values)``, in few prepared statements."""
    asked = list(values)
    found = []
    while asked:
        size = next((size for size in _SIZES if size >= len(asked)), 64 if len(asked) < 512 else 512)
        part, asked = asked[:size], asked[size:]
        padded = part + [part[-1]] * (size - len(part))
        found += connection.execute(f"{statement} IN ({','.join('?' * size)})", padded).fetchall()
    return found
