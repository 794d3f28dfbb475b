"""
Gathering: requests that arrive together share a commit.

While a commit is under way the next one fills up; else the first request waits ``linger_s`` for company, longer while
there is much of it. One future stands for a whole commit, so that the loop is woken once for all requests in it.
"""

import asyncio
from collections.abc import Callable, Sequence

from gateway.errors import Unavailable
from gateway.outbox import Admission, Join, Memorandum, Unit

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


class Commit(asyncio.Future[Admitted]):
    """
    The result of one group commit, awaited by every request in it.

    A request that is cancelled must not cancel the others': it leaves when the commit is done, milliseconds later.
    """

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - the signature of a future
        """Refuse."""
        return False


class Gathering:
    """
    Collects requests and hands them over, one batch at a time.

    Args:
        hand_over: Takes a batch; must call ``done`` once.
        linger_s: How long a first request waits for company.
        committed: Called on the loop after each commit.
    """

    def __init__(
        self, hand_over: Callable[[list[Request], Done], None], linger_s: float, committed: Callable[[], None]
    ) -> None:
        self._hand_over = hand_over
        self._linger_s = linger_s
        self._on_commit = committed
        self._requests: list[Request] = []
        self._waiting = 0
        self._under_way = 0
        self._commit: Commit | None = None
        self._busy = False
        self._last_batch = 0
        self._timer: asyncio.TimerHandle | None = None

    async def add(
        self, units: Sequence[Unit], join: Join | None, memories: Sequence[Memorandum] = ()
    ) -> list[Admission]:
        """
        Add a request to the next batch; returns after its commit.

        Raises:
            Unavailable: Too many units wait already, or the commit failed.
        """
        if self._waiting + self._under_way > _BACKLOG:
            raise Unavailable("busy", "More hits are waiting than the store can take.", retry_after_s=2)
        loop = asyncio.get_running_loop()
        commit = self._commit
        if commit is None:
            commit = self._commit = Commit(loop=loop)
        index = len(self._requests)
        self._requests.append((units, join, memories))
        self._waiting += len(units)
        if not self._busy:
            if self._waiting >= _FULL:
                self._flush(loop)
            elif self._timer is None:
                linger_s = self._linger_s * min(max(self._last_batch, 1), _LONGEST)
                self._timer = loop.call_later(linger_s, self._flush, loop)
        return (await commit)[index]

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        commit = self._commit
        if self._busy or commit is None:
            return
        requests, self._requests = self._requests, []
        self._under_way, self._waiting = self._waiting, 0
        self._commit, self._busy = None, True
        self._last_batch = len(requests)

        def done(result: Admitted | None, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(self._committed, loop, commit, result, error)

        self._hand_over(requests, done)

    def _committed(
        self, loop: asyncio.AbstractEventLoop, commit: Commit, result: Admitted | None, error: BaseException | None
    ) -> None:
        self._busy = False
        self._under_way = 0
        if result is not None:
            commit.set_result(result)
        else:
            commit.set_exception(error or RuntimeError("a commit without a result"))
        self._flush(loop)
        self._on_commit()

    async def drain(self) -> None:
        """Commit what waits, and return when nothing is under way."""
        while self._commit is not None or self._busy:
            self._flush(asyncio.get_running_loop())
            await asyncio.sleep(0.001)
