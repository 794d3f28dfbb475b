"""The schedule inside ``serve``: passes when they are due."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.audience import AudienceError
from gateway.audiences.leaving import FORGET, Leaving
from gateway.audiences.records import Settings
from gateway.audiences.store import Row, Store
from gateway.audiences.sync import Order, Sync
from gateway.errors import Unavailable

log = logging.getLogger(__name__)
#: So often the connections are looked at for what is due.
TICK_S = 5.0


class Schedule:
    """Starts a pass of each connection when its time has come, at most ``parallel`` at once."""

    def __init__(
        self,
        store: Store,
        sync: Sync,
        leaving: Leaving,
        settings: Settings,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store = store
        self._sync = sync
        self._leaving = leaving
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until ``stop``; then passes under way are cancelled and awaited."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                await self._start_due()
                tick = asyncio.ensure_future(self._sleep(min(TICK_S, self._settings.quick_every_s)))
                await asyncio.wait({stopped, tick}, return_when=asyncio.FIRST_COMPLETED)
                tick.cancel()
                await asyncio.gather(tick, return_exceptions=True)
        finally:
            stopped.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(stopped, *self._tasks.values(), return_exceptions=True)

    async def _start_due(self) -> None:
        self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}
        try:
            rows = await self._store.connections()
        except Unavailable:
            log.exception("audiences cannot be read")
            return
        now = self._clock()
        for row in sorted(rows, key=lambda row: row.next_at or 0.0):
            if len(self._tasks) >= self._settings.parallel:
                return
            if row.id not in self._sync.running and row.id not in self._tasks and now >= (row.next_at or 0.0):
                self._tasks[row.id] = asyncio.create_task(self._one(row))

    async def _one(self, row: Row) -> None:
        try:
            if row.leaving:
                async with self._sync.alone(row.id):
                    await self._leaving.leave(row.id, keep=row.leaving == FORGET)
            else:
                await self._sync.run(row.id, Order())
        except (AudienceError, Unavailable) as error:
            log.warning("audience pass failed", extra={"connection": row.id, "message_text": str(error)})
            if isinstance(error, AudienceError) and row.leaving:
                later = self._clock() + max(error.retry_after_s or 0.0, self._settings.quick_every_s)
                await self._store.update(row.id, next_at=later, message=str(error))
