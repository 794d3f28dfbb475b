"""Reading a source into the mirror: all of it, or who joined since."""

import sqlite3
from collections.abc import Callable
from functools import partial

from gateway.audience import AudienceError, AudienceSource, Group, Member, Page
from gateway.audiences import mirror
from gateway.audiences.mirror import Entry
from gateway.audiences.records import Progress, Settings
from gateway.audiences.sides import Sides
from gateway.audiences.store import Row, Store, set_columns
from gateway.identifiers import Unusable, digest, email, sha256

#: Values of connection.scanning.
CLOSED, OPEN, READ, SWEEPING = 0, 1, 2, 3
#: Pages that come so close together are committed as one: an fsync and half-filled pages cost more than the rows.
_COMMIT_S = 2.0
_ASKABLE = frozenset({"suppressed", "unsubscribed"})


class Scan:
    """Reads one connection's source, page by page, committed with where to go on."""

    def __init__(
        self,
        store: Store,
        sides: Sides,
        settings: Settings,
        clock: Callable[[], float],
        source: AudienceSource,
        group: Group,
        connection: int,
        progress: Callable[[Progress], None],
    ) -> None:
        self._store = store
        self._sides = sides
        self._settings = settings
        self._clock = clock
        self._source = source
        self._group = group
        self._connection = connection
        self._progress = progress
        #: Members told in this pass.
        self.read = 0
        # read and not yet committed, with where to go on after them
        self._entries: list[Entry] = []
        self._columns: dict[str, object] = {}
        self._since_commit = clock()

    async def full(self) -> None:
        """Read every page, from where an earlier pass got to; afterwards ``scanning`` is READ."""
        row = await self._store.connection(self._connection)
        resumed = row.scanning == OPEN and row.cursor is not None
        if row.scanning != OPEN:
            row = await self._begin(row)
        cursor, told = row.cursor, row.seen
        while True:
            try:
                page = await self._page(cursor)
            except AudienceError as error:
                await self._commit(row.scan)
                # the cursor of an earlier run has expired: the scan starts anew
                if not (resumed and error.retry_after_s == 0):
                    raise
                row, cursor, told, resumed = await self._begin(row), None, 0, False
                continue
            resumed, cursor, told = False, page.cursor, told + len(page.members)
            await self._keep(page, row.scan, cursor=cursor, scanning=OPEN if cursor is not None else READ)
            self._progress(Progress(connection=self._connection, phase="scan", done=told, total=self._group.size))
            if cursor is None:
                return

    async def quick(self) -> None:
        """Read who joined since the last pass, less the overlap."""
        row = await self._store.connection(self._connection)
        began, since, cursor = self._clock(), row.since or 0.0, None
        asked = since - self._settings.overlap_s
        while True:
            try:
                page = await self._page(cursor, asked)
            except AudienceError:
                await self._commit(row.scan)
                raise
            cursor = page.cursor
            # by our own clock at last: people who joined together are not read again by every pass
            newest = began if cursor is None else min(page.newest or since, began)
            since = max(since, newest)
            await self._keep(page, row.scan, since=since)
            self._progress(Progress(connection=self._connection, phase="quick", done=self.read))
            if cursor is None:
                return

    async def sweep(self) -> int:
        """Take those out of the mirror whom the scan did not tell; returns how many."""
        row = await self._store.connection(self._connection)
        after: str | None = ""
        gone = 0
        while after is not None:
            after, some = await self._store.do(partial(mirror.sweep, number=row.id, scan=row.scan, after=after))
            gone += some
        return gone

    async def _begin(self, row: Row) -> Row:
        await self._store.update(
            row.id, scan=row.scan + 1, scanning=OPEN, cursor=None, seen=0, scan_began=self._clock(), hold=""
        )
        return await self._store.connection(row.id)

    async def _page(self, cursor: str | None, since: float | None = None) -> Page:
        return await self._sides.call(lambda: self._source.page(self._group, cursor, since=since))

    async def _keep(self, page: Page, scan: int, **columns: object) -> None:
        """Take in a page; it is committed with the columns at once, or with those that follow within two seconds."""
        include = self._settings.include_suppressed
        self._entries += [keepable(member, include_suppressed=include) for member in page.members]
        self._columns = columns
        self.read += len(page.members)
        late = self._clock() >= self._since_commit + _COMMIT_S
        if page.cursor is None or late or len(self._entries) >= self._settings.commit_every:
            await self._commit(scan)

    async def _commit(self, scan: int) -> None:
        """Write what was read; people who said no to the gateway are left out."""
        entries, columns, bars = self._entries, self._columns, self._store.bars
        self._entries, self._columns, self._since_commit = [], {}, self._clock()
        if not columns:
            return
        hashes = [entry.email.hex() for entry in entries if entry.email is not None]
        barred = {bytes.fromhex(value) for value in await self._sides.barred(hashes)} if hashes else set()
        if barred:
            entries = [
                Entry(profile=entry.profile, reason="opted_out") if entry.email in barred else entry
                for entry in entries
            ]

        def job(db: sqlite3.Connection) -> None:
            fresh = mirror.take(db, self._connection, scan, entries, unbar=self._store.bars == bars)
            if "scanning" in columns:
                db.execute("UPDATE connection SET seen = seen + ? WHERE id = ?", (fresh, self._connection))
            set_columns(db, self._connection, **columns)

        await self._store.do(job)


def keepable(member: Member, *, include_suppressed: bool) -> Entry:
    """Return what is kept of a member: the hash of the normalised e-mail, or why the member is left out."""
    # a source may have nothing but the address to tell people apart
    profile = sha256(member.id) if "@" in member.id else member.id
    reason: str | None = member.left_out
    if include_suppressed and reason in _ASKABLE:
        reason = None
    if reason is None and not member.email.strip():
        reason = "no_email"
    if reason is not None:
        return Entry(profile=profile, reason=reason)
    try:
        return Entry(profile=profile, email=bytes.fromhex(digest(email, member.email)))
    except Unusable:
        return Entry(profile=profile, reason="invalid_email")
