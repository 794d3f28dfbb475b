"""``audiences.db`` in use: one connection on a thread of its own, each job one transaction."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.audience import AudienceError, Group
from gateway.audiences import ledger, mirror
from gateway.audiences.records import Outcome, State, Status
from gateway.audiences.schema import connect
from gateway.errors import Unavailable
from gateway.event import Struct
from gateway.outbox.schema import FileLock
from gateway.outbox.writer import Writer

T = TypeVar("T")


class Shown(Struct, frozen=True, kw_only=True):
    """What only status shows; kept as JSON."""

    group_state: str = ""
    members: int | None = None
    skipped: Mapping[str, int] = {}
    audience_state: str = ""
    audience_size: int | None = None
    last: Outcome | None = None


class Row(Struct, frozen=True, kw_only=True):
    """A connection as it is kept; see the comments in :mod:`gateway.audiences.schema`."""

    id: int
    source: str
    kind: str
    group: str
    group_name: str
    sink: str
    account: str
    feed: str | None
    audience: str | None
    audience_name: str
    remove: bool
    connected_at: float
    state: State
    message: str
    hold: str
    leaving: int
    allowed: int
    scan: int
    scanning: int
    cursor: str | None
    scan_began: float
    seen: int
    since: float | None
    members: int
    applied: int
    added: int
    removed: int
    quick_at: float | None
    full_at: float | None
    next_at: float | None
    shown: Shown

    def status(self, *, running: bool = False) -> Status:
        """Return it as the operator sees it."""
        return Status(
            id=self.id, source=self.source, kind=self.kind, group=self.group, group_name=self.group_name,
            sink=self.sink, account=self.account, audience=self.audience or "", audience_name=self.audience_name,
            feed=self.feed or "", remove=self.remove,
            state="leaving" if self.leaving else "running" if running else self.state, message=self.message,
            group_state=self.shown.group_state, members=self.shown.members,
            mirrored=self.members - sum(self.shown.skipped.values()), in_audience=self.applied,
            added=self.added, removed=self.removed, skipped=self.shown.skipped,
            audience_state=self.shown.audience_state, audience_size=self.shown.audience_size,
            connected_at=self.connected_at, last_quick_at=self.quick_at, last_full_at=self.full_at,
            next_at=self.next_at, last=self.shown.last,
        )  # fmt: skip


class Store:
    """
    Connections, mirror and ledger on disk.

    Methods raise :class:`gateway.errors.Unavailable` when it cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._db: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        #: Grows with each :meth:`bar`: an answer to "who is barred" that is older says nothing of who is free again.
        self.bars = 0

    def open(self) -> None:
        """Take the lock and open the file; raises StoreError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._db = connect(self._path)
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(self._db, lambda: None, tick_s=3600)
        self._writer.start()

    def close(self) -> None:
        """Finish what is queued and close; harmless when it is not open."""
        if self._writer is not None and self._db is not None:
            self._writer.close()
            self._db.close()
            self._writer = self._db = None
        self._lock.release()

    async def do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job on the thread, in a transaction, and return its result after the commit."""
        db, writer = self._db, self._writer
        if db is None or writer is None:
            raise Unavailable("stopping", "The audiences' store is closed.")
        return await writer.run(lambda: (job(db), None))

    async def connections(self) -> list[Row]:
        """Return every connection, the oldest first."""
        return await self.do(lambda db: _rows(db, "SELECT * FROM connection ORDER BY id"))

    async def connection(self, number: int) -> Row:
        """Return one; raises AudienceError when there is none of that number."""
        rows = await self.do(lambda db: _rows(db, "SELECT * FROM connection WHERE id = ?", number))
        if not rows:
            raise AudienceError(f"There is no connection {number}: tag-gateway audiences status lists them.")
        return rows[0]

    async def insert(
        self, source: str, group: Group, sink: str, account: str, audience: Group | str, *, remove: bool, dry_run: bool
    ) -> Row:
        """
        Keep a new connection; ``audience`` is the name of one that is yet to be created.

        Raises:
            AudienceError: Another connection stands in the way; the message names it.
        """
        name, feed, found = (audience, None, None) if isinstance(audience, str) else _fed(audience)
        values = (source, group.kind, group.id, group.name, sink, account, feed, found, name, remove, self._clock())

        def job(db: sqlite3.Connection) -> Row:
            _refuse_second(db, source, group, sink, account, feed, name)
            (number,) = db.execute(
                'INSERT INTO connection (source, kind, "group", group_name, sink, account, feed, audience,'
                " audience_name, remove, connected_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                values,
            ).fetchone()
            (row,) = _rows(db, "SELECT * FROM connection WHERE id = ?", number)
            if dry_run:
                db.execute("DELETE FROM connection WHERE id = ?", (number,))
                return msgspec.structs.replace(row, id=0)
            return row

        return await self.do(job)

    async def update(self, number: int, **values: Any) -> None:
        """Set columns of a connection, by name."""
        await self.do(lambda db: set_columns(db, number, **values))

    async def bar(self, hashes: Sequence[str]) -> int:
        """Have people removed from every audience; returns how many there were."""
        self.bars += 1
        emails = [bytes.fromhex(value) for value in hashes]
        return await self.do(lambda db: ledger.bar(db, emails))

    async def left_out(self, number: int) -> dict[str, int]:
        """Return how many members of a connection are left out, by reason."""
        return await self.do(lambda db: mirror.left_out(db, number))

    async def due(self, number: int, operation: ledger.Operation) -> int:
        """Return how many people the sink must be told of."""
        return await self.do(lambda db: ledger.due(db, number, operation))


def set_columns(db: sqlite3.Connection, number: int, **values: Any) -> None:
    """Set columns of a connection, inside a job."""
    if "shown" in values:
        values["status"] = msgspec.json.encode(values.pop("shown")).decode()
    columns = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE connection SET {columns} WHERE id = ?", (*values.values(), number))


def _rows(db: sqlite3.Connection, statement: str, *values: Any) -> list[Row]:
    found = db.execute(statement, values)
    names = [column[0] for column in found.description]
    rows = []
    for values in found.fetchall():
        fields = dict(zip(names, values, strict=True))
        shown = msgspec.json.decode(fields.pop("status"), type=Shown)
        rows.append(Row(**{**fields, "remove": bool(fields["remove"]), "shown": shown}))
    return rows


def _fed(audience: Group) -> tuple[str, str, str]:
    return audience.name, audience.feed or audience.id, audience.id


def _refuse_second(
    db: sqlite3.Connection, source: str, group: Group, sink: str, account: str, feed: str | None, name: str
) -> None:
    """Say in words what the table's UNIQUE rules would refuse."""
    taken = _rows(
        db, 'SELECT * FROM connection WHERE source = ? AND kind = ? AND "group" = ?', source, group.kind, group.id
    )
    if taken:
        raise AudienceError(
            f"{_named(taken[0])} stands in the way: a {group.kind or 'list'} feeds one audience. {_remedy(taken[0])}"
        )
    where, value = ("feed = ?", feed) if feed is not None else ("audience_name = ? AND audience IS NULL", name)
    taken = _rows(db, f"SELECT * FROM connection WHERE sink = ? AND account = ? AND {where}", sink, account, value)
    if taken:
        raise AudienceError(
            f"{_named(taken[0])} stands in the way: an audience takes one list or segment, and audiences that share a "
            f"customer list count as one. {_remedy(taken[0])}"
        )


def _named(row: Row) -> str:
    return (
        f'Connection {row.id} ({row.source} {row.kind} "{row.group_name}" to {row.sink} audience "{row.audience_name}")'
    )


def _remedy(row: Row) -> str:
    return f"Choose another, or first run: tag-gateway audiences disconnect {row.id}"
