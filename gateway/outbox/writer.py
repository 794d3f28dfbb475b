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

T = TypeVar("T")
#: A job returns its result and what it means for memory, to be applied after the commit.
Job = Callable[[], tuple[T, Callable[[], None] | None]]


class Writer:
    """
    Runs jobs on its thread, each in a transaction of its own.

    ``idle`` is called about every ``tick_s`` seconds between jobs, on the thread, for upkeep.
    """

    def __init__(self, connection: sqlite3.Connection, idle: Callable[[], None], tick_s: float = 0.25) -> None:
        self._connection = connection
        self._idle = idle
        self._tick_s = tick_s
        self._jobs: queue.SimpleQueue[tuple[Job[Any], Callable[[Any, BaseException | None], None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hand_over(self, job: Job[T], done: Callable[[Any, BaseException | None], None]) -> None:
        """Queue a job; ``done(result, error)`` is called on the writer's thread."""
        if self._closed:
            done(None, Unavailable("stopping", "The gateway is stopping."))
            return
        self._jobs.put((job, done))

    async def run(self, job: Job[T]) -> T:
        """
        Run one job and return its result after its commit.

        Raises:
            Unavailable: The store could not be written; nothing of the job happened.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            # the loop is gone only when the process is on its way out
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, future, result, error)

        self.hand_over(job, done)
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
                self._idle()
                continue
            if item is None:
                return
            job, done = item
            try:
                result = self._commit(job)
            except BaseException as error:  # noqa: BLE001 - reported to the caller; the thread must live
                done(None, as_unavailable(error))
            else:
                done(result, None)
            if self._jobs.empty():
                self._idle()

    def _commit(self, job: Job[T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result, after = job()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        if after is not None:
            after()
        return result


def as_unavailable(error: BaseException) -> BaseException:
    """Turn what SQLite says into what a sender of hits must hear; other errors are bugs and stay what they are."""
    if isinstance(error, sqlite3.Error):
        full = "full" in str(error)
        reason = "store_full" if full else "store_failed"
        return Unavailable(reason, f"The store cannot be written ({error}).", retry_after_s=30 if full else 5)
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
