"""
The writer: one thread, one connection, one commit for many requests.

The event loop gathers what arrives while a commit is under way (at low load for ``linger_s``) and hands it over as one
piece, so that the cost of a durable commit is shared and the loop is woken once for each commit.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.errors import StoreError, Unavailable
from gateway.outbox.failures import Failure, failure_of, words_of

T = TypeVar("T")
#: How long a job waits for another process that holds the file, and how long once one has waited in vain: what piles up
#: behind it is told at once, and the first that works again ends that.
BUSY_MS = 2_000
_STILL_BUSY_MS = 50
#: A job returns its result and what it means for memory, to be applied after the commit.
Job = Callable[[], tuple[T, Callable[[], None] | None]]
Done = Callable[[Any, BaseException | None], None]


class Writer:
    """
    Runs jobs on its thread, each in a transaction of its own.

    Args:
        idle: Called about every ``tick_s`` seconds between jobs, on the thread, for upkeep.
        relief: Makes room on a full disk; returns whether it did. A job of :meth:`run` is then tried once more.
        failed: Told once when the file is damaged or a write or sync of it failed. From then on no job is run: what
            the system did not write it may believe written.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        idle: Callable[[], None],
        tick_s: float = 0.25,
        relief: Callable[[], bool] = lambda: False,
        failed: Callable[[BaseException, Failure], None] | None = None,
    ) -> None:
        self._connection = connection
        self._idle = idle
        self._tick_s = tick_s
        self._relief = relief
        self._on_failure = failed
        self._failure: BaseException | None = None
        self._is_busy = False
        self._jobs: queue.SimpleQueue[tuple[Job[Any], Done, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the file cannot be used any more."""
        return self._failure is not None

    def hand_over(self, job: Job[T], done: Done, *, is_vital: bool = False) -> None:
        """
        Queue a job; ``done(result, error)`` is called on the writer's thread. ``is_vital``: worth the ballast.
        """
        if self._closed:
            done(None, Unavailable("stopping", "The gateway is stopping."))
            return
        self._jobs.put((job, done, is_vital))

    async def run(self, job: Job[T], *, is_vital: bool = True) -> T:
        """
        Run one job and return its result after its commit. ``is_vital``: it may take the ballast of a full disk.

        Raises:
            Unavailable: The store could not be written; nothing of the job happened.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            # the loop is gone only when the process is on its way out
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, future, result, error)

        self.hand_over(job, done, is_vital=is_vital)
        # the commit goes on when the caller is cancelled: its outcome is only no longer waited for
        return await asyncio.shield(future)

    def close(self) -> None:
        """Finish the queued jobs, then end the thread."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                item = self._jobs.get(timeout=self._tick_s)
            except queue.Empty:
                self._rest()
                continue
            if item is None:
                return
            job, done, is_vital = item
            try:
                result = self._attempt(job, is_vital=is_vital)
            except BaseException as error:  # noqa: BLE001 - reported to the caller; the thread must live
                done(None, as_unavailable(error))
            else:
                done(result, None)
            if self._jobs.empty():
                self._rest()

    def _rest(self) -> None:
        if self._failure is not None:
            return
        try:
            self._idle()
        except Exception as error:
            if not self._note(error):
                raise

    def _attempt(self, job: Job[T], *, is_vital: bool) -> T:
        if self._failure is not None:
            raise Unavailable("store_failed", f"The store cannot be used any more ({words_of(self._failure)}).")
        try:
            try:
                result = self._commit(job)
            except sqlite3.Error as error:
                if not (is_vital and failure_of(error) == "full" and self._relief()):
                    raise
                result = self._commit(job)
        except BaseException as error:
            self._note(error)
            raise
        self._wait_for_others(BUSY_MS, was_busy=False)
        return result

    def _note(self, error: BaseException) -> bool:
        """Remember what an error means for later jobs; returns whether the file cannot be used any more."""
        failure = failure_of(error)
        if failure == "busy":
            self._wait_for_others(_STILL_BUSY_MS, was_busy=True)
        if failure not in ("damaged", "broken") or self._on_failure is None:
            return False
        if self._failure is None:
            self._failure = error
            self._on_failure(error, failure)
        return True

    def _wait_for_others(self, limit_ms: int, *, was_busy: bool) -> None:
        if self._is_busy != was_busy:
            self._is_busy = was_busy
            self._connection.execute(f"PRAGMA busy_timeout = {limit_ms}")

    def _commit(self, job: Job[T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result, after = job()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                # it fails where the file does; what went wrong first says more
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise
        if after is not None:
            after()
        return result


def as_unavailable(error: BaseException) -> BaseException:
    """Turn what SQLite says into what a sender of hits must hear; other errors are bugs and stay what they are."""
    if isinstance(error, sqlite3.Error):
        full = failure_of(error) == "full"
        reason = "store_full" if full else "store_failed"
        return Unavailable(reason, f"The store cannot be written ({words_of(error)}).", retry_after_s=30 if full else 5)
    if isinstance(error, StoreError):
        return Unavailable("store_failed", str(error))
    return error


def _finish(future: "asyncio.Future[T]", result: T, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
