"""The operator's API of audiences: ``/api/audiences`` and below, and the callback of logins."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.audience import AudienceError, Group
from gateway.audiences.wiring import Mirror
from gateway.errors import ConfigError
from gateway.operator.audience_calls import (
    AccountQuery,
    AnswerQuery,
    ConnectQuery,
    DisconnectQuery,
    LoginQuery,
    LookalikeQuery,
    LookQuery,
    SyncQuery,
)
from gateway.operator.audience_desk import Desk, named, oauth_of
from gateway.operator.callback import CALLBACK, page
from gateway.operator.caller import audited
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]


class AudienceApi:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._desk = Desk(gateway)

    @property
    def _mirror(self) -> Mirror:
        return self._gateway.audiences

    async def status(self, _request: Request) -> Response:
        """Give every connection."""
        return _json({"connections": await (await self._mirror.engine()).connections()})

    async def sides(self, _request: Request) -> Response:
        """Give the sources and sinks, and how each is logged in at."""
        plugged = self._mirror.plugged
        return _json(
            {
                side: [_side(name, one) for name, one in these.items()]
                for side, these in (("sources", plugged.sources), ("sinks", plugged.sinks))
            }
        )

    async def groups(self, request: Request) -> Response:
        """Give lists and segments of one source or all."""
        sources = self._mirror.plugged.sources
        name, search = request.query_params.get("source"), request.query_params.get("search", "")
        found: list[tuple[str, Group]] = []
        for source in [named(sources, name, "source")] if name else sources:
            found += [(source, group) for group in await sources[source].groups(search)]
        return _json({"groups": [{"source": source, **_whole(group)} for source, group in found]})

    async def accounts(self, request: Request) -> Response:
        """Give the accounts of one sink or all."""
        sinks, chosen = self._mirror.plugged.sinks, self._mirror.accounts
        name, search = request.query_params.get("sink"), request.query_params.get("search", "").casefold()
        found = []
        for sink in [named(sinks, name, "sink")] if name else sinks:
            groups = await sinks[sink].accounts()
            found += [
                {
                    "sink": sink,
                    **msgspec.structs.asdict(one),
                    "chosen": one.id == chosen.chosen(sink) or len(groups) == 1,
                }
                for one in groups
                if search in f"{one.id} {one.name}".casefold()
            ]
        return _json({"accounts": found})

    async def audiences(self, request: Request) -> Response:
        """Give the audiences of one account."""
        params = request.query_params
        sink = named(self._mirror.plugged.sinks, params.get("sink"), "sink")
        account = await self._mirror.accounts.of(sink, params.get("account", ""))
        groups = await self._mirror.plugged.sinks[sink].groups(account.id, params.get("search", ""))
        return _json({"sink": sink, "account": account, "audiences": list(groups)})

    async def login(self, request: Request) -> Response:
        """Begin a login, where the credentials do not work already; without OAuth say what is wrong with them."""
        begun = await self._desk.begin_login(await _read(request, LoginQuery))
        if begun.url is None:
            return _json({"url": None, "problem": begun.problem})
        return _json(begun)

    async def look(self, request: Request) -> Response:
        """Wait for the end of a login."""
        query = await _read(request, LookQuery)
        return _json(await self._mirror.logins.look(query.state, min(max(query.wait_s, 0.0), 10.0)))

    async def answer(self, request: Request) -> Response:
        """Take the address that the browser was sent to."""
        await self._desk.answer((await _read(request, AnswerQuery)).url)
        return _json({})

    async def callback(self, request: Request) -> Response:
        """Answer the browser that comes back from the vendor's page."""
        query = request.query_params
        state, code, refusal = (query.get(name, "") for name in ("state", "code", "error"))
        return page(await self._mirror.logins.answer(state, code, refusal))

    async def account(self, request: Request) -> Response:
        """Choose an account."""
        return _json({"account": await self._desk.choose(await _read(request, AccountQuery))})

    async def connect(self, request: Request) -> Response:
        """Connect a list or segment to an audience: a job."""
        return _begun(await self._desk.connect(await _read(request, ConnectQuery)))

    async def disconnect(self, request: Request) -> Response:
        """End a connection: a job."""
        return _begun(await self._desk.disconnect(await _read(request, DisconnectQuery)))

    async def sync(self, request: Request) -> Response:
        """Run passes: a job."""
        return _begun(await self._desk.sync(await _read(request, SyncQuery)))

    async def lookalike(self, request: Request) -> Response:
        """Create an audience of people like those of a connection's: a job."""
        return _begun(await self._desk.lookalike(await _read(request, LookalikeQuery)))

    async def job(self, request: Request) -> Response:
        """Tell how far a job is."""
        try:
            wait_s = float(request.query_params.get("wait_s", "0"))
        except ValueError:
            raise ValueError("wait_s must be a number of seconds.") from None
        return _json(await self._mirror.jobs.look(request.path_params["job"], wait_s))


def audience_routes(gateway: Gateway, guarded: Callable[[Handler], Handler]) -> list[Route]:
    """Return the routes; ``guarded`` turns errors into answers."""
    api = AudienceApi(gateway)
    get, post = partial(_route, guarded, "GET"), partial(_route, guarded, "POST")

    def change(path: str, handler: Handler) -> Route:
        what = f"audience_{path.removeprefix('/')}"
        return post(path, audited(gateway.audit, what, None, _refusing(handler)))

    return [
        get("", api.status),
        get("/sides", api.sides),
        get("/groups", api.groups),
        get("/accounts", api.accounts),
        get("/audiences", api.audiences),
        get("/jobs/{job}", api.job),
        change("/login", api.login),
        post("/login/look", api.look),
        post("/login/answer", api.answer),
        change("/account", api.account),
        change("/connect", api.connect),
        change("/disconnect", api.disconnect),
        change("/sync", api.sync),
        change("/lookalike", api.lookalike),
        Route(CALLBACK, api.callback, methods=["GET"]),
    ]


def _route(guarded: Callable[[Handler], Handler], method: str, path: str, handler: Handler) -> Route:
    return Route(f"/api/audiences{path}", guarded(_refusing(handler)), methods=[method])


def _refusing(handler: Handler) -> Handler:
    """Answer what an operator must mend as a refusal: asking again would not help."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (AudienceError, ConfigError) as error:
            return _json({"error": {"code": "refused", "message": str(error), "hint": ""}}, 409)

    return answer


def _side(name: str, one: Any) -> dict[str, Any]:
    return {"name": name, "type": one.type, "oauth": oauth_of(one) is not None}


def _begun(job: str) -> Response:
    return _json({"job": job}, 202)


async def _read(request: Request, kind: Any) -> Any:
    return msgspec.json.decode(await request.body() or b"{}", type=kind)


def _whole(value: Any) -> Any:
    """Return what a Struct says, with what it leaves at its default."""
    if isinstance(value, msgspec.Struct):
        return {name: _whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _whole(one) for name, one in value.items()}
    return value


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(_whole(value)), status, {"Cache-Control": "no-store"}, "application/json")
