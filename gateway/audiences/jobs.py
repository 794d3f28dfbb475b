"""
Work that takes longer than a call: it goes on in the gateway, and whoever asked comes back to look.

A job that nobody looks at ends by itself; the last ones are kept so that their end can be read.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from gateway.errors import GatewayError
from gateway.event import Struct

_log = logging.getLogger("gateway.audiences")
_KEPT = 100
#: The longest time that one look waits for the end.
MAX_WAIT_S = 10.0

Tell = Callable[[Any], None]
Work = Callable[[Tell], Awaitable[Any]]


class JobState(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    How far a job is.

    ``progress`` is what the work told last; ``result`` what it returned, once ``state`` is ``done``; ``error`` why it
    ``failed``, in words for the operator.
    """

    id: str
    state: Literal["running", "done", "failed"]
    progress: Any = None
    result: Any = None
    error: str = ""


class Jobs:
    """The jobs of one gateway."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._progress: dict[str, Any] = {}

    def start(self, work: Work) -> str:
        """Begin; returns the job's id."""
        job = secrets.token_hex(8)
        self._progress[job] = None

        def tell(progress: Any) -> None:
            self._progress[job] = progress

        async def run() -> Any:
            return await work(tell)

        task = asyncio.create_task(run())
        task.add_done_callback(_log_failure)
        self._tasks[job] = task
        for old in list(self._tasks)[:-_KEPT]:
            if self._tasks[old].done():
                del self._tasks[old], self._progress[old]
        return job

    async def look(self, job: str, wait_s: float = 0.0) -> JobState:
        """
        Return how far it is, after ``wait_s`` at most when it has not ended.

        Raises:
            ValueError: There is no such job (any more).
        """
        task = self._tasks.get(job)
        if task is None:
            raise ValueError("There is no such job: the gateway was restarted, or it ended long ago.")
        if not task.done():
            await asyncio.wait([task], timeout=min(max(wait_s, 0.0), MAX_WAIT_S))
        if not task.done():
            return JobState(id=job, state="running", progress=self._progress[job])
        if task.cancelled():
            return JobState(id=job, state="failed", error="It was interrupted; the same command goes on from there.")
        error = task.exception()
        if error is None:
            return JobState(id=job, state="done", progress=self._progress[job], result=task.result())
        told = str(error) if isinstance(error, GatewayError) else "An error in the program: the gateway's log has it."
        return JobState(id=job, state="failed", error=told)

    async def stop(self) -> None:
        """Interrupt what is under way."""
        running = [task for task in self._tasks.values() if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _log_failure(task: "asyncio.Task[Any]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, GatewayError):
        _log.error("job_failed", exc_info=error)
