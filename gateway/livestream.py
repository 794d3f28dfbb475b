"""
The last events and a stream of new ones (server-sent events), for the page *Live events* and for ``events``.

A row holds nothing personal: names, ids and fates. A stream is bounded in every way: so many readers, so many rows at a
time; it ends when its reader's session does, and at once when the gateway stops.
"""

import asyncio
import contextlib
import time
from typing import Literal

import msgspec
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.event import Struct
from gateway.recent import Entry, Recent, Subscription

#: Streams at a time, of all readers together.
MOST_STREAMS = 20
#: Rows in one message and in an answer; a page keeps as many.
MOST_ROWS = 200
#: Seconds between two signs of life, and between two messages.
HEARTBEAT_S, TICK_S = 15.0, 0.25
#: How long a browser waits before it comes back, in milliseconds.
RETRY_MS = 3_000
_MOST_TEXT = 120

Kind = Literal["good", "warn", "bad", "neutral"]
#: What a row's fate may be: how an event was taken in, and how it ended.
SHOWN: dict[str, Kind] = {
    "accepted": "neutral", "delivered": "good", "merged": "neutral", "duplicate": "neutral", "dropped": "warn",
    "rejected": "bad", "dead": "bad",
}  # fmt: skip


class Row(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    One event at one destination, as lists show it.

    ``shown`` is its end, or while it waits its fate; ``clock`` the time of day in UTC, ``time`` the whole time
    (ISO 8601); ``of`` the id of the event that a copy met; ``note`` all of these in words; ``ended_at``
    0 while it waits.
    """

    serial: int
    at: float
    time: str
    clock: str
    source: str
    event_name: str
    event_id: str
    destination: str
    fate: str
    shown: str
    kind: Kind
    reason: str
    of: str
    warning: str
    note: str
    is_test: bool
    ended_at: float


class Choice(Struct, frozen=True, kw_only=True):
    """Which rows: of a source, an event name, a fate or end; empty: any."""

    source: str = ""
    name: str = ""
    fate: str = ""

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        return (
            self.source in ("", entry.source)
            and self.name in ("", entry.event_name)
            and self.fate in ("", entry.fate, entry.end)
        )


def shorten(text: str | None, most: int = _MOST_TEXT) -> str:
    """Return a text of bounded length, without control characters."""
    given = (text or "")[: most + 1]
    shown = "".join(char if char.isprintable() else "·" for char in given)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def row(entry: Entry) -> Row:
    """Return the entry as a row."""
    moment = time.gmtime(entry.at)
    shown = entry.end or entry.fate
    return Row(
        serial=entry.serial,
        at=round(entry.at, 3),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
        clock=time.strftime("%H:%M:%S", moment),
        source=entry.source,
        event_name=shorten(entry.event_name),
        event_id=shorten(entry.event_id),
        destination=entry.destination or "",
        fate=entry.fate,
        shown=shown,
        kind="warn" if shown == "delivered" and entry.warning else SHOWN.get(shown, "neutral"),
        reason=shorten(entry.end_reason if entry.end else entry.reason),
        of=shorten(entry.of),
        warning=shorten(entry.warning, 300),
        note=_note(entry),
        is_test=entry.is_test,
        ended_at=entry.ended_at or 0.0,
    )


def _note(entry: Entry) -> str:
    """Return in words why, whose copy, and what the vendor warned of."""
    reason = shorten(entry.end_reason if entry.end else entry.reason)
    parts = (
        reason,
        f"HTTP {entry.status}" if entry.status is not None else "",
        f"copy of {shorten(entry.of)}" if entry.of is not None else "",
        f"warning: {shorten(entry.warning, 300)}" if entry.warning else "",
    )
    return ", ".join(part for part in parts if part)


class LiveStreams:
    """
    The streams of one gateway.

    Args:
        recent: The last outcomes.
    """

    def __init__(self, recent: Recent) -> None:
        self.recent = recent
        self.closed = False
        self._open: set[EventStream] = set()

    def rows(self, choice: Choice, *, after: int = 0, limit: int = MOST_ROWS) -> list[Row]:
        """Return the newest rows with a serial over ``after``, newest first."""
        return [row(entry) for entry in self.entries(choice, after, limit)]

    def entries(self, choice: Choice, after: int, limit: int) -> list[Entry]:
        """Return the newest entries with a serial over ``after``, newest first."""
        return self.recent.since(
            after, limit=limit, source=choice.source or None, name=choice.name or None, fate=choice.fate or None
        )

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Whether no stream can begin."""
        return self.closed or len(self._open) >= MOST_STREAMS

    def enter(self, stream: "EventStream") -> bool:
        """Take a place, if there is one."""
        if self.is_full:
            return False
        self._open.add(stream)
        return True

    def leave(self, stream: "EventStream") -> None:
        """Give the place back."""
        self._open.discard(stream)

    def close(self) -> None:
        """End every stream: the gateway stops."""
        self.closed = True
        for stream in self._open:
            stream.end()


class EventStream(StreamingResponse):
    """
    A stream as an answer: messages ``rows`` with ``{"rows": [Row], "skipped": n}``, oldest first.

    A row comes again when its event ends; ``skipped`` counts events that came too fast to be told.

    Args:
        streams: Whose place it takes; without one left it answers 503.
        choice: Which rows.
        after: Begin behind this serial; None: with what comes from now on.
    """

    def __init__(self, streams: LiveStreams, choice: Choice, *, after: int | None = None) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._over = asyncio.Event()
        self._wake = asyncio.Event()
        self._streams = streams
        self._choice = choice
        self._after = after
        self._pending: dict[int, Entry] = {}
        self._skipped = 0
        self._last = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the reader goes, its session ends, or the gateway stops."""
        if not self._streams.enter(self):
            await _FULL(scope, receive, send)
            return
        subscription = self._streams.recent.subscribe()
        tasks = [asyncio.create_task(self._read(subscription)), asyncio.create_task(self._listen(receive))]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._run(send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._streams.leave(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, subscription.aclose(), return_exceptions=True)

    def end(self) -> None:
        """End it now."""
        self._over.set()
        self._wake.set()

    async def _read(self, subscription: Subscription) -> None:
        async for entry in subscription:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        """Keep what the next message tells: the latest state of each event, and of too many the newest."""
        if entry.serial > self._last:
            # of a burst only the newest get here
            self._skipped += entry.serial - self._last - 1
            self._last = entry.serial
        if self._choice.takes(entry):
            self._pending[entry.serial] = entry
            if len(self._pending) > MOST_ROWS:
                del self._pending[min(self._pending)]
                self._skipped += 1
            self._wake.set()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()

    async def _run(self, send: Send) -> None:
        self._begin()
        await _write(send, b"retry: %d\n\n" % RETRY_MS)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            if self._over.is_set():
                return
            await _write(send, self._message() or b": still here\n\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._over.wait()

    def _begin(self) -> None:
        """Note what the reader has missed: newer events, and ends of events that it may have as waiting."""
        self._last = self._streams.recent.last
        if self._after is None:
            return
        after = self._after if self._after <= self._last else 0  # a serial of before a restart
        for entry in reversed(self._streams.entries(Choice(), 0, MOST_ROWS)):
            if entry.serial > after or entry.end is not None:
                self._note(entry)

    def _message(self) -> bytes | None:
        self._wake.clear()
        if not self._pending:
            return None
        told = {"rows": [row(self._pending[serial]) for serial in sorted(self._pending)], "skipped": self._skipped}
        self._pending, self._skipped = {}, 0
        return b"id: %d\nevent: rows\ndata: %b\n\n" % (self._last, msgspec.json.encode(told))


async def _write(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


_FULL = JSONResponse(
    {"error": {
        "code": "too_many_streams", "message": f"{MOST_STREAMS} streams are open already.",
        "hint": "Close another page of live events, or reload this one by hand.",
    }},
    503,
    {"Cache-Control": "no-store", "Retry-After": "30"},
)  # fmt: skip
