"""The operator's API of audiences: ``/api/audiences`` and below, and the callback of logins."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.audience import AudienceError, Group
from gateway.audiences import Audiences, Progress
from gateway.audiences.jobs import Tell
from gateway.audiences.wiring import Mirror
from gateway.errors import ConfigError
from gateway.oauth import OAuth
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
from gateway.operator.callback import CALLBACK, callback_of, page
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]
_POLL_S = 0.2


class AudienceApi:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

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
        for source in [_named(sources, name, "source")] if name else sources:
            found += [(source, group) for group in await sources[source].groups(search)]
        return _json({"groups": [{"source": source, **_whole(group)} for source, group in found]})

    async def accounts(self, request: Request) -> Response:
        """Give the accounts of one sink or all."""
        sinks, chosen = self._mirror.plugged.sinks, self._mirror.accounts
        name, search = request.query_params.get("sink"), request.query_params.get("search", "").casefold()
        found = []
        for sink in [_named(sinks, name, "sink")] if name else sinks:
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
        sink = _named(self._mirror.plugged.sinks, params.get("sink"), "sink")
        account = await self._mirror.accounts.of(sink, params.get("account", ""))
        groups = await self._mirror.plugged.sinks[sink].groups(account.id, params.get("search", ""))
        return _json({"sink": sink, "account": account, "audiences": list(groups)})

    async def login(self, request: Request) -> Response:
        """Begin a login, where the credentials do not work already; without OAuth say what is wrong with them."""
        query = await _read(request, LoginQuery)
        name = query.name
        plugged = self._mirror.plugged
        everything = {**plugged.sources, **plugged.sinks}
        if name in plugged.sources and name in plugged.sinks:
            raise ConfigError(f"'{name}' is a source and a sink: give one of the tables another name, with type.")
        one = everything[_named(everything, name, "source or sink")]
        oauth = _oauth(one)
        problem = await one.probe() if oauth is None or not query.again else None
        if oauth is None or (problem is None and not query.again):
            return _json({"url": None, "problem": problem})
        redirect_uri = callback_of(self._gateway.parts.config)
        url, state = self._mirror.logins.begin(oauth, redirect_uri)
        return _json({"url": url, "problem": None, "state": state, "redirect_uri": redirect_uri})

    async def look(self, request: Request) -> Response:
        """Wait for the end of a login."""
        query = await _read(request, LookQuery)
        return _json(await self._mirror.logins.look(query.state, min(max(query.wait_s, 0.0), 10.0)))

    async def answer(self, request: Request) -> Response:
        """Take the address that the browser was sent to."""
        found = parse_qs(urlsplit((await _read(request, AnswerQuery)).url.strip()).query)
        state, code, refusal = (found.get(name, [""])[0] for name in ("state", "code", "error"))
        problem = await self._mirror.logins.answer(state, code, refusal)
        if problem is not None:
            raise AudienceError(problem)
        return _json({})

    async def callback(self, request: Request) -> Response:
        """Answer the browser that comes back from the vendor's page."""
        query = request.query_params
        state, code, refusal = (query.get(name, "") for name in ("state", "code", "error"))
        return page(await self._mirror.logins.answer(state, code, refusal))

    async def account(self, request: Request) -> Response:
        """Choose an account."""
        query = await _read(request, AccountQuery)
        sink = _named(self._mirror.plugged.sinks, query.sink, "sink")
        found = await self._mirror.accounts.of(sink, query.account)
        self._mirror.accounts.choose(sink, found.id)
        return _json({"account": found})

    async def connect(self, request: Request) -> Response:
        """Connect a list or segment to an audience: a job."""
        query = await _read(request, ConnectQuery)
        plugged = self._mirror.plugged
        engine = await self._mirror.engine()
        source = _named(plugged.sources, query.source, "source")
        sink = _named(plugged.sinks, query.sink, "sink")

        async def work(_tell: Tell) -> Any:
            account = await self._mirror.accounts.of(sink, query.account)
            return await engine.connect(
                source, query.kind, query.group, sink, account.id, query.audience, query.create,
                remove=query.remove, dry_run=query.dry_run,
            )  # fmt: skip

        return self._start(work)

    async def disconnect(self, request: Request) -> Response:
        """End a connection: a job."""
        query = await _read(request, DisconnectQuery)
        engine = await self._mirror.engine()

        async def work(_tell: Tell) -> Any:
            await _idle(engine, query.connection)
            await engine.disconnect(query.connection, keep=query.keep)

        return self._start(work)

    async def sync(self, request: Request) -> Response:
        """Run passes: a job."""
        query = await _read(request, SyncQuery)
        engine = await self._mirror.engine()

        async def work(tell: Tell) -> Any:
            latest: dict[int, Progress] = {}

            def note(progress: Progress) -> None:
                latest[progress.connection] = progress
                tell(list(latest.values()))

            await _idle(engine, query.connection)
            return await engine.sync(
                query.connection, full=query.full, dry_run=query.dry_run, confirm=query.confirm, progress=note
            )

        return self._start(work)

    async def lookalike(self, request: Request) -> Response:
        """Create an audience of people like those of a connection's: a job."""
        query = await _read(request, LookalikeQuery)
        engine = await self._mirror.engine()

        async def work(_tell: Tell) -> Any:
            return await engine.create_lookalike(query.connection, query.name, query.country, query.percent)

        return self._start(work)

    def _start(self, work: Callable[[Tell], Awaitable[Any]]) -> Response:
        return _json({"job": self._mirror.jobs.start(work)}, 202)

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
    return [
        get("", api.status),
        get("/sides", api.sides),
        get("/groups", api.groups),
        get("/accounts", api.accounts),
        get("/audiences", api.audiences),
        get("/jobs/{job}", api.job),
        post("/login", api.login),
        post("/login/look", api.look),
        post("/login/answer", api.answer),
        post("/account", api.account),
        post("/connect", api.connect),
        post("/disconnect", api.disconnect),
        post("/sync", api.sync),
        post("/lookalike", api.lookalike),
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


async def _idle(engine: Audiences, connection: int | None) -> None:
    """Wait while the schedule runs a pass of the connection, or of any."""
    while any(one.state == "running" and connection in (None, one.id) for one in await engine.connections()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_POLL_S)


def _side(name: str, one: Any) -> dict[str, Any]:
    return {"name": name, "type": one.type, "oauth": _oauth(one) is not None}


def _oauth(one: object) -> OAuth | None:
    found = getattr(one, "login", None)
    return found if isinstance(found, OAuth) else None


def _named(these: Mapping[str, Any], name: str | None, what: str) -> str:
    """Return the name that is meant: without one, of the only one there is."""
    if name is not None and name in these:
        return name
    known = ", ".join(sorted(these)) or "none: see docs/audiences.md"
    if name is not None:
        raise ConfigError(f"There is no audience {what} '{name}'. Known are {known}.")
    if len(these) != 1:
        raise ConfigError(f"Name the audience {what}. Known are {known}.")
    return next(iter(these))


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
