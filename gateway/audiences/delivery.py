"""Telling the sink: chunk by chunk, each marked before and recorded after, so that a kill between costs nothing."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.audience import AudienceError, AudienceSink
from gateway.audiences import ledger
from gateway.audiences.ledger import Operation, Told
from gateway.audiences.records import Phase
from gateway.audiences.sides import Sides
from gateway.audiences.store import Row, Store, set_columns

T = TypeVar("T")


class Delivery:
    """Brings one audience to what the mirror wants."""

    def __init__(
        self,
        store: Store,
        sides: Sides,
        sink: AudienceSink,
        row: Row,
        progress: Callable[[Phase, int, int | None], None],
    ) -> None:
        self._store = store
        self._sides = sides
        self._sink = sink
        self._progress = progress
        self._connection = row.id
        self._account = row.account
        self._name = row.audience_name
        self.feed = row.feed
        self.audience = row.audience
        #: Records in this pass.
        self.added = self.removed = self.failed = 0

    async def add(self, total: int) -> None:
        """Add everybody who is due; the first chunk creates the feed where there is none."""
        while rows := await self._marked("add"):
            rows = await self._without_barred(rows)
            if not rows:
                continue
            hashes = [email.hex() for email, _ in rows]
            if self.feed is None:
                feed = await self._tell(rows, lambda: self._sink.create_feed(self._account, self._name, hashes))  # noqa: B023
                self.feed = feed
            else:
                await self._apply("add", rows)
            await self._record("add", rows)
            self.added += len(rows)
            self._progress("add", self.added, total)

    async def remove(self, total: int) -> None:
        """Remove everybody who is due."""
        while self.feed is not None and (rows := await self._marked("remove")):
            await self._apply("remove", rows)
            await self._record("remove", rows)
            self.removed += len(rows)
            self._progress("remove", self.removed, total)

    async def remove_all(self, total: int) -> None:
        """Remove everybody whom this connection added, wanted or not."""
        while self.feed is not None:
            rows = await self._store.do(lambda db: ledger.mark_kept(db, self._connection, self._sink.max_records))
            if not rows:
                return
            await self._apply("remove", rows)
            await self._record("remove", rows)
            self.removed += len(rows)
            self._progress("remove", self.removed, total)

    async def create_audience(self) -> None:
        """
        Create the audience of a feed, unless an earlier pass did and was ended before it could note it.

        Raises:
            AudienceError: With ``retry_after_s`` while the vendor has not read the feed.
        """
        feed = self.feed
        if feed is None or self.audience is not None:
            return
        named = await self._sides.call(lambda: self._sink.groups(self._account, self._name))
        audience = next((each for each in named if each.feed == feed), None)
        if audience is None:
            audience = await self._sides.call(
                lambda: self._sink.create_audience(self._account, self._name, feed), tries=1
            )
        await self._store.update(self._connection, audience=audience.id, audience_name=audience.name)
        self.audience = audience.id

    async def _marked(self, operation: Operation) -> list[Told]:
        limit = self._sink.max_records
        return await self._store.do(lambda db: ledger.mark(db, self._connection, operation, limit))

    async def _without_barred(self, rows: list[Told]) -> list[Told]:
        """Leave those out who opted out since the mirror took them in."""
        barred = await self._sides.barred([email.hex() for email, _ in rows])
        if not barred:
            return rows
        out = [row for row in rows if row[0].hex() in barred]
        await self._store.bar(sorted(barred))
        await self._store.do(lambda db: ledger.restore(db, self._connection, out))
        return [row for row in rows if row[0].hex() not in barred]

    async def _apply(self, operation: Operation, rows: Sequence[Told]) -> None:
        feed = self.feed or ""
        hashes = [email.hex() for email, _ in rows]
        await self._tell(rows, lambda: self._sink.apply(self._account, feed, operation, hashes))

    async def _tell(self, rows: Sequence[Told], make: Callable[[], Awaitable[T]]) -> T:
        """Call the sink; when it certainly did nothing, the marks are taken back."""
        unsure = False

        async def attempt() -> T:
            nonlocal unsure
            try:
                return await make()
            except AudienceError as error:
                unsure = unsure or error.ambiguous
                raise

        try:
            return await self._sides.call(attempt)
        except AudienceError:
            self.failed += len(rows)
            if not unsure:
                await self._store.do(lambda db: ledger.restore(db, self._connection, rows))
            raise

    async def _record(self, operation: Operation, rows: Sequence[Told]) -> None:
        feed = self.feed

        def job(db: sqlite3.Connection) -> None:
            set_columns(db, self._connection, feed=feed)
            ledger.record(db, self._connection, operation, rows)

        await self._store.do(job)
