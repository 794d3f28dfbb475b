"""Scripted faults: a queue used up call by call, and standing faults that last until they are cleared."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Literal

import msgspec

Kind = Literal["status", "answer", "delay", "hang", "reset_before", "reset_after", "partial"]
Body = Literal[
    "error",
    "html",
    "empty",
    "truncated",
    "huge",
    "gzip_bomb",
    "short",
    "long",
    "unknown_status",
    "missing_status",
    "no_events",
]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

REPORT_BODIES: Final = frozenset({"short", "long", "unknown_status", "missing_status", "no_events"})
"""Bodies that damage the per-event report: they need a request that was processed."""
_STATUS: Final[dict[Kind, int]] = {"status": 503, "partial": 422}


class Fault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong with one call. The request body is always read first.

    Args:
        kind: `status`: nothing is processed, the answer is `status` with `body`.
            `answer`: all is processed and recorded, then the answer is `status` with the damaged `body`.
            `delay`: as usual, but late (`delay_s`, which every other kind takes too).
            `hang`: no answer until `Faults.release`; processed when released, with `recorded` before.
            `reset_before`, `reset_after`: the connection breaks; nothing, or everything, was recorded.
            `partial`: the events at `indexes` or with an id in `event_ids` fail (all, if both are empty).
        status: Of the answer; 0 is the usual one: 503 for `status`, 422 for `partial`, else 200.
        body: Of the answer of `status` and `answer`.
        retry_after: Value of a `Retry-After` header: seconds or an HTTP date.
        delay_s: Seconds to wait before anything else.
        recorded: See `hang`.
        indexes: See `partial`.
        event_ids: See `partial`; any other kind applies only to a request that holds one of these ids.
        listed: Whether a `partial` answer has its per-event list.
        ad_account_id: The fault applies to calls for this ad account only.
        size_mb: Decoded size of a `huge` or `gzip_bomb` body.
    """

    kind: Kind
    status: int = 0
    body: Body = "error"
    retry_after: int | str | None = None
    delay_s: float = 0.0
    recorded: bool = False
    indexes: tuple[int, ...] = ()
    event_ids: tuple[str, ...] = ()
    listed: bool = True
    ad_account_id: str | None = None
    size_mb: int = 200

    def __post_init__(self) -> None:
        if self.kind != "answer" and self.body in REPORT_BODIES:
            raise ValueError(f"body {self.body!r} needs kind 'answer'")
        if self.status and not 200 <= self.status <= 599:
            raise ValueError("status must be between 200 and 599")
        if self.kind == "partial" and self.status not in {0, 200, 422}:
            raise ValueError("status of a partial fault must be 200 or 422")

    @property
    def code(self) -> int:
        """The HTTP status of the answer."""
        return self.status or _STATUS.get(self.kind, 200)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the answer carries beside the usual ones."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class Faults:
    """The script of one sandbox. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._queue: deque[Fault] = deque()
        self._standing: list[Fault] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def queued(self) -> int:
        """How many queued faults are left."""
        return len(self._queue)

    @property
    def standing(self) -> tuple[Fault, ...]:
        """The faults that last until they are cleared, in the order in which they are tried."""
        return tuple(self._standing)

    @property
    def hanging(self) -> int:
        """How many calls wait for `release` now."""
        return len(self._waiting)

    def queue(self, *faults: Fault) -> None:
        """Add faults that hit one call each, in this order."""
        self._queue.extend(faults)

    def stand(self, *faults: Fault) -> None:
        """Add faults that hit every call to which they apply (the first such one, and after the queue)."""
        self._standing.extend(faults)

    def down(self, how: Literal["unavailable", "drop"] = "unavailable") -> None:
        """Refuse every call from now on: with 503 (code 4197), or by breaking its connection."""
        self._standing.insert(0, Fault(kind="status" if how == "unavailable" else "reset_before"))

    def clear(self) -> None:
        """Drop every fault and release every hanging call."""
        self._queue.clear()
        self._standing.clear()
        self.release()

    def release(self) -> None:
        """Let every hanging call go on."""
        for loop, gate in list(self._waiting):
            if not loop.is_closed():
                loop.call_soon_threadsafe(gate.set)

    def take(self, ad_account_id: str, event_ids: Callable[[], set[str]]) -> Fault | None:
        """Return the fault of this call: the head of the queue if it applies, else the first standing one."""
        if not self._queue and not self._standing:
            return None
        if self._queue and _applies(self._queue[0], ad_account_id, event_ids):
            return self._queue.popleft()
        for fault in self._standing:
            if _applies(fault, ad_account_id, event_ids):
                return fault
        return None

    async def hold(self, receive: Receive) -> bool:
        """Wait until the call is released (true) or its client has gone (false)."""
        gate = asyncio.Event()
        entry = (asyncio.get_running_loop(), gate)
        tasks = (asyncio.create_task(gate.wait()), asyncio.create_task(_disconnected(receive)))
        self._waiting.append(entry)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.remove(entry)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return gate.is_set()


def _applies(fault: Fault, ad_account_id: str, event_ids: Callable[[], set[str]]) -> bool:
    if fault.ad_account_id not in {None, ad_account_id}:
        return False
    return fault.kind == "partial" or not fault.event_ids or not event_ids().isdisjoint(fault.event_ids)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
