"""
Connecting in steps, without JavaScript: the list or segment left, the audience right, then both at a glance.

What is chosen is in the address, so that searching, turning back and reloading lose nothing; only the last step changes
something.
"""

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import audience_words as words
from gateway.audience import Group
from gateway.audiences import Status
from gateway.event import Struct
from gateway.operator.audience_calls import ConnectQuery
from gateway.operator.audience_desk import Desk
from gateway.operator.pages.choices import Choices, Lists, chosen_from, sink_taken, source_taken
from gateway.operator.pages.framework import Pages

_BASE = "/audiences/connect"
_LEFT = ("source", "kind", "group")
_RIGHT = ("sink", "account", "audience", "create")
_NAMES = (*_LEFT, *_RIGHT, "q", "p")
_LONGEST = 300


class Column(Struct, frozen=True, kw_only=True):
    """One side of the page: where from (``name`` of ``names``), what the search found, and what is chosen."""

    name: str
    names: tuple[str, ...]
    choices: Choices
    chosen: Group | None = None
    accounts: tuple[Group, ...] = ()
    account: str = ""


class ConnectPages:
    """The pages."""

    def __init__(self, pages: Pages, lists: Lists) -> None:
        self._pages = pages
        self._desk = Desk(pages.gateway)
        self._lists = lists

    async def show(self, request: Request) -> Response:
        """Show both sides, with what is chosen."""
        given = {name: request.query_params.get(name, "")[:_LONGEST] for name in _NAMES}
        connections = await (await self._desk.mirror.engine()).connections()
        left, right = await self._left(given, connections), await self._right(given, connections)
        given |= {"source": left.name, "sink": right.name, "account": right.account}
        answer = await self._pages.render(
            request, "audience_connect.html", given=given, left=left, right=right, link=_linker(given),
            create=given["create"].strip(), fields={name: given[name] for name in (*_LEFT, *_RIGHT) if given[name]},
        )  # fmt: skip
        if left.choices.is_reading or right.choices.is_reading:
            answer.headers["Refresh"] = "2"
        return answer

    async def _left(self, given: Mapping[str, str], connections: Sequence[Status]) -> Column:
        names = tuple(self._desk.mirror.plugged.sources)
        name = given["source"] if given["source"] in names else names[0]
        groups, problem = await self._lists.groups(name)
        taken = source_taken(connections, name)
        choices = chosen_from(groups, words.on_page(problem), given["q"], taken, given["group"])
        key = given["kind"], given["group"]
        chosen = next((one for one in groups or () if (one.kind, one.id) == key and not taken(one)), None)
        return Column(name=name, names=names, choices=choices, chosen=chosen)

    async def _right(self, given: Mapping[str, str], connections: Sequence[Status]) -> Column:
        mirror = self._desk.mirror
        names = tuple(mirror.plugged.sinks)
        name = given["sink"] if given["sink"] in names else names[0]
        found, problem = await self._lists.accounts(name)
        accounts = tuple(found or ())
        wanted = given["account"] or mirror.accounts.chosen(name)
        account = next((one.id for one in accounts if one.id == wanted or len(accounts) == 1), "")
        if not account:
            choices = Choices(is_reading=found is None and not problem, problem=words.on_page(problem))
            return Column(name=name, names=names, choices=choices, accounts=accounts)
        groups, problem = await self._lists.audiences(name, account)
        taken = sink_taken(connections, name, account)
        choices = chosen_from(groups, words.on_page(problem), given["p"], taken, given["audience"])
        chosen = next((one for one in groups or () if one.id == given["audience"] and not taken(one)), None)
        return Column(name=name, names=names, choices=choices, chosen=chosen, accounts=accounts, account=account)

    async def connect(self, request: Request) -> Response:
        """Connect, or only say what would be connected."""
        form = self._pages.form(request)
        if not form.get("group") or bool(form.get("audience")) == bool(form.get("create", "").strip()):
            raise ValueError("Choose a list or segment, and an audience or the name of a new one.")
        query = ConnectQuery(
            kind=form.get("kind", ""), group=form["group"], source=form.get("source"), sink=form.get("sink"),
            account=form.get("account", ""), audience=form.get("audience") or None,
            create=form.get("create", "").strip() or None, remove=form.get("never_remove") != "yes",
            dry_run=form.get("dry_run") == "yes",
        )  # fmt: skip
        job = await self._desk.connect(query)
        if not query.dry_run:
            self._lists.forget()
            how = "a new audience" if query.create else f"audience {query.audience}"
            self._pages.note(request, "audience_connect", detail=f"{query.kind} {query.group}, {how}")
        return self._pages.redirect(f"/audiences/jobs/{job}")


def _linker(given: Mapping[str, str]) -> Callable[..., str]:
    """Return what makes the address of this page with other choices; an empty one is left out."""

    def link(**changes: str) -> str:
        return f"{_BASE}?{urlencode({name: value for name, value in {**given, **changes}.items() if value})}"

    return link


def connect_routes(pages: Pages, lists: Lists) -> list[Route]:
    """Return the routes."""
    connecting = ConnectPages(pages, lists)
    return [
        pages.route(_BASE, connecting.show),
        pages.route(_BASE, connecting.connect, role="operator", methods=("POST",)),
    ]
