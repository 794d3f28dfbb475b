"""Deadlines of requests: one timer for all of them."""

import asyncio
from typing import Any


class Deadline:
    """
    Cancels tasks that take too long: one timer for all, because one for each costs as much as reading a body.

    A task is cut off up to ``every_s`` late.
    """

    def __init__(self, seconds: float, every_s: float = 1.0) -> None:
        self.seconds = seconds
        self._every_s = every_s
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> asyncio.Task[Any]:
        """Watch the current task, and return it for :meth:`stop`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is for a task")
        self._waiting[task] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self._every_s, self._sweep, loop)
        return task

    def stop(self, task: asyncio.Task[Any], *, cancelled: bool = False) -> bool:
        """Watch it no longer; returns whether this is what cancelled it, which is then taken back."""
        self._waiting.pop(task, None)
        if task not in self._late:
            return False
        self._late.discard(task)
        return cancelled and task.uncancel() == 0

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, deadline in self._waiting.items() if deadline <= now]:
            del self._waiting[task]
            self._late.add(task)
            task.cancel()
        self._timer = loop.call_later(self._every_s, self._sweep, loop) if self._waiting else None
