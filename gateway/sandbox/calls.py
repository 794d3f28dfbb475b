"""One call to a stand-in: read in full, noted, put through the script of faults, answered."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from gateway.sandbox.answers import Answer
from gateway.sandbox.endpoint import break_connection, read_body, write_answer
from gateway.sandbox.script import DONE, CallFault, Script, Vendor

KEPT: Final = 10_000
"""The newest calls that can be read back."""
_MAX_BODY: Final = 67_108_864
_HTML: Final = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One call; ``base`` is scheme and host as the client wrote them, header names are in lower case."""

    method: str
    path: str
    base: str
    params: Mapping[str, str]
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes

    @property
    def args(self) -> dict[str, str]:
        """The query; of a repeated name the last."""
        return dict(self.query)


class Noted(msgspec.Struct, kw_only=True, frozen=True):
    """What is kept of a call: never its body or headers. ``status`` 0: the connection was cut. ``at``: Unix s."""

    at: float
    vendor: str
    method: str
    path: str
    query: str
    status: int
    bytes: int


class Handler(msgspec.Struct, kw_only=True, frozen=True):
    """
    How one kind of call is answered.

    ``run`` does the work; ``error`` makes the vendor's error of a status, with further headers; ``shorten`` makes a
    page the last one (with False: and empties it).
    """

    vendor: Vendor
    route: str
    run: Callable[[Call], Answer]
    error: Callable[[int, dict[str, str]], Answer]
    shorten: Callable[[dict[str, Any], bool], None]


class Log:
    """The calls so far; ``watch`` is called with vendor, call and answer (None: cut) of each."""

    def __init__(self) -> None:
        self.newest: deque[Noted] = deque(maxlen=KEPT)
        self.by: Counter[str] = Counter()
        self.watch: Callable[[str, Call, Answer | None], None] | None = None

    def note(self, call: Noted, route: str) -> None:
        """Keep and count one call."""
        self.newest.append(call)
        self.by[f"{call.method} {route} {call.status}"] += 1

    def clear(self) -> None:
        """Forget them."""
        self.newest.clear()
        self.by.clear()


class Endpoint:
    """An ASGI application for one route."""

    def __init__(self, handler: Handler, script: Script, log: Log, clock: Callable[[], float]) -> None:
        self._handler = handler
        self._script = script
        self._log = log
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        body = await read_body(receive, _MAX_BODY)
        if body is None:
            return
        call = _call(scope, body)
        fault = self._script.take(self._handler.vendor, call.method, call.path)
        if fault is not None and fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        answer = self._answer(call, fault)
        noted = Noted(
            at=self._clock(), vendor=self._handler.vendor, method=call.method, path=call.path,
            query=scope["query_string"].decode("latin-1"), status=answer.status if answer else 0, bytes=len(body),
        )  # fmt: skip
        self._log.note(noted, self._handler.route)
        if self._log.watch is not None:
            self._log.watch(self._handler.vendor, call, answer)
        if answer is None:
            await break_connection(scope, send)
        else:
            await write_answer(answer, send)

    def _answer(self, call: Call, fault: CallFault | None) -> Answer | None:
        if fault is None or fault.kind == "delay":
            return self._handler.run(call)
        done = self._handler.run(call) if fault.kind in DONE else None
        if fault.kind in {"cut_before", "cut_after"}:
            return None
        if done is None or fault.kind == "answer":
            return self._handler.error(fault.status, fault.headers)
        return self._damaged(done, fault)

    def _damaged(self, sound: Answer, fault: CallFault) -> Answer:
        replace = msgspec.structs.replace
        if fault.kind == "html":
            return replace(sound, content=_HTML, media_type="text/html; charset=utf-8")
        if fault.kind == "truncated":
            return replace(sound, content=sound.content[: len(sound.content) // 2])
        if sound.status != 200:
            return sound
        page = msgspec.json.decode(sound.content)
        self._handler.shorten(page, fault.kind == "end_early")
        return replace(sound, content=msgspec.json.encode(page))


def _call(scope: Scope, body: bytes) -> Call:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host") or ":".join(map(str, scope.get("server") or ("sandbox",)))
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(
        method=scope["method"],
        path=scope["path"],
        base=f"{scope.get('scheme', 'http')}://{host}",
        params=dict(scope["path_params"]),
        query=tuple(query),
        headers=headers,
        body=body,
    )
