"""
Captured requests for the operator's test page: pasted ones, and the next hit of a source that was asked for.

They hold personal data as it came, so they live in memory only: one of each source and a few pasted ones, for ten
minutes, and never longer than an erasure.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Literal

from gateway.hit import Hit
from gateway.pipeline import Reply
from gateway.trial import Result

#: How long a source is watched for its next hit, and how long a capture is kept; seconds.
WATCH_S, KEEP_S = 300.0, 600.0
#: Pasted captures at a time, and the largest, in bytes; sources watched at a time.
MOST_PASTED, MAX_BYTES, MOST_WATCHED = 8, 1 << 20, 8
_SWEEP_S = 15.0

Origin = Literal["pasted", "next"]


class Capture:
    """
    One request.

    Args:
        hit: The request, raw.
        origin: Pasted by an operator, or the next hit of a source.
        verify: Whether its proof of authenticity is asked for when it is read.
        at: When it came, Unix seconds.
    """

    __slots__ = ("at", "hit", "id", "origin", "problem", "reply", "result", "tried_at", "verify")

    def __init__(self, hit: Hit, origin: Origin, *, verify: bool, at: float) -> None:
        self.id = secrets.token_urlsafe(12)
        self.hit = hit
        self.origin: Origin = origin
        self.verify = verify
        self.at = at
        #: What the gateway answered to a next hit; None: it refused it, or has not yet.
        self.reply: Reply | None = None
        #: What destinations answered to the last test, and when; or why it could not be sent.
        self.result: Result | None = None
        self.problem = ""
        self.tried_at = 0.0

    def __repr__(self) -> str:
        return f"Capture({self.origin}, {self.hit!r})"


class Captures:
    """
    The captures of one gateway.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: Sources whose next hit is wanted, and until when: the ingress looks here for every hit, and nowhere else.
        self.watched: dict[str, float] = {}
        self._next: dict[str, Capture] = {}
        self._pasted: dict[str, Capture] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def watch(self, source: str) -> float | None:
        """Take the source's next hit; returns until when it is watched, None when too many sources are."""
        self.sweep()
        if source not in self.watched and len(self.watched) >= MOST_WATCHED:
            return None
        self._next.pop(source, None)
        self.watched[source] = self._clock() + WATCH_S
        self._sweep_later()
        return self.watched[source]

    def unwatch(self, source: str) -> None:
        """Watch it no more, and forget the hit that was taken."""
        self.watched.pop(source, None)
        self._next.pop(source, None)

    def take(self, hit: Hit) -> Capture | None:
        """Keep the hit of a watched source, which is watched no more; None when its time was over."""
        name = hit.source.name
        until = self.watched.pop(name, 0.0)
        if self._clock() > until:
            return None
        found = Capture(hit, "next", verify=True, at=hit.received_at)
        self._next[name] = found
        self._sweep_later()
        return found

    def paste(self, hit: Hit, *, verify: bool) -> Capture:
        """Keep a pasted request; the oldest makes room."""
        self.sweep()
        while len(self._pasted) >= MOST_PASTED:
            del self._pasted[next(iter(self._pasted))]
        found = Capture(hit, "pasted", verify=verify, at=self._clock())
        self._pasted[found.id] = found
        self._sweep_later()
        return found

    def get(self, identity: str) -> Capture | None:
        """Return a capture, None when it is gone."""
        self.sweep()
        found = self._pasted.get(identity)
        return found or next((one for one in self._next.values() if one.id == identity), None)

    def forget(self, identity: str) -> None:
        """Forget one request."""
        self._pasted.pop(identity, None)
        for name in [name for name, one in self._next.items() if one.id == identity]:
            del self._next[name]

    def pasted(self) -> list[Capture]:
        """Return the pasted requests, newest first."""
        self.sweep()
        return list(reversed(self._pasted.values()))

    def taken(self) -> Mapping[str, Capture]:
        """Return the hits that were taken, by source."""
        self.sweep()
        return self._next

    def clear(self) -> None:
        """Forget every request."""
        self._next.clear()
        self._pasted.clear()

    def close(self) -> None:
        """Forget everything."""
        self.clear()
        self.watched.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def sweep(self) -> None:
        """Forget what has had its time."""
        now = self._clock()
        for name in [name for name, until in self.watched.items() if until < now]:
            del self.watched[name]
        kept: dict[str, Capture]
        for kept in (self._next, self._pasted):
            for key in [key for key, one in kept.items() if one.at + KEEP_S < now]:
                del kept[key]

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweeper = None
        self.sweep()
        if self.watched or self._next or self._pasted:
            self._sweep_later()
