"""What the operator asks of audiences, by the API or on a page: the same rules for both."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gateway.audience import AudienceError, Group
from gateway.audiences import Audiences, Progress
from gateway.audiences.jobs import Tell
from gateway.audiences.wiring import Mirror
from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.oauth import OAuth
from gateway.operator.audience_calls import (
    AccountQuery,
    ConnectQuery,
    DisconnectQuery,
    LoginQuery,
    LookalikeQuery,
    SyncQuery,
)
from gateway.operator.callback import callback_of
from gateway.runtime import Gateway

_POLL_S = 0.2


class Begun(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    The answer to a wish to log in: the address to open, with the state by which the login is known; or nothing to do
    (``url`` None), with what is wrong with credentials that no login can mend in ``problem``.
    """

    url: str | None = None
    problem: str | None = None
    state: str = ""
    redirect_uri: str = ""


class Desk:
    """
    Takes the operator's wishes. What takes longer is a job, whose id is returned.

    See :class:`gateway.audiences.jobs.Jobs`.

    Every method raises :class:`AudienceError` or :class:`ConfigError` when an operator must mend something first.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def mirror(self) -> Mirror:
        """The engine's life."""
        return self._gateway.audiences

    async def begin_login(self, query: LoginQuery) -> Begun:
        """Begin a login, where the credentials do not work already; without OAuth say what is wrong with them."""
        name, plugged = query.name, self.mirror.plugged
        everything = {**plugged.sources, **plugged.sinks}
        if name in plugged.sources and name in plugged.sinks:
            raise ConfigError(f"'{name}' is a source and a sink: give one of the tables another name, with type.")
        one = everything[named(everything, name, "source or sink")]
        oauth = oauth_of(one)
        problem = await one.probe() if oauth is None or not query.again else None
        if oauth is None or (problem is None and not query.again):
            return Begun(problem=problem)
        redirect_uri = callback_of(self._gateway.parts.config)
        url, state = self.mirror.logins.begin(oauth, redirect_uri)
        return Begun(url=url, state=state, redirect_uri=redirect_uri)

    async def answer(self, url: str) -> None:
        """Take the address on which the browser ended."""
        found = parse_qs(urlsplit(url.strip()).query)
        state, code, refusal = (found.get(name, [""])[0] for name in ("state", "code", "error"))
        problem = await self.mirror.logins.answer(state, code, refusal)
        if problem is not None:
            raise AudienceError(problem)

    async def choose(self, query: AccountQuery) -> Group:
        """Choose an account of a sink."""
        sink = named(self.mirror.plugged.sinks, query.sink, "sink")
        found = await self.mirror.accounts.of(sink, query.account)
        self.mirror.accounts.choose(sink, found.id)
        return found

    async def connect(self, query: ConnectQuery) -> str:
        """Connect a list or segment to an audience: a job."""
        plugged = self.mirror.plugged
        engine = await self.mirror.engine()
        source = named(plugged.sources, query.source, "source")
        sink = named(plugged.sinks, query.sink, "sink")

        async def work(_tell: Tell) -> Any:
            account = await self.mirror.accounts.of(sink, query.account)
            return await engine.connect(
                source, query.kind, query.group, sink, account.id, query.audience, query.create,
                remove=query.remove, dry_run=query.dry_run,
            )  # fmt: skip

        return self._start(work)

    async def disconnect(self, query: DisconnectQuery) -> str:
        """End a connection: a job."""
        engine = await self.mirror.engine()

        async def work(_tell: Tell) -> Any:
            await _idle(engine, query.connection)
            await engine.disconnect(query.connection, keep=query.keep)

        return self._start(work)

    async def sync(self, query: SyncQuery) -> str:
        """Run passes: a job."""
        engine = await self.mirror.engine()

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

    async def lookalike(self, query: LookalikeQuery) -> str:
        """Create an audience of people like those of a connection's: a job."""
        engine = await self.mirror.engine()

        async def work(_tell: Tell) -> Any:
            return await engine.create_lookalike(query.connection, query.name, query.country, query.percent)

        return self._start(work)

    def _start(self, work: Callable[[Tell], Awaitable[Any]]) -> str:
        return self.mirror.jobs.start(work)


async def _idle(engine: Audiences, connection: int | None) -> None:
    """Wait while the schedule runs a pass of the connection, or of any."""
    while any(one.state == "running" and connection in (None, one.id) for one in await engine.connections()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_POLL_S)


def oauth_of(one: object) -> OAuth | None:
    """Return the sign-in of a source or sink, None where it has none."""
    found = getattr(one, "login", None)
    return found if isinstance(found, OAuth) else None


def named(these: Mapping[str, Any], name: str | None, what: str) -> str:
    """Return the name that is meant: without one, of the only one there is."""
    if name is not None and name in these:
        return name
    known = ", ".join(sorted(these)) or "none: see docs/audiences.md"
    if name is not None:
        raise ConfigError(f"There is no audience {what} '{name}'. Known are {known}.")
    if len(these) != 1:
        raise ConfigError(f"Name the audience {what}. Known are {known}.")
    return next(iter(these))
