"""
The public app: ``/in/{source}`` (hits, and files of adapters), ``/livez``, ``/readyz``.

An ASGI class, not Request and Response objects: half of what a hit costs is spent around our own code.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.assets import FILE_METHODS, Assets, Header
from gateway.errors import Rejected, Unavailable
from gateway.hit import Hit, Source
from gateway.isolation import Guard
from gateway.logs import HitLog
from gateway.outcome import FATES, Outcome
from gateway.pipeline import Pipeline, Reply, Route
from gateway.tally import Tally

_GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
#: The whole body must arrive in this time.
BODY_DEADLINE_S = 10.0
#: A line names at most so many event ids.
_LOGGED_IDS = 20
_encoder = msgspec.json.Encoder()
_log = logging.getLogger("gateway.ingress")


class Wiring:
    """What a reload replaces: routes by source name, and the pipeline behind them."""

    def __init__(self, routes: Mapping[str, Route], pipeline: Pipeline) -> None:
        self.routes = routes
        self.pipeline = pipeline


class Ingress:
    """
    Takes hits.

    Args:
        wiring: Returns the current wiring.
        clock: Wall time, Unix seconds.
        guard: Isolates strangers' adapters where a file of theirs is asked for.
    """

    def __init__(
        self, wiring: Callable[[], Wiring], clock: Callable[[], float], tally: Tally, log: HitLog, guard: Guard
    ) -> None:
        self._wiring = wiring
        self._clock = clock
        self._tally = tally
        self._log = log
        self._assets = Assets(guard)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        name, _, tail = scope["path"][4:].partition("/")
        wiring = self._wiring()
        route = wiring.routes.get(name)
        line: dict[str, Any] = {"source": name if route else "-", "method": scope["method"]}
        cors: list[Header] = []
        try:
            if route is None:
                raise Rejected(
                    "unknown_source", "There is no such source.", status=404,
                    hint="The path is /in/NAME, with NAME as in [sources.NAME] of gateway.toml.",
                )  # fmt: skip
            headers = _headers(scope)
            cors = _cors(route, headers)
            method = scope["method"]
            if method == "OPTIONS":
                status, body, extra = _preflight(route, headers)
            elif tail and method in FILE_METHODS and (file := await self._assets.answer(route, tail, headers)):
                status, body, extra = file
            else:
                hit = await self._hit(route, f"/{tail}" if tail else "", headers, scope, receive)
                reply = await wiring.pipeline.handle(route, hit)
                status, body, extra = _answer(hit, reply)
                _describe(line, reply)
        except Rejected as error:
            status, body, extra = error.status, _error(error.reason, error.message, error.hint), _JSON
            if status == 405 and route is not None:
                extra = [*_JSON, (b"allow", ", ".join(sorted({*route.adapter.methods, "OPTIONS"})).encode())]
            line["reason"] = error.reason
        except Unavailable as error:
            hint = "Nothing was accepted. Send the same request again after the seconds in Retry-After."
            status, body = 503, _error(error.reason, error.message, hint)
            extra = [*_JSON, (b"retry-after", str(error.retry_after_s).encode())]
            line["reason"] = error.reason
        except Exception as error:  # a bug of ours: the sender must try again, and an operator must hear of it
            _log.exception("hit_failed", extra={"source": line["source"], "error": type(error).__name__})
            status, extra = 503, [*_JSON, (b"retry-after", b"30")]
            body = _error("internal", "The gateway failed; nothing was accepted.", "Send it again later.")
        self._tally.hits[(line["source"], str(status))] += 1
        line["status"] = status
        line["ms"] = round((time.perf_counter() - started) * 1000, 2)
        self._log.write(line)
        await _send(send, status, [*extra, *cors], body, without_body=scope["method"] == "HEAD")

    async def _hit(self, route: Route, tail: str, headers: dict[str, str], scope: Scope, receive: Receive) -> Hit:
        method = scope["method"]
        if method not in route.adapter.methods:
            raise Rejected(
                "method_not_allowed", f"This source does not take {method}.", status=405,
                hint=f"Use {' or '.join(sorted(route.adapter.methods))}.",
            )  # fmt: skip
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise Rejected(
                "unsupported_encoding", "The body is compressed.", status=415, hint="Send it without Content-Encoding."
            )
        client = scope.get("client")
        return Hit(
            source=route.source,
            method=method,
            tail=tail,
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=b"" if method == "GET" else await read_body(receive, headers, route.max_bytes),
            peer=client[0] if client else None,
            received_at=self._clock(),
        )


class Deadline:
    """
    Cuts off bodies that do not arrive in time: one timer for all requests, because one for each costs as much as
    reading the body.

    A request is cut off up to a second late.
    """

    def __init__(self, seconds: float = BODY_DEADLINE_S) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> asyncio.Task[Any]:
        """Watch the current task, and return it for :meth:`stop`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a body is read in a task")
        self._waiting[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._sweep, loop)
        return task

    def stop(self, task: asyncio.Task[Any], *, cancelled: bool = False) -> None:
        """
        Watch it no longer.

        Raises:
            Rejected: 408, this is what cancelled it.
        """
        self._waiting.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            if cancelled and task.uncancel() == 0:
                raise Rejected("slow_body", f"The body did not arrive in {self._seconds:g} s.", status=408)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, deadline in self._waiting.items() if deadline <= now]:
            del self._waiting[task]
            self._late.add(task)
            task.cancel()
        self._timer = loop.call_later(1.0, self._sweep, loop) if self._waiting else None


_deadline = Deadline()


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """
    Read the body, counting the bytes that really arrive.

    Raises:
        Rejected: 413 when it is longer than ``limit``; 408 when it does not arrive in time; 400 when the sender went
            away.
    """
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    cancelled = False
    task = _deadline.start()
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Rejected("disconnected", "The sender went away before the body was complete.")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message.get("more_body", False):
                return part if len(parts) == 1 else b"".join(parts)
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        _deadline.stop(task, cancelled=cancelled)


def _too_large(limit: int) -> Rejected:
    size = f"{limit >> 20} MB"
    return Rejected(
        "too_large", f"The body is larger than {size}.", status=413, hint="Send fewer events in one request."
    )


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            separator = "; " if name == "cookie" else ", "
            value = f"{headers[name]}{separator}{value}"
        headers[name] = value
    return headers


_JSON: list[Header] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_PIXEL: list[Header] = [(b"content-type", b"image/gif"), (b"cache-control", b"no-store, private")]


def _cors(route: Route, headers: Mapping[str, str]) -> list[Header]:
    """Allow exactly the configured origins of a public source to read the answer."""
    if route.source.is_server:
        return []
    origin = headers.get("origin", "")
    if origin not in route.source.allowed_origins:
        return [(b"vary", b"Origin")]
    allowed = [(b"vary", b"Origin"), (b"access-control-allow-origin", origin.encode("latin-1"))]
    if origin != "null":
        allowed.append((b"access-control-allow-credentials", b"true"))
    return allowed


def _preflight(route: Route, headers: Mapping[str, str]) -> tuple[int, bytes, list[Header]]:
    methods = ", ".join(sorted({*route.adapter.methods, "OPTIONS"})).encode()
    if "access-control-request-method" not in headers:
        return 204, b"", [(b"allow", methods)]
    return 204, b"", [
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", b"content-type"),
        (b"access-control-max-age", b"86400"),
    ]  # fmt: skip


def _answer(hit: Hit, reply: Reply) -> tuple[int, bytes, list[Header]]:
    if reply.is_refused:
        return 400, _encoder.encode({"error": _first_error(reply), **_body(reply, hit.source)}), _JSON
    if hit.method == "GET":
        return 200, _GIF, _PIXEL
    if len(reply.items) == 1 and len(reply.items[0]) == 1 and reply.fates[0] == "accepted":
        (outcome,) = reply.items[0]
        if not (outcome.notes or outcome.signals) and outcome.reason is None:
            return 200, b"%b%b%b" % (_ONE_ACCEPTED[0], _encoder.encode(outcome.event_id), _ONE_ACCEPTED[1]), _JSON
    return 200, _encoder.encode(_body(reply, hit.source)), _JSON


#: What most hits are answered, around the event id; the general way gives the same bytes.
_ONE_ACCEPTED = (
    b'{"accepted":1,"merged":0,"duplicate":0,"dropped":0,"rejected":0,"events":[{"event_id":',
    b',"outcome":"accepted","reason":null}]}',
)


def _body(reply: Reply, source: Source) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(FATES, 0)
    for fate in reply.fates:
        counts[fate] += 1
    counts["events"] = [
        _event(outcomes, fate, message, detailed=source.is_server)
        for outcomes, fate, message in zip(reply.items, reply.fates, reply.messages, strict=True)
    ]
    return counts


def _event(outcomes: tuple[Outcome, ...], fate: str, message: str, *, detailed: bool) -> dict[str, Any]:
    best = next((outcome for outcome in outcomes if outcome.fate == fate), outcomes[0])
    event: dict[str, Any] = {"event_id": best.event_id, "outcome": fate, "reason": best.reason}
    if best.of is not None:
        event["of"] = best.of
    if message:
        event["message"] = message
    if best.notes:
        event["notes"] = best.notes
    if detailed and best.signals:  # a page is not told what others know of its visitor
        event["signals"] = best.signals
    if detailed and best.missed:
        event["missed"] = best.missed
    if len(outcomes) > 1:
        event["destinations"] = [
            {"destination": one.destination, "outcome": one.fate, "reason": one.reason, "of": one.of}
            for one in outcomes
        ]
    return event


def _first_error(reply: Reply) -> dict[str, str]:
    outcome = reply.items[0][0]
    message = reply.messages[0] or "The event cannot be read."
    return {
        "code": outcome.reason or "invalid",
        "message": message,
        "hint": "See docs/event.md for the fields of an event.",
    }


def _error(code: str, message: str, hint: str) -> bytes:
    return _encoder.encode({"error": {"code": code, "message": message, "hint": hint}})


def _describe(line: dict[str, Any], reply: Reply) -> None:
    if len(reply.items) == 1 and len(reply.items[0]) == 1:
        (outcome,) = reply.items[0]
        line["events"], line[outcome.fate] = 1, 1
        line["ids"] = [outcome.event_id] if outcome.event_id else []
        if outcome.reason:
            line["reasons"] = [outcome.reason]
        return
    line["events"] = len(reply.items)
    ids: list[str] = []
    reasons: list[str] = []
    for outcomes, fate in zip(reply.items, reply.fates, strict=True):
        line[fate] = line.get(fate, 0) + 1
        for outcome in outcomes:
            if outcome.reason and outcome.reason not in reasons:
                reasons.append(outcome.reason)
        if outcomes and outcomes[0].event_id and len(ids) < _LOGGED_IDS:
            ids.append(outcomes[0].event_id)
    line["ids"] = ids
    if reasons:
        line["reasons"] = reasons


async def _send(send: Send, status: int, headers: list[Header], body: bytes, *, without_body: bool) -> None:
    if status not in (204, 304):  # which have no content, and so no length: RFC 9110, 8.6
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if without_body else body})


def public_app(ingress: Ingress, ready: Callable[[], Awaitable[str | None]]) -> ASGIApp:
    """
    Return the public app; ``ready`` returns why the store cannot be written, None when it can.

    Hits go to the ingress directly: the framework's routing would cost as much as reading them.
    """

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problem = await ready()
        return PlainTextResponse("ok\n" if problem is None else f"{problem}\n", 200 if problem is None else 503)

    async def nothing_here(_request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        code, message = ("not_found", "There is nothing here.") if status == 404 else ("method_not_allowed", "Use GET.")
        return Response(_error(code, message, "Hits go to /in/NAME."), status, media_type="application/json")

    others = Starlette(
        routes=[StarletteRoute("/livez", livez), StarletteRoute("/readyz", readyz)],
        exception_handlers={404: nothing_here, 405: nothing_here},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/in/"):
            await ingress(scope, receive, send)
        else:
            await others(scope, receive, send)

    return app
