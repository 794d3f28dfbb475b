"""``/api/alarms``: what is wrong now, and that somebody has taken note of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator.caller import noted
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]


class AlarmQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which alarm, by its id."""

    id: str


def alarm_routes(gateway: Gateway, guarded: Callable[[Handler], Handler]) -> list[Route]:
    """Return the routes; ``guarded`` turns errors into answers."""

    async def show(_request: Request) -> Response:
        await gateway.watch.fresh()
        return _json({"alarms": gateway.alarms.active(), "are_sent": gateway.parts.alerts.url is not None})

    async def acknowledge(request: Request) -> Response:
        query = msgspec.json.decode(await request.body() or b"{}", type=AlarmQuery)
        await gateway.watch.fresh()
        if not gateway.alarms.acknowledge(query.id):
            message = "There is no such alarm: it may be over."
            return _json({"error": {"code": "not_found", "message": message, "hint": "See /api/alarms."}}, 404)
        noted(request, gateway.audit, "acknowledge", 1, query.id)
        await gateway.watch.save()
        return _json({"acknowledged": query.id})

    return [
        Route("/api/alarms", guarded(show), methods=["GET"]),
        Route("/api/alarms/acknowledge", guarded(acknowledge), methods=["POST"]),
    ]


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store"}, "application/json")
