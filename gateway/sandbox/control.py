"""The sandbox's own HTTP routes: a page that sums it up, what it received, and its script of faults.

::

    POST   /_sandbox/faults  {"faults": [Fault, …], "standing": bool?}   queued, or standing until cleared
    DELETE /_sandbox/faults  drops every fault and releases every hanging call
    PUT    /_sandbox/token   {"valid": bool, "token": str?}   no token: revokes all, restores the configured
    POST   /_sandbox/reset   back to the start
    GET    /_sandbox/events  ?limit=100&name=&test=   the newest kept events, oldest first: {"events": […]}
    GET    /_sandbox/counts  numbers
    GET    /_sandbox/ids     ?ad_account_id=   {"event_name event_id": copies}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.sandbox.faults import Fault

if TYPE_CHECKING:
    from gateway.sandbox.pinterest import PinterestSandbox

T = TypeVar("T")


class FaultsBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/faults`."""

    faults: list[Fault]
    standing: bool = False


class TokenBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Body of `PUT /_sandbox/token`."""

    valid: bool
    token: str | None = None


def control_routes(sandbox: PinterestSandbox) -> Sequence[Route]:
    """Return the routes that control and show this sandbox."""
    control = _Control(sandbox)
    return [
        Route("/", control.summary),
        Route("/_sandbox/faults", control.add_faults, methods=["POST"]),
        Route("/_sandbox/faults", control.clear_faults, methods=["DELETE"]),
        Route("/_sandbox/token", control.set_token, methods=["PUT"]),
        Route("/_sandbox/reset", control.reset, methods=["POST"]),
        Route("/_sandbox/events", control.events),
        Route("/_sandbox/counts", control.counts),
        Route("/_sandbox/ids", control.ids),
    ]


def numbers(sandbox: PinterestSandbox) -> dict[str, Any]:
    """Return every count of the sandbox: those of the record, of `?test=true`, of answers and of faults."""
    record, faults = sandbox.record, sandbox.faults
    return {
        **msgspec.structs.asdict(record.counts),
        "calls": record.calls,
        "answers": {str(status): count for status, count in sorted(record.answers.items())},
        "refusals": list(record.refusals)[-10:],
        "tests": msgspec.structs.asdict(sandbox.tests.counts),
        "faults": {"queued": faults.queued, "standing": len(faults.standing), "hanging": faults.hanging},
    }


class _Control:
    def __init__(self, sandbox: PinterestSandbox) -> None:
        self._sandbox = sandbox

    async def summary(self, request: Request) -> Response:  # noqa: ARG002 -- the signature of a Starlette endpoint
        counts = numbers(self._sandbox)
        shown = ("calls", "received", "processed", "failed", "unique", "duplicate", "offline")
        lines = "\n".join(f"  {name:<10} {counts[name]}" for name in shown)
        names = "\n".join(f"  {name:<22} {count}" for name, count in sorted(counts["by_name"].items()))
        return PlainTextResponse(
            "Local stand-in of the Pinterest Conversions API. Nothing here leaves this machine.\n\n"
            f"Events and calls\n{lines}\n\nConversions by name\n{names or '  none yet'}\n\n"
            "More: GET /_sandbox/events, /_sandbox/counts, /_sandbox/ids, /_sandbox/calls\n"
        )

    async def add_faults(self, request: Request) -> Response:
        body = await _decoded(request, FaultsBody)
        if isinstance(body, Response):
            return body
        faults = self._sandbox.faults
        (faults.stand if body.standing else faults.queue)(*body.faults)
        return _json({"queued": faults.queued, "standing": len(faults.standing)})

    async def clear_faults(self, request: Request) -> Response:  # noqa: ARG002
        self._sandbox.faults.clear()
        return Response(status_code=204)

    async def set_token(self, request: Request) -> Response:
        body = await _decoded(request, TokenBody)
        if isinstance(body, Response):
            return body
        (self._sandbox.restore if body.valid else self._sandbox.revoke)(body.token)
        return Response(status_code=204)

    async def reset(self, request: Request) -> Response:  # noqa: ARG002
        self._sandbox.reset()
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        query = request.query_params
        limit = query.get("limit", "100")
        if not limit.isdecimal():
            return _json({"error": "limit must be a whole number"}, status=400)
        record = self._sandbox.tests if query.get("test") == "true" else self._sandbox.record
        events = record.raw_events(limit=int(limit), name=query.get("name") or None)
        return Response(b'{"events":[' + b",".join(events) + b"]}", media_type="application/json")

    async def counts(self, request: Request) -> Response:  # noqa: ARG002
        return _json(numbers(self._sandbox))

    async def ids(self, request: Request) -> Response:
        return _json(self._sandbox.record.ids(request.query_params.get("ad_account_id")))


async def _decoded(request: Request, kind: type[T]) -> T | Response:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        return _json({"error": str(error)}, status=400)


def _json(content: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json")
