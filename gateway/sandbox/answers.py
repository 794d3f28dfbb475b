"""The answers of `events/create`, sound and damaged.

Source: Pinterest's OpenAPI description v5.23.0 (`ConversionApiResponse`, `Error`, `DetailedError`, and their
examples); a successful event carries empty texts, not null (seen in pinterest-for-woocommerce, issue 945).
"""

import zlib
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from gateway.sandbox.faults import Body

JSON: Final = "application/json"
_KNOWN: Final = {
    400: (4196, "The request was invalid."),
    401: (2, "Authentication failed."),
    403: (29, "You are not permitted to access that resource."),
    422: (422, "Not all events were successfully processed."),
    429: (8, "This request exceeded a rate limit. Slow down and send it again."),
    503: (4197, "The endpoint has been ramped down and is currently not accepting any traffic."),
}
"""HTTP status to (code, message). The code of 422 is documented nowhere: it is this sandbox's own."""
_BLOCK: Final = 65_536
_PAGE: Final = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"


class Answer(msgspec.Struct, kw_only=True, frozen=True):
    """One HTTP answer; with `padding_mb` that many megabytes of spaces follow the content."""

    status: int
    content: bytes
    media_type: str = JSON
    headers: dict[str, str] = {}
    padding_mb: int = 0

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece."""
        yield self.content
        for _ in range(self.padding_mb * (1_048_576 // _BLOCK)):
            yield b" " * _BLOCK

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.content) + self.padding_mb * 1_048_576


class EventStatus(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What became of one event of a request."""

    status: str = "processed"
    error_message: str = ""
    warning_message: str = ""


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """What became of a request's events, in their order."""

    num_events_received: int
    num_events_processed: int
    events: Sequence[EventStatus]

    def fields(self, *, listed: bool = True) -> dict[str, Any]:
        """Return the report as JSON-able fields, without the per-event list unless `listed`."""
        counts = {
            "num_events_received": self.num_events_received,
            "num_events_processed": self.num_events_processed,
        }
        return {**counts, "events": self.events} if listed else counts


PROCESSED: Final = EventStatus()


def error(status: int, message: str = "", headers: dict[str, str] | None = None) -> Answer:
    """Return the error answer of this HTTP status, in Pinterest's shape."""
    code, text = _KNOWN.get(status, (status, "Something went wrong."))
    body: dict[str, Any] = {"code": code, "message": message or text}
    if status == 422:
        body["details"] = {}
    return Answer(status=status, content=msgspec.json.encode(body), headers=headers or {})


def reported(report: Report, status: int, *, listed: bool = True, headers: dict[str, str] | None = None) -> Answer:
    """Return the answer to a request whose events were looked at; a 422 has the report in `details`."""
    body = report.fields(listed=listed)
    if status == 422:
        code, message = _KNOWN[422]
        body = {"code": code, "message": message, "details": body}
    return Answer(status=status, content=msgspec.json.encode(body), headers=headers or {})


def damaged(sound: Answer, body: Body, *, size_mb: int) -> Answer:
    """Return `sound` with its body replaced by a damaged one; the per-event bodies need a sound 200."""
    replace = msgspec.structs.replace
    if body == "html":
        return replace(sound, content=_PAGE, media_type="text/html; charset=utf-8")
    if body == "empty":
        return replace(sound, content=b"")
    if body == "truncated":
        return replace(sound, content=sound.content[: len(sound.content) // 2])
    if body == "huge":
        return replace(sound, padding_mb=size_mb)
    if body == "gzip_bomb":
        return replace(sound, content=_bomb(size_mb), headers={**sound.headers, "content-encoding": "gzip"})
    return sound if body == "error" else replace(sound, content=_misreported(sound.content, body))


def _misreported(content: bytes, body: Body) -> bytes:
    report = msgspec.json.decode(content, type=dict[str, Any])
    events = report["events"]
    if body == "short":
        events.pop()
    elif body == "long":
        events.append(dict(events[-1]))
    elif body == "unknown_status":
        events[0]["status"] = "deferred"
    elif body == "missing_status":
        del events[0]["status"]
    else:
        del report["events"]
    return msgspec.json.encode(report)


@lru_cache(maxsize=2)
def _bomb(size_mb: int) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)
    block = b" " * 1_048_576
    return b"".join([*(packer.compress(block) for _ in range(size_mb)), packer.flush()])
