"""Audiences: connections with their status, passes, logins; connecting is in :mod:`connecting`."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import audience_words as words
from gateway.audience import Group
from gateway.audiences import Connected, Status
from gateway.audiences.jobs import JobState
from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.operator.audience_calls import AccountQuery, DisconnectQuery, LoginQuery, LookalikeQuery, SyncQuery
from gateway.operator.audience_desk import Desk, oauth_of
from gateway.operator.pages.choices import Lists
from gateway.operator.pages.connecting import connect_routes
from gateway.operator.pages.framework import Pages

#: Of a connection's state, how it looks.
LOOKS = {"ok": "good", "held": "bad", "attention": "bad", "waiting": "warn", "leaving": "warn"}


class Side(Struct, frozen=True, kw_only=True):
    """
    A source or sink. ``problem``: why its credentials do not work, "" when they do, None while they are tried.
    ``accounts`` of a sink, ``chosen`` the id of the one that is meant.
    """

    name: str
    type: str
    is_sink: bool
    has_login: bool
    problem: str | None
    accounts: tuple[Group, ...] = ()
    chosen: str = ""


class AudiencePages:
    """The pages."""

    def __init__(self, pages: Pages, lists: Lists) -> None:
        self._pages = pages
        self._desk = Desk(pages.gateway)
        self._lists = lists

    async def show(self, request: Request) -> Response:
        """Show every connection, and where one is logged in."""
        mirror = self._desk.mirror
        if not mirror.is_configured:
            return await self._pages.render(request, "audiences.html", connections=(), sides=(), is_configured=False)
        connections = await (await mirror.engine()).connections()
        answer = await self._pages.render(
            request, "audiences.html", connections=connections, sides=await self._sides(), is_configured=True,
            words=words, looks=LOOKS, did=_did,
        )  # fmt: skip
        if any(one.state == "running" for one in connections):
            answer.headers["Refresh"] = "2"
        return answer

    async def _sides(self) -> list[Side]:
        plugged = self._desk.mirror.plugged
        wanted = [(name, one, False) for name, one in plugged.sources.items()]
        wanted += [(name, one, True) for name, one in plugged.sinks.items()]
        return list(await asyncio.gather(*(self._side(*each) for each in wanted)))

    async def _side(self, name: str, one: Any, is_sink: bool) -> Side:
        works, problem = await self._lists.probe("sinks" if is_sink else "sources", name)
        accounts: tuple[Group, ...] = ()
        chosen = ""
        if is_sink and works is not None:
            found, problem = await self._lists.accounts(name)
            accounts = tuple(found or ())
            chosen = self._desk.mirror.accounts.chosen(name) or (accounts[0].id if len(accounts) == 1 else "")
        state = words.on_page(problem) if problem else (None if works is None else "")
        return Side(
            name=name, type=one.type, is_sink=is_sink, has_login=oauth_of(one) is not None, problem=state,
            accounts=accounts, chosen=chosen,
        )  # fmt: skip

    async def connection(self, request: Request) -> Response:
        """Show one connection, and what can be done with it."""
        one = await self._one(request)
        answer = await self._pages.render(
            request, "audience.html", one=one, words=words, looks=LOOKS, did=_did,
            message=words.on_page(one.message),
        )  # fmt: skip
        if one.state == "running":
            answer.headers["Refresh"] = "2"
        return answer

    async def _one(self, request: Request) -> Status:
        number = request.path_params["number"]
        for one in await (await self._desk.mirror.engine()).connections():
            if one.id == number:
                return one
        raise ConfigError(f"There is no connection {number}: it was disconnected.")

    # -- changes

    async def sync(self, request: Request) -> Response:
        """Run a pass of one connection, or of each."""
        form = self._pages.form(request)
        query = SyncQuery(
            connection=_number(form["connection"]) if form.get("connection") else None,
            full=form.get("full") == "yes",
            dry_run=form.get("dry_run") == "yes",
            confirm=form.get("confirm") == "yes",
        )
        job = await self._desk.sync(query)
        which = "all" if query.connection is None else f"connection {query.connection}"
        how = [name for name in ("full", "dry_run", "confirm") if getattr(query, name)]
        self._pages.note(request, "audience_sync", detail=", ".join([which, *how]))
        return self._follow(job)

    async def disconnect(self, request: Request) -> Response:
        """End a connection; what becomes of its people was chosen."""
        form = self._pages.form(request)
        if form.get("fate") not in ("keep", "remove"):
            raise ValueError("Say what becomes of those whom it added: keep or remove.")
        query = DisconnectQuery(connection=_number(form.get("connection", "")), keep=form["fate"] == "keep")
        job = await self._desk.disconnect(query)
        self._lists.forget()
        self._pages.note(request, "audience_disconnect", detail=f"connection {query.connection}, {form['fate']}")
        return self._follow(job)

    async def lookalike(self, request: Request) -> Response:
        """Create an audience of people like those of a connection's."""
        form = self._pages.form(request)
        query = LookalikeQuery(
            connection=_number(form.get("connection", "")), name=form.get("name", "").strip(),
            country=form.get("country", "").strip(), percent=_number(form.get("percent", "1")),
        )  # fmt: skip
        if not query.name:
            raise ValueError("Give the new audience a name.")
        job = await self._desk.lookalike(query)
        self._lists.forget()
        self._pages.note(request, "audience_lookalike", detail=f"connection {query.connection}")
        return self._follow(job)

    def _follow(self, job: str) -> Response:
        return self._pages.redirect(f"/audiences/jobs/{job}")

    async def job(self, request: Request) -> Response:
        """Tell how far a pass or another change is; the page comes again by itself while it goes on."""
        state = await self._desk.mirror.jobs.look(request.path_params["job"], 0.3)
        answer = await self._pages.render(
            request, "audience_job.html", state=state, words=words, error=words.on_page(state.error), looks=LOOKS,
            **_result(state),
        )  # fmt: skip
        if state.state == "running":
            answer.headers["Refresh"] = "2"
        return answer

    # -- logging in

    async def login(self, request: Request) -> Response:
        """Begin to log in at a source or sink; the vendor's page is a link away."""
        form = self._pages.form(request)
        name = form.get("name", "")
        begun = await self._desk.begin_login(LoginQuery(name=name, again=form.get("again") == "yes"))
        self._lists.forget()
        if begun.url is None:
            told = f"{name}: {begun.problem}" if begun.problem else f"{name}: logged in."
            return self._pages.redirect("/audiences", words.on_page(told))
        self._pages.note(request, "audience_login", detail=name)
        return await self._pages.render(request, "audience_login.html", name=name, begun=begun)

    async def answer(self, request: Request) -> Response:
        """Take the address on which a browser ended that does not reach this machine."""
        await self._desk.answer(self._pages.form(request).get("url", ""))
        self._lists.forget()
        return self._pages.redirect("/audiences", "Access granted.")

    async def account(self, request: Request) -> Response:
        """Choose the account of a sink."""
        form = self._pages.form(request)
        found = await self._desk.choose(AccountQuery(sink=form.get("sink", ""), account=form.get("account", "")))
        self._lists.forget()
        self._pages.note(request, "audience_account", detail=f"{form.get('sink', '')}: {found.id}")
        told = f"Ad account {found.name or found.id} is the one that is meant from now on."
        return self._pages.redirect("/audiences", told)


def _number(text: str) -> int:
    try:
        return msgspec.convert(text, int, strict=False)
    except msgspec.ValidationError:
        raise ValueError("A number is missing: go back, reload the page, and try again.") from None


def _did(outcome: Any) -> str:
    return words.did({name: getattr(outcome, name) for name in outcome.__struct_fields__})


def _result(state: JobState) -> Mapping[str, Any]:
    """Return what an ended job gave, by its kind."""
    result = state.result if state.state == "done" else None
    outcomes = [(one, _did(one), words.on_page(one.message)) for one in result] if isinstance(result, list) else []
    return {
        "progress": state.progress or [],
        "outcomes": outcomes,
        "connected": result if isinstance(result, Connected) else None,
        "notes": [words.on_page(note) for note in result.notes] if isinstance(result, Connected) else [],
        "created": result if isinstance(result, Group) else None,
    }


def routes(pages: Pages) -> list[Route]:
    """Return the routes."""
    lists = Lists(pages.gateway.audiences)
    audiences, base = AudiencePages(pages, lists), "/audiences"
    changes = {
        "sync": audiences.sync, "disconnect": audiences.disconnect, "lookalike": audiences.lookalike,
        "login": audiences.login, "login/answer": audiences.answer, "account": audiences.account,
    }  # fmt: skip
    return [
        pages.route(base, audiences.show),
        *connect_routes(pages, lists),
        pages.route(f"{base}/jobs/{{job}}", audiences.job),
        pages.route(f"{base}/{{number:int}}", audiences.connection),
        *(
            pages.route(f"{base}/{path}", change, role="operator", methods=("POST",))
            for path, change in changes.items()
        ),
    ]
