"""
A stranger's plugin that goes wrong in every way; loaded as a module by ``HARNESS_PLUGINS``, or as an extra plugin.

The adapter ``stranger`` does what the hit's body says. ``exit`` is not among its ways: a plugin that ends the process
on purpose is beyond what threads can guard against.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from gateway.event import Event, Struct, User
from gateway.hit import Hit
from gateway.hookspecs import hookimpl
from gateway.interfaces import (
    Adapter,
    Batch,
    Context,
    Delivered,
    Destination,
    Enricher,
    Identifiers,
    Observer,
    Verdict,
)
from gateway.outcome import Settled

__version__ = "1.0"
HUGE = 10_000_000
SLEEP_S = 2.5


def sound(event_id: str = "", size: int = 0) -> Event:
    """Return an event as an adapter makes one."""
    user = User(email=("jo@stranger.example",))
    return Event(name="lead", source_name="lead", id=event_id or None, user=user, search_string="x" * size or None)


def _raise(error: BaseException) -> Any:
    raise error


def _recurse(depth: int = 0) -> Any:
    return _recurse(depth + 1)


def _spin() -> Any:
    while True:
        pass


def _sleep() -> Sequence[Event]:
    time.sleep(SLEEP_S)
    return [sound()]


def _say() -> Sequence[Event]:
    sys.stdout.write("a stranger speaks\n")
    return [sound()]


#: What the body says → what ``normalize`` does.
WAYS: dict[str, Callable[[], Any]] = {
    "well": lambda: [sound()],
    "raise": lambda: _raise(KeyError("jo@stranger.example")),
    "SystemExit": lambda: _raise(SystemExit(3)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "BaseException": lambda: _raise(BaseException()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "StopIteration": lambda: _raise(StopIteration()),
    "TimeoutError": lambda: _raise(TimeoutError()),
    "MemoryError": lambda: _raise(MemoryError()),
    "recursion": _recurse,
    "none": lambda: None,
    "text": lambda: "event",
    "number": lambda: 7,
    "dict": lambda: {"event_name": "lead"},
    "numbers": lambda: [1, 2],
    "generator": lambda: (sound() for _ in range(3)),
    "wrong fields": lambda: [msgspec.structs.replace(sound(), user=3, notes=5)],
    "huge": lambda: [sound(size=HUGE)],
    "many": lambda: [sound(str(number)) for number in range(3_000)],
    "sleep": _sleep,
    "spin": _spin,
    "print": _say,
}


class Stranger(Adapter):
    """Does what it is told."""

    name = "stranger"
    side: ClassVar[Any] = "server"

    def verify(self, hit: Hit) -> None:
        """Take everybody."""

    def normalize(self, hit: Hit) -> Any:
        """Do it."""
        return WAYS[hit.body.decode()]()


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:
    """Provide ``stranger``."""
    return [Stranger()]


class BadEnricher(Enricher):
    """Fails as :attr:`way` says, for events of the page ``/fault``."""

    name = "bad_enricher"
    order = 90
    way: Callable[[], Any] = staticmethod(lambda: None)

    async def enrich(self, event: Event, hit: Hit) -> Any:
        """Fail, or leave the event as it is."""
        if event.source_url and event.source_url.endswith("/fault"):
            result = type(self).way()
            return await result if asyncio.iscoroutine(result) else result
        return event


class BadObserver(Observer):
    """Fails at each end."""

    name = "bad_observer"
    way: Callable[[], Any] = staticmethod(lambda: None)

    def settled(self, settled: Settled) -> None:
        """Fail."""
        type(self).way()


class Hasty(Struct, frozen=True, kw_only=True):
    """Options of a destination whose batches do not wait."""

    linger_s: float = 0.01


class BadDestination(Destination):
    """Takes what it is told to; :attr:`way` gives its verdict, or raises, or is a coroutine that hangs."""

    type: ClassVar[str] = "bad"
    Options = Hasty
    way: Callable[[Batch], Any] = staticmethod(lambda batch: [Delivered() for _ in batch.events])
    taken: ClassVar[list[str]] = []

    def identifiers(self, user: User, default_country: str | None) -> Identifiers:
        """Send nobody's details."""
        return Identifiers()

    def refuse(self, event: Any, now: float) -> str | None:
        """Take everything."""
        return None

    def encode(self, event: Any) -> Any:
        """Need nothing."""
        return {}

    async def send(self, batch: Batch) -> Verdict:
        """Do it."""
        result = type(self).way(batch)
        if asyncio.iscoroutine(result):
            result = await result
        self.taken.extend(event.event_id for event in batch.events)
        verdict: Verdict = result
        return verdict
