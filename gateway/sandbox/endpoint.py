"""The route of `events/create`: reads a call in full, lets a fault have its way, and writes the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from gateway.sandbox import answers
from gateway.sandbox.answers import Answer
from gateway.sandbox.faults import Fault

if TYPE_CHECKING:
    from gateway.sandbox.pinterest import PinterestSandbox

_PROMISED: Final = b"1024"


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One call of `events/create`, read in full; `test` is the query parameter in lower case, or empty."""

    ad_account_id: str
    authorization: str
    test: str
    body: bytes


class _Id(msgspec.Struct, gc=False):
    event_id: str = ""


class _Ids(msgspec.Struct, gc=False):
    data: list[_Id]


class EventsEndpoint:
    """An ASGI application for one route of `PinterestSandbox`."""

    def __init__(self, sandbox: PinterestSandbox) -> None:
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        sandbox = self._sandbox
        body = await read_body(receive, sandbox.config.max_body)
        if body is None:
            return
        sandbox.record.calls += 1
        call = _call(scope, body)
        fault = sandbox.faults.take(call.ad_account_id, lambda: _event_ids(body))
        if len(body) > sandbox.config.max_body:
            answer: Answer | None = answers.error(413, "The request is too large.")
        else:
            answer = sandbox.answer(call) if fault is None else await self._outcome(call, fault, receive)
        if answer is not None:
            sandbox.record.answers[answer.status] += 1
            await write_answer(answer, send)
        elif fault is not None and fault.kind != "hang":
            await break_connection(scope, send)

    async def _outcome(self, call: Call, fault: Fault, receive: Receive) -> Answer | None:
        """Return the answer to send; None: the connection breaks, or a hanging call's client has gone."""
        sandbox = self._sandbox
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.kind == "status":
            return _altered(answers.error(fault.code, headers=fault.headers), fault)
        if fault.kind == "reset_before":
            return None
        if fault.kind == "hang" and not fault.recorded:
            return sandbox.answer(call) if await sandbox.faults.hold(receive) else None
        answer = sandbox.answer(call, fault if fault.kind == "partial" else None)
        if fault.kind == "hang":
            return answer if await sandbox.faults.hold(receive) else None
        if fault.kind == "reset_after":
            return None
        return _altered(answer, fault) if fault.kind == "answer" and answer.status == 200 else answer


def _altered(answer: Answer, fault: Fault) -> Answer:
    if fault.kind == "answer" and fault.body == "error":
        return answers.error(fault.code, headers=fault.headers)
    headers = {**answer.headers, **fault.headers}
    sound = msgspec.structs.replace(answer, status=fault.code, headers=headers)
    return answers.damaged(sound, fault.body, size_mb=fault.size_mb)


def _call(scope: Scope, body: bytes) -> Call:
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(
        ad_account_id=scope["path_params"]["ad_account_id"],
        authorization=authorization.decode("latin-1"),
        test=query["test"][0].lower() or "(empty)" if "test" in query else "",
        body=body,
    )


def _event_ids(body: bytes) -> set[str]:
    try:
        return {event.event_id for event in msgspec.json.decode(body, type=_Ids).data}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return set()


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, cut soon after `limit` bytes, or None when the client went before its end."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if size <= limit:
            parts.append(part)
        size += len(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def write_answer(answer: Answer, send: Send) -> None:
    """Send one answer."""
    headers = {"content-type": answer.media_type, "content-length": str(answer.length), **answer.headers}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    if not answer.padding_mb:
        await send({"type": "http.response.body", "body": answer.content})
        return
    async for block in answer.blocks():
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def break_connection(scope: Scope, send: Send) -> None:
    """Break the connection: the client learns nothing of what became of its events.

    ASGI has no way to close a connection. An answer that promises a body and never sends it makes Hypercorn
    and uvicorn close it. Where there is no server (an in-process transport, which names no spec_version), the
    caller gets a `ConnectionResetError` instead.
    """
    if "spec_version" not in scope["asgi"]:
        raise ConnectionResetError("the sandbox broke the connection")
    headers = [(b"content-type", b"application/json"), (b"content-length", _PROMISED)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
