"""
The open connections of one listener: how many there may be, and which have had their time.

One timer goes over all of them, because one for each costs more than most requests. Work that is under way is never
cancelled here: a connection is cut, and what was being committed is committed.
"""

import asyncio
import contextlib
import logging
import resource
from collections import Counter
from typing import Literal, Protocol

from gateway.event import Struct

_log = logging.getLogger("gateway.connections")
#: Files of our own: store, log, calls to vendors.
_OWN_FILES = 256
_TOLD_EVERY_S = 10.0

#: Waiting for a whole head; serving a request; between two requests.
Phase = Literal["head", "busy", "idle"]


class Limits(Struct, frozen=True, kw_only=True):
    """
    What a listener bears; seconds.

    Args:
        connections: Open at a time; one more is answered 503.
        head_s: From the first byte of a request (of a new connection: from its start) to the end of its headers.
        idle_s: Between two requests: longer than proxies keep connections, or they reuse one that is being closed.
        body_s: Without a byte of a body that was promised. (The whole body has its own deadline in the ingress.)
        unread_s: An answer that is not taken.
        linger_s: For a client that was answered before it had sent its body to stop sending and read: one that is
            closed upon while it sends may never see the answer, and a proxy that passes bodies on would say 502.
        refusals: Connections over the limit that are told so; beyond these they are cut without a word.
    """

    connections: int = 2_000
    head_s: float = 10.0
    idle_s: float = 75.0
    body_s: float = 30.0
    unread_s: float = 30.0
    linger_s: float = 2.0
    refusals: int = 64


class Transport(Protocol):
    """The part of a transport that is used here."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not taken."""

    def close(self) -> None:
        """End once they are taken."""

    def abort(self) -> None:
        """End now."""


class Line(Protocol):
    """What an engine keeps up to date of its connection; times are the loop's."""

    phase: Phase
    #: When the phase began, the last byte came, and an answer began to wait (None: none waits).
    since: float
    heard: float
    unread_since: float | None

    def wire(self) -> Transport:
        """Return the transport."""

    def awaits_body(self) -> bool:
        """Whether it waits for more of a body."""


class Connections:
    """
    The open connections of a listener.

    Args:
        limits: What it bears.
        name: For the log; empty: it says nothing.
    """

    def __init__(self, limits: Limits, name: str) -> None:
        self.limits = limits
        self.name = name
        #: Set once the listener is being stopped: nothing stays open for another request.
        self.stopping = False
        self._open: set[Line] = set()
        self._refusing = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = min(1.0, limits.head_s / 4, limits.body_s / 4, limits.unread_s / 4)
        self._counts: Counter[str] = Counter()
        self._told_at = -_TOLD_EVERY_S

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, line: Line) -> bool:
        """Take a new connection, unless there are too many; its times begin."""
        loop = asyncio.get_running_loop()
        if self.stopping:
            return False
        if len(self._open) >= self.limits.connections:
            self._tell("refused", loop.time())
            return False
        line.phase, line.unread_since = "head", None
        line.since = line.heard = loop.time()
        self._open.add(line)
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._sweep, loop)
        return True

    def release(self, line: Line) -> None:
        """Forget a connection that has ended."""
        self._open.discard(line)

    def may_refuse(self) -> bool:
        """Whether one more connection can be told that there are too many; then call :meth:`refused` at its end."""
        if self.stopping or self._refusing >= self.limits.refusals:
            return False
        self._refusing += 1
        return True

    def refused(self) -> None:
        """One that was told is gone."""
        self._refusing -= 1

    async def stop(self, graceful_s: float) -> None:
        """Close what serves no request, and after ``graceful_s`` everything."""
        self.stopping = True
        for line in list(self._open):
            if line.phase != "busy":
                line.wire().close()
        await asyncio.sleep(graceful_s)
        self.abort()

    def abort(self) -> None:
        """Cut everything."""
        for line in list(self._open):
            line.wire().abort()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for line in list(self._open):
            self._look(line, now)
        self._timer = loop.call_later(self._tick_s, self._sweep, loop) if self._open else None
        if self._counts:
            self._tell(None, now)

    def _look(self, line: Line, now: float) -> None:
        limits, wire = self.limits, line.wire()
        if wire.get_write_buffer_size():
            line.unread_since = line.unread_since or now
            if now - line.unread_since > limits.unread_s:
                self._cut(line, "unread", now)
                return
        else:
            line.unread_since = None
        if line.phase == "head":
            if now - line.since > limits.head_s:
                self._cut(line, "head", now)
        elif line.phase == "idle":
            if now - line.since > limits.idle_s:
                wire.close()
        elif line.awaits_body() and now - line.heard > limits.body_s:
            self._cut(line, "body", now)

    def _cut(self, line: Line, why: str, now: float) -> None:
        line.wire().abort()
        self._tell(f"cut_{why}", now)

    def _tell(self, what: str | None, now: float) -> None:
        """Say how many, and not more often than every few seconds."""
        if what is not None:
            self._counts[what] += 1
        if self.name and now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            _log.warning("connections_refused_or_cut", extra={"listener": self.name, **self._counts})
            self._counts.clear()


def fitting(connections: int) -> int:
    """
    Return how many connections the process may have, at most ``connections``.

    Each is an open file: the limit of them is raised as far as the system lets us.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    wanted = connections + _OWN_FILES
    if soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    fits = max(1, min(connections, soft - _OWN_FILES))
    if fits < connections:
        _log.warning("connections_limited_by_files", extra={"wanted": connections, "connections": fits, "files": soft})
    return fits
