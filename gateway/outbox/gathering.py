"""
Gathering: requests that arrive together share a commit.

While a commit is under way the next one fills up; else the first request waits ``linger_s`` for company, longer while
there is much of it. The writer's thread wakes the loop once for all requests of a commit.

Nothing piles up behind a disk that does not answer: while a commit takes longer than :data:`STALLED_S`, further
requests are refused at once, and one that is no longer waited for is taken back if the writer has not begun with it. If
it has, the commit goes on, and nobody knows how it ends: a sender that was answered 503 must repeat its hit. The keys
of its events make the repeat a duplicate; an event without any (no id, no order, no time of its own) may then be there
twice, because nothing tells it from another one like it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence

from gateway.outbox import Admission, Join, Memorandum, Unit
from gateway.overload import Overloaded

Request = tuple[Sequence[Unit], Join | None, Sequence[Memorandum]]
Admitted = list[list[Admission]]
#: Called on any thread with the admissions of every request in order, or with what went wrong.
Done = Callable[[Admitted | None, BaseException | None], None]

#: A batch is handed over early when so many units wait for it.
_FULL = 200
#: The fuller the last commit was, the longer the next one lingers, up to so many times: a commit costs more than a hit,
#: and who is one of many hardly notices.
_LONGEST = 4
#: So many units may wait for a commit before hits are refused with 503.
_BACKLOG = 20_000
#: While a commit takes longer than so many seconds, hits are refused with 503.
STALLED_S = 2.0
_NOTHING: Request = ((), None, ())


class Batch:
    """The requests of one commit, and who waits for what became of each."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.waiters: list[asyncio.Future[list[Admission]]] = []
        self._has_begun = False
        self._beginning = threading.Lock()

    def begin(self) -> list[Request]:
        """Return the requests that are still wanted; called on the writer's thread, inside the transaction."""
        with self._beginning:
            self._has_begun = True
        return self.requests

    def take_back(self, index: int) -> int:
        """Take a request back; returns how many units that were, 0 when it is too late."""
        with self._beginning:
            if self._has_begun:
                return 0
            count = len(self.requests[index][0])
            self.requests[index] = _NOTHING
            return count


class Gathering:
    """
    Collects requests and hands them over, one batch at a time.

    Args:
        hand_over: Takes the ``begin`` of a batch, to be called once when its transaction begins, and ``done``, to be
            called once at the end.
        linger_s: How long a first request waits for company.
        committed: Called on the loop after each commit.
    """

    def __init__(
        self,
        hand_over: Callable[[Callable[[], list[Request]], Done], None],
        linger_s: float,
        committed: Callable[[], None],
    ) -> None:
        self._hand_over = hand_over
        self._linger_s = linger_s
        self._on_commit = committed
        self._batch = Batch()
        self._waiting = 0
        self._under_way = 0
        self._is_busy = False
        self._since = 0.0
        self._last_batch = 0
        self._timer: asyncio.TimerHandle | None = None

    async def add(
        self, units: Sequence[Unit], join: Join | None, memories: Sequence[Memorandum] = ()
    ) -> list[Admission]:
        """
        Add a request to the next batch; returns after its commit.

        When it is cancelled, the request is taken back if that is still possible; the others are not touched.

        Raises:
            Overloaded: Too many units wait already, or the disk does not answer.
            Unavailable: The commit failed.
        """
        loop = asyncio.get_running_loop()
        if self._waiting + self._under_way > _BACKLOG or (self._is_busy and loop.time() - self._since > STALLED_S):
            raise Overloaded("commit", "The disk does not keep up with the hits.")
        batch = self._batch
        index = len(batch.requests)
        waiter: asyncio.Future[list[Admission]] = loop.create_future()
        batch.requests.append((units, join, memories))
        batch.waiters.append(waiter)
        self._waiting += len(units)
        if not self._is_busy:
            if self._waiting >= _FULL:
                self._flush(loop)
            elif self._timer is None:
                linger_s = self._linger_s * min(max(self._last_batch, 1), _LONGEST)
                self._timer = loop.call_later(linger_s, self._flush, loop)
        try:
            return await waiter
        except asyncio.CancelledError:
            count = batch.take_back(index)
            if batch is self._batch:
                self._waiting -= count
            else:
                self._under_way -= count
            raise

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._batch
        if self._is_busy or not batch.requests:
            return
        self._batch = Batch()
        self._under_way, self._waiting = self._waiting, 0
        self._is_busy, self._since = True, loop.time()
        self._last_batch = len(batch.requests)

        def done(result: Admitted | None, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(self._committed, loop, batch, result, error)

        self._hand_over(batch.begin, done)

    def _committed(
        self, loop: asyncio.AbstractEventLoop, batch: Batch, result: Admitted | None, error: BaseException | None
    ) -> None:
        self._is_busy = False
        self._under_way = 0
        if result is not None:
            for waiter, admissions in zip(batch.waiters, result, strict=True):
                if not waiter.done():
                    waiter.set_result(admissions)
        else:
            error = error or RuntimeError("a commit without a result")
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
        self._flush(loop)
        self._on_commit()

    async def drain(self) -> None:
        """Commit what waits, and return when nothing is under way."""
        while self._batch.requests or self._is_busy:
            self._flush(asyncio.get_running_loop())
            await asyncio.sleep(0.001)
