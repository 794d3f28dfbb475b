"""The operator's JSON API and ``/metrics``."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from gateway.errors import ConfigError, GatewayError
from gateway.explain import explain, mask, read_capture
from gateway.exports import export
from gateway.hit import Secret
from gateway.operator import persons
from gateway.operator.alarms import alarm_routes
from gateway.operator.audiences import audience_routes
from gateway.operator.caller import audited
from gateway.operator.events import event_routes
from gateway.operator.guard import Guard, is_for_reader
from gateway.operator.imports import import_rows
from gateway.operator.pages import Pages, page_routes
from gateway.operator.passwords import Passwords
from gateway.operator.persons import PersonQuery
from gateway.operator.quarantine import quarantine_routes
from gateway.operator.sessions import Sessions
from gateway.operator.status import Status, audience_metrics, queue_metrics, status_of
from gateway.operator.throttle import Throttle
from gateway.operator.vitals import health_routes
from gateway.outbox import DeadFilter, DeadLetter
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]


class DeadQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters; ``dry_run`` only counts."""

    units: tuple[str, ...] = ()
    destination: str | None = None
    reason: str | None = None
    event_name: str | None = None
    source: str | None = None
    dry_run: bool = False

    def filter(self) -> DeadFilter:
        """Return the store's filter."""
        return DeadFilter(
            units=self.units,
            destination=self.destination,
            reason=self.reason,
            event_name=self.event_name,
            source=self.source,
        )


class ExportQuery(PersonQuery, forbid_unknown_fields=True):
    """Whose data to export, and where to: a path on the server's machine, none for a new file beside the store."""

    output: str | None = None


class ExplainQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A captured request in base64 and the source to read it for."""

    source: str
    capture: str
    verify: bool = True


class BackupQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Where to write the copy: a path on the server's machine."""

    path: str


class SalvageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A damaged store: a path, relative to the store's folder. ``acknowledge``: read nothing."""

    path: str
    acknowledge: bool = False


class Api:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def metrics(self, _request: Request) -> Response:
        """Give Prometheus' text format."""
        counts = await self._gateway.outbox.counts()
        text = generate_latest(self._gateway.tally.registry) + queue_metrics(self._gateway, counts)
        text += audience_metrics(await self._gateway.audiences.connections())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(self, _request: Request) -> Response:
        """Give counts by source, destination, event and fate, the lanes, and the queue."""
        found: Status = await status_of(self._gateway)
        return _json(found)

    async def plugins(self, _request: Request) -> Response:
        """List plugins."""
        return _json(self._gateway.parts.host.listing())

    async def dead_list(self, request: Request) -> Response:
        """List dead letters, a page at a time."""
        params = dict(request.query_params)
        after, limit = params.pop("after", None), params.pop("limit", "100")
        if not limit.isdigit() or not 1 <= int(limit) <= 1_000:
            raise ValueError("limit must be a whole number from 1 to 1000.")
        which = msgspec.convert(params, DeadQuery, strict=False).filter()
        letters = await self._gateway.outbox.dead(which, limit=int(limit), after=after)
        return _json(
            {"letters": [_summary(letter) for letter in letters], "after": letters[-1].unit if letters else None}
        )

    async def dead_show(self, request: Request) -> Response:
        """Show one dead letter, identifiers masked, and what would be sent today."""
        unit = request.path_params["unit"]
        letters = await self._gateway.outbox.dead(DeadFilter(units=(unit,)), limit=1)
        if not letters:
            return _json(
                {"error": {"code": "not_found", "message": "There is no such dead letter.", "hint": "See dead list."}},
                404,
            )
        letter = letters[0]
        destination = self._gateway.parts.destinations.get(letter.destination)
        payload = mask(msgspec.to_builtins(destination.encode(letter.event))) if destination else None
        return _json({**_summary(letter), "event": mask(msgspec.to_builtins(letter.event)), "payload": payload})

    async def dead_replay(self, request: Request) -> Response:
        """Queue dead letters again."""
        query = await _read(request, DeadQuery)
        if query.dry_run:
            return _json({"would_queue": await self._count(query.filter())})
        done = await self._gateway.outbox.replay(query.filter())
        return _json({"queued": done.queued, "duplicates": done.duplicates})

    async def dead_discard(self, request: Request) -> Response:
        """Delete dead letters."""
        query = await _read(request, DeadQuery)
        if query.dry_run:
            return _json({"would_discard": await self._count(query.filter())})
        return _json({"discarded": await self._gateway.outbox.discard(query.filter())})

    async def _count(self, which: DeadFilter) -> int:
        total, after = 0, None
        while letters := await self._gateway.outbox.dead(which, limit=500, after=after):
            total, after = total + len(letters), letters[-1].unit
        return total

    async def erase(self, request: Request) -> Response:
        """Erase what is kept of a person."""
        return _json({"erased": await persons.erase(self._gateway, await _read(request, PersonQuery))})

    async def export(self, request: Request) -> Response:
        """Write what is kept of a person to a file."""
        gateway, query = self._gateway, await _read(request, ExportQuery)
        file = None if query.output is None else Path(query.output)
        try:
            return _json(await export(gateway.outbox, persons.subjects_of(gateway, query), gateway.clock(), file))
        except OSError as error:
            return _json({"error": {"code": "not_written", "message": str(error), "hint": "Choose another file."}}, 400)

    async def backup(self, request: Request) -> Response:
        """Write a consistent copy of the store."""
        query = await _read(request, BackupQuery)
        try:
            size = await self._gateway.outbox.backup(query.path)
        except OSError as error:
            return _json({"error": {"code": "not_written", "message": str(error), "hint": "Choose another file."}}, 400)
        return _json({"path": query.path, "bytes": size})

    async def salvage(self, request: Request) -> Response:
        """Bring back what can be read of a damaged store."""
        query = await _read(request, SalvageQuery)
        return _json(await self._gateway.outbox.salvage(Path(query.path), acknowledge=query.acknowledge))

    async def explain(self, request: Request) -> Response:
        """Explain a captured request."""
        query = await _read(request, ExplainQuery)
        route = self._gateway.parts.routes.get(query.source)
        if route is None:
            known = ", ".join(sorted(self._gateway.parts.routes))
            message = f"There is no source '{query.source}'."
            return _json({"error": {"code": "unknown_source", "message": message, "hint": f"Known are {known}."}}, 404)
        try:
            capture = base64.b64decode(query.capture, validate=True)
        except binascii.Error:
            raise ValueError("capture must be base64.") from None
        hit = read_capture(capture, route, self._gateway.clock())
        return _json(await explain(self._gateway.pipeline, route, hit, verify=query.verify))


async def _read(request: Request, kind: Any) -> Any:
    body = await request.body()
    return msgspec.json.decode(body or b"{}", type=kind)


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "unit": letter.unit, "destination": letter.destination, "reason": letter.reason, "died_at": letter.died_at,
        "attempts": letter.attempts, "maybe_twice": letter.maybe_twice, "event_id": letter.event.event_id,
        "event_name": letter.event.event_name, "event_time": letter.event.event_time, "source": letter.event.source,
    }  # fmt: skip


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store"}, "application/json")


_OUT_OF_RANGE = {
    "error": {"code": "bad_request", "message": "A number or the depth of the body is out of range.", "hint": ""}
}


def _guarded(handler: Handler) -> Handler:
    """Turn a bad call into an error that names the field."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (RecursionError, OverflowError):
            return _json(_OUT_OF_RANGE, 400)
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError, ConfigError) as error:
            return _json(
                {"error": {"code": "bad_request", "message": str(error), "hint": "See docs/operations.md."}}, 400
            )
        except GatewayError as error:
            return _json({"error": {"code": "failed", "message": str(error), "hint": ""}}, 503)

    return answer


def _pages(gateway: Gateway, password: Secret, viewer: Secret | None) -> Pages:
    return Pages(gateway, Passwords(password, viewer), Sessions(gateway.clock), Throttle(gateway.clock))


def _failed(pages: Pages) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return what answers after a fault of ours; the log has it in full."""

    async def answer(request: Request, _error: Exception) -> Response:
        if is_for_reader(request):
            told = "This page has a fault. The gateway goes on taking and sending events; its log says what happened."
            return await pages.problem(request, 500, "Something broke", told)
        return _json({"error": {"code": "failed", "message": "This call has a fault.", "hint": "See the log."}}, 500)

    return answer


async def _nothing_here(request: Request, error: Exception, pages: Pages | None) -> Response:
    status = getattr(error, "status_code", 404)
    if pages is not None and status == 404 and is_for_reader(request):
        told = "The address is wrong, or what it led to is gone."
        return await pages.problem(request, 404, "There is nothing here", told)
    code, message = ("not_found", "There is nothing here.")
    if status == 405:
        code, message = ("method_not_allowed", "This path does not take this method.")
    answer = _json({"error": {"code": code, "message": message, "hint": "See docs/openapi.yaml."}}, status)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def operator_app(gateway: Gateway, password: Secret | None = None, viewer: Secret | None = None) -> ASGIApp:
    """Return the operator's app, behind a password when one is given."""
    api = Api(gateway)
    pages = None if password is None else _pages(gateway, password, viewer)

    def _audited(what: str, key: str | None, handler: Handler, *, streams: bool = False) -> Handler:
        return audited(gateway.audit, what, key, _guarded(handler), streams=streams)

    async def nothing_here(request: Request, error: Exception) -> Response:
        return await _nothing_here(request, error, pages)

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def imports(request: Request) -> Response:
        return await import_rows(gateway, request)

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/metrics", _guarded(api.metrics)),
            Route("/api/status", _guarded(api.status)),
            Route("/api/plugins", _guarded(api.plugins)),
            Route("/api/dead", _guarded(api.dead_list)),
            Route("/api/dead/replay", _audited("replay", "queued", api.dead_replay), methods=["POST"]),
            Route("/api/dead/discard", _audited("discard", "discarded", api.dead_discard), methods=["POST"]),
            Route("/api/dead/{unit}", _guarded(api.dead_show)),
            Route("/api/erase", _audited("erase", "erased", api.erase), methods=["POST"]),
            Route("/api/export", _audited("export", None, api.export), methods=["POST"]),
            Route("/api/backup", _audited("backup", None, api.backup), methods=["POST"]),
            Route("/api/salvage", _audited("salvage", None, api.salvage), methods=["POST"]),
            Route("/api/explain", _guarded(api.explain), methods=["POST"]),
            Route("/api/import/{source}", _audited("import", "fates", imports, streams=True), methods=["POST"]),
            *audience_routes(gateway, _guarded),
            *quarantine_routes(gateway, _guarded),
            *alarm_routes(gateway, _guarded),
            *event_routes(gateway, _guarded),
            *health_routes(gateway, _guarded),
            *(page_routes(pages) if pages is not None else []),
            Mount("/plugins", routes=[route for _, route in gateway.parts.host.routes]),
            # commands hand hits in through the control socket; on TCP there is the public listener
            *([] if password is not None else [Route("/in/{rest:path}", gateway.ingress)]),
        ],
        exception_handlers={404: nothing_here, 405: nothing_here, **({500: _failed(pages)} if pages else {})},
    )
    app.router.redirect_slashes = False  # it would build an address of the Host that the sender names
    if pages is None:
        return app
    return Guard(app, gateway, pages.passwords, pages.sessions, pages.throttle, pages.problem)
