"""The operator's API of the quarantine: ``/api/quarantine`` and below. It shows what failed, never what is kept."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator.caller import audited
from gateway.quarantine import Kept
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]
_MOST = 1_000
#: So many hits are read again in one call: each is a commit.
MOST_REPLAYED = 50


class KeptQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which hits: of one source, of these ids; neither: all. ``after`` goes on behind an id of an earlier answer."""

    ids: tuple[str, ...] = ()
    source: str | None = None
    after: str = ""
    dry_run: bool = False


class QuarantineApi:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _chosen(self, query: KeptQuery) -> list[Kept]:
        found = self._gateway.quarantine.listing(query.source, query.ids)
        return [one for one in found if one.id > query.after]

    async def show(self, request: Request) -> Response:
        """List hits, a page at a time, oldest first."""
        params = dict(request.query_params)
        limit = params.pop("limit", "100")
        if not limit.isdigit() or not 1 <= int(limit) <= _MOST:
            raise ValueError(f"limit must be a whole number from 1 to {_MOST}.")
        found = self._chosen(msgspec.convert(params, KeptQuery, strict=False))
        page = found[: int(limit)]
        return _json({"hits": page, "left": len(found) - len(page), "after": page[-1].id if page else None})

    async def replay(self, request: Request) -> Response:
        """Read hits again, oldest first, some at a time."""
        query = await _read(request)
        found = self._chosen(query)
        if query.dry_run:
            return _json({"would_replay": len(found)})
        page = found[:MOST_REPLAYED]
        results = [await self._gateway.replays.replay(one.id) for one in page]
        return _json({"results": results, "left": len(found) - len(page), "after": page[-1].id if page else None})

    async def discard(self, request: Request) -> Response:
        """Delete hits."""
        query = await _read(request)
        found = self._chosen(query)
        if query.dry_run:
            return _json({"would_discard": len(found)})
        try:
            return _json({"discarded": await self._gateway.quarantine.remove([one.id for one in found], "discarded")})
        except OSError as error:
            message = f"A file of the quarantine cannot be deleted ({error.strerror})."
            return _json({"error": {"code": "failed", "message": message, "hint": "See its folder's owner."}}, 503)


def quarantine_routes(gateway: Gateway, guarded: Callable[[Handler], Handler]) -> list[Route]:
    """Return the routes; ``guarded`` turns errors into answers."""
    api = QuarantineApi(gateway)

    def change(what: str, key: str, handler: Handler) -> Handler:
        return audited(gateway.audit, what, key, guarded(handler))

    return [
        Route("/api/quarantine", guarded(api.show), methods=["GET"]),
        Route("/api/quarantine/replay", change("quarantine_replay", "results", api.replay), methods=["POST"]),
        Route("/api/quarantine/discard", change("quarantine_discard", "discarded", api.discard), methods=["POST"]),
    ]


async def _read(request: Request) -> KeptQuery:
    return msgspec.json.decode(await request.body() or b"{}", type=KeptQuery)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store"}, "application/json")
