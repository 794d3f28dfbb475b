"""The end of a connection: its people removed where that is asked for, then everything about it forgotten."""

from collections.abc import Callable

from gateway.audiences import ledger, mirror
from gateway.audiences.delivery import Delivery
from gateway.audiences.records import Phase
from gateway.audiences.sides import Sides
from gateway.audiences.store import Store

FORGET, REMOVE = 1, 2


class Leaving:
    """Disconnects; a kill on the way costs nothing, the next call goes on."""

    def __init__(self, store: Store, sides: Sides) -> None:
        self._store = store
        self._sides = sides

    async def leave(
        self, number: int, *, keep: bool, progress: Callable[[Phase, int, int | None], None] = lambda *_: None
    ) -> None:
        """Take one connection down; raises AudienceError when the sink does not remove its people."""
        row = await self._store.connection(number)
        if not keep:
            sink = self._sides.sink(row.sink)
            await self._store.update(number, leaving=REMOVE)
            total = await self._store.do(lambda db: ledger.kept(db, number))
            await Delivery(self._store, self._sides, sink, row, progress).remove_all(total)
        await self._store.update(number, leaving=FORGET)
        while not await self._store.do(lambda db: mirror.forget(db, number)):
            progress("forget", 0, None)
