"""
The public app: ``/in/{source}`` (hits, and files of adapters), ``/livez``, ``/readyz``.

An ASGI class, not Request and Response objects: half of what a hit costs is spent around our own code.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.answers import (
    JSON,
    answer,
    cors_of,
    describe,
    error_body,
    preflight,
    rejection,
    retry_after,
    unavailability,
    write,
)
from gateway.assets import FILE_METHODS, Assets, Header
from gateway.captures import Captures
from gateway.deadline import Deadline
from gateway.errors import Rejected, Unavailable
from gateway.hit import Hit
from gateway.isolation import Guard
from gateway.logs import HitLog
from gateway.overload import Budget, Overloaded, Share
from gateway.pipeline import Pipeline, Reply, Route
from gateway.quarantine import Quarantine
from gateway.ratelimit import RateLimit, TooManyHits
from gateway.replaying import take
from gateway.tally import Tally

#: The whole body must arrive in this time.
BODY_DEADLINE_S = 10.0
#: A hit is answered at most so long after its body was there, and a step: Shopify gives up after 5 s.
PATIENCE_S, PATIENCE_STEP_S = 3.0, 0.25
_log = logging.getLogger("gateway.ingress")


class Wiring:
    """What a reload replaces: routes by source name, the pipeline behind them, and what it cannot read."""

    def __init__(self, routes: Mapping[str, Route], pipeline: Pipeline, quarantine: Quarantine | None = None) -> None:
        self.routes = routes
        self.pipeline = pipeline
        self.quarantine = quarantine


class Ingress:
    """
    Takes hits.

    Args:
        wiring: Returns the current wiring.
        clock: Wall time, Unix seconds.
        guard: Isolates strangers' adapters where a file of theirs is asked for.
        budget: What requests under way may take. ``rate_limit`` bounds the hits of one address.
        captures: Takes the next hit of a source that an operator watches.
        answered: Called with source, status, and why the hit as a whole was refused, after each answer was made.
    """

    def __init__(
        self,
        wiring: Callable[[], Wiring],
        clock: Callable[[], float],
        tally: Tally,
        log: HitLog,
        guard: Guard,
        budget: Budget,
        rate_limit: RateLimit,
        captures: Captures | None = None,
        answered: Callable[[str, int, str | None], None] = lambda _source, _status, _refusal: None,
    ) -> None:
        self._wiring = wiring
        self._clock = clock
        self._tally = tally
        self._log = log
        self._assets = Assets(guard)
        self._budget = budget
        self._rate_limit = rate_limit
        self._captures = captures or Captures(clock)
        self._watched = self._captures.watched
        self._answered = answered
        self._patience = Deadline(PATIENCE_S, PATIENCE_STEP_S)

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
            cors = cors_of(route, headers)
            method = scope["method"]
            if method == "OPTIONS":
                status, body, extra = preflight(route, headers)
            elif tail and method in FILE_METHODS and (file := await self._assets.answer(route, tail, headers)):
                status, body, extra = file
            else:
                client = scope.get("client")
                peer = client[0] if client else None
                if not route.source.secrets:
                    self._rate_limit.check(name, peer, headers)
                share = self._budget.enter(route.source)
                try:
                    hit = await self._hit(route, f"/{tail}" if tail else "", headers, scope, receive, peer, share)
                    self._budget.screen(hit)
                    reply = await self._reply(wiring, route, hit)
                finally:
                    share.leave()
                status, body, extra = answer(hit, reply)
                describe(line, reply)
        except Rejected as error:
            status, body, extra = rejection(error, route)
            line["reason"] = error.reason
            if isinstance(error, TooManyHits):
                self._tally.shed[(line["source"], "rate")] += 1
            if error.cause:
                line["cause"] = error.cause
                self._tally.refusals[(line["source"], error.cause)] += 1
        except Unavailable as error:
            status, body, extra = unavailability(error)
            line["reason"] = error.reason
            if isinstance(error, Overloaded):
                line["cause"] = error.why
                self._tally.shed[(line["source"], error.why)] += 1
        except Exception as error:  # a bug of ours: the sender must try again, and an operator must hear of it
            _log.exception("hit_failed", extra={"source": line["source"], "error": type(error).__name__})
            status, extra = 503, [*JSON, retry_after(30)]
            body = error_body("internal", "The gateway failed; nothing was accepted.", "Send it again later.")
        self._tally.hits[(line["source"], str(status))] += 1
        self._answered(line["source"], status, line.get("reason"))
        line["status"] = status
        line["ms"] = round((time.perf_counter() - started) * 1000, 2)
        self._log.write(line)
        await write(send, status, [*extra, *cors], body, without_body=scope["method"] == "HEAD")

    async def _reply(self, wiring: Wiring, route: Route, hit: Hit) -> Reply:
        """
        Have the hit dealt with, in bounded time.

        Raises:
            Overloaded: It took too long: an enricher, the memory or the disk. Was it still waiting to be written, it is
                taken back; while it is being written nobody can know, and the sender must repeat it.
        """
        seen = self._captures.take(hit) if route.source.name in self._watched else None
        task = self._patience.start()
        cancelled = False
        try:
            reply = await take(wiring.pipeline, wiring.quarantine, route, hit)
        except asyncio.CancelledError:
            cancelled = True
            raise
        else:
            if seen is not None:
                seen.reply = reply
            return reply
        finally:
            if self._patience.stop(task, cancelled=cancelled):
                raise Overloaded("time", "The hit could not be dealt with in time.")

    async def _hit(
        self,
        route: Route,
        tail: str,
        headers: dict[str, str],
        scope: Scope,
        receive: Receive,
        peer: str | None,
        share: Share,
    ) -> Hit:
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
        return Hit(
            source=route.source,
            method=method,
            tail=tail,
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=b"" if method == "GET" else await read_body(receive, headers, route.max_bytes, share),
            peer=peer,
            received_at=self._clock(),
        )


_deadline = Deadline(BODY_DEADLINE_S)


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int, share: Share) -> bytes:
    """
    Read the body, counting the bytes that really arrive.

    Raises:
        Overloaded: The bodies under way take too much memory already.
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
            share.grow(len(part))
            parts.append(part)
            if not message.get("more_body", False):
                return part if len(parts) == 1 else b"".join(parts)
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        if _deadline.stop(task, cancelled=cancelled):
            raise Rejected("slow_body", f"The body did not arrive in {_deadline.seconds:g} s.", status=408)


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
        return Response(error_body(code, message, "Hits go to /in/NAME."), status, media_type="application/json")

    others = Starlette(
        routes=[StarletteRoute("/livez", livez), StarletteRoute("/readyz", readyz)],
        exception_handlers={404: nothing_here, 405: nothing_here},
    )
    others.router.redirect_slashes = False  # it would build an address of the Host that the sender names

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/in/"):
            await ingress(scope, receive, send)
        else:
            await others(scope, receive, send)

    return app
