"""
Guards against a stranger's adapter: a bounded thread pool, a deadline, and a switch.

Our adapters run inline. A stranger's that raises or hangs costs its own hit only (503 ``plugin_failed``); one that
hangs five times in a row is switched off, loudly. This guards against mistakes, not against malice: a thread cannot be
killed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import PluginFailed, Rejected, Unavailable
from gateway.interfaces import Batch, Delivered, Destination, Paused, Refused, Retry, Unclear, Verdict

T = TypeVar("T")
_log = logging.getLogger("gateway.plugins")

DEADLINE_S = 1.0
#: So many hung calls in a row switch a plugin off.
HUNG_LIMIT = 5
_THREADS = 8


class Guard:
    """Runs plugin calls; ``failed`` hears the plugin's name of each failure, for metrics."""

    def __init__(self, failed: Callable[[str], None], deadline_s: float = DEADLINE_S) -> None:
        self._failed = failed
        self._deadline_s = deadline_s
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="plugin")
        self._hung: dict[str, int] = {}
        self._running = 0
        #: Plugins that were switched off, for status pages.
        self.switched_off: set[str] = set()

    def inline(self, name: str, call: Callable[[], T]) -> T:
        """
        Call our own code.

        Raises:
            Rejected: What the plugin says of the hit.
            Unavailable: It raised anything else.
        """
        try:
            return call()
        except (Rejected, Unavailable):
            raise
        except Exception as error:
            raise self.failure(name, error) from error

    async def threaded(self, name: str, call: Callable[[], T]) -> T:
        """
        Call a stranger's code with a deadline.

        Raises:
            Rejected: What the plugin says of the hit.
            Unavailable: It raised anything else, did not return in time, or is switched off.
        """
        self._check_switch(name)
        if self._running >= _THREADS:
            raise Unavailable("plugin_failed", "All threads for plugins are taken by calls that do not return.")
        self._running += 1
        future = self._pool.submit(_attempt, call)
        loop = asyncio.get_running_loop()
        # the counter belongs to the loop's thread; the loop may be gone when a hung call returns at last
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._returned))
        try:
            result = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self._deadline_s)
        except TimeoutError as error:
            self._count_hung(name)
            raise self.failure(name, error) from error
        self._hung.pop(name, None)
        if not isinstance(result, _Raised):
            return result
        if isinstance(result.error, Rejected | Unavailable):
            raise result.error
        raise self.failure(name, result.error) from result.error

    async def sent(self, destination: Destination, batch: Batch, limit_s: float) -> Verdict:
        """
        Have a destination send a batch that is nobody's delivery: a test.

        Raises:
            Unavailable: It raised, took longer than ``limit_s``, or returned rubbish.
        """
        try:
            async with asyncio.timeout(limit_s):
                verdict = await destination.send(batch)
            if not is_verdict(verdict, len(batch.events)):
                raise TypeError("something else than a verdict on its batch")
        except FAILURES as error:
            raise self.failure(destination.name, error) from error
        return verdict

    async def asked(self, name: str, call: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """
        Ask a plugin something that no hit depends on.

        Raises:
            Unavailable: It raised, or took longer than ``limit_s``.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await call()
        except FAILURES as error:
            raise self.failure(name, error) from error

    async def awaited(self, name: str, call: Awaitable[T]) -> T:
        """
        Await a stranger's coroutine with the same deadline; one that never gives the loop back cannot be stopped.

        Raises:
            Unavailable: It did not return in time, or is switched off. What it raises itself passes.
        """
        try:
            self._check_switch(name)
        except Unavailable:
            if asyncio.iscoroutine(call):
                call.close()
            raise
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                result = await call
        except TimeoutError as error:
            if not deadline.expired():  # its own
                raise
            self._count_hung(name)
            raise self.failure(name, error) from error
        self._hung.pop(name, None)
        return result

    def _check_switch(self, name: str) -> None:
        if name in self.switched_off:
            raise Unavailable(
                "plugin_failed", f"The plugin '{name}' is switched off: it hung {HUNG_LIMIT} times in a row."
            )

    def _returned(self) -> None:
        self._running -= 1

    def _count_hung(self, name: str) -> None:
        self._hung[name] = self._hung.get(name, 0) + 1
        if self._hung[name] >= HUNG_LIMIT:
            self.switched_off.add(name)
            _log.error("plugin_switched_off", extra={"plugin": name, "hung_in_a_row": HUNG_LIMIT})

    def failure(self, name: str, error: BaseException) -> PluginFailed:
        """Count and log a failure by name, kind and place, never by text: it may hold values of the payload."""
        failure = PluginFailed(name, type(error).__name__, _where(error))
        self._failed(name)
        _log.error("plugin_failed", extra={"plugin": name, "error": failure.error, "where": failure.where})
        return failure

    def close(self) -> None:
        """Let the threads go; one that hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


#: What a plugin may raise and that is its own affair: an exit of the process is not a plugin's to decide.
FAILURES = (Exception, SystemExit, KeyboardInterrupt)


class _Raised:
    """What a call raised, carried as a value: SystemExit would end the gateway, StopIteration break its future."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _attempt(call: Callable[[], T]) -> T | _Raised:
    try:
        return call()
    except BaseException as error:  # whatever a stranger raises is its own affair
        return _Raised(error)


def is_verdict(verdict: object, count: int) -> bool:
    """Whether this is what :meth:`gateway.interfaces.Destination.send` may return for so many events."""
    if isinstance(verdict, Sequence):
        return len(verdict) == count and all(isinstance(one, Delivered | Refused | Retry) for one in verdict)
    return isinstance(verdict, Retry | Paused | Unclear)


def _where(error: BaseException) -> str:
    """Return file and line of the error's origin."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    name = trace.tb_frame.f_code.co_filename.rsplit("/", 2)
    return f"{'/'.join(name[-2:])}:{trace.tb_lineno}"
