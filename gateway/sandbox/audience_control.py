"""The control routes of lists, segments, audiences, tokens and calls; the package's docstring lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox import audiences
from gateway.sandbox.hashset import HashSet, digest_of
from gateway.sandbox.lists import CustomerList
from gateway.sandbox.people import Group, Kind, Marks, People, profile_id
from gateway.sandbox.script import CallFault

if TYPE_CHECKING:
    from gateway.sandbox.pinterest import PinterestSandbox

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
MOST_SHOWN: Final = 10_000
"""People or hashes that one answer lists at most."""
Reason = Literal["HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT", "UNSUBSCRIBE", "USER_SUPPRESSED"]


class _Body(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class _Which(_Body, frozen=True, kw_only=True):
    people: list[int | str] = []
    first: int = 0
    count: int = 0


class _NewGroup(_Which, frozen=True, kw_only=True):
    name: str
    id: str = ""
    since: int | None = None
    span_s: int = 31_536_000


class _GroupChange(_Body, frozen=True, kw_only=True):
    name: str | msgspec.UnsetType = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    is_processing: bool | msgspec.UnsetType = msgspec.UNSET
    profile_count: int | msgspec.UnsetType | None = msgspec.UNSET


class _Join(_Which, frozen=True, kw_only=True):
    joined_at: int | None = None


class _ListReason(_Body, frozen=True, kw_only=True):
    list_id: str
    reason: Reason = "USER_SUPPRESSED"


class _PeopleChange(_Which, frozen=True, kw_only=True):
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    suppress: Reason | msgspec.UnsetType | None = msgspec.UNSET
    list_suppress: _ListReason | msgspec.UnsetType | None = msgspec.UNSET
    consent: str | msgspec.UnsetType = msgspec.UNSET
    delete: bool = False


class _NewAudience(_Which, frozen=True, kw_only=True):
    account: str
    name: str
    audience_type: audiences.Type = "CUSTOMER_LIST"
    list: str = ""


class _Hashes(_Body, frozen=True, kw_only=True):
    hashes: list[str]


class _Account(_Body, frozen=True, kw_only=True):
    id: str
    name: str


class _Accounts(_Body, frozen=True, kw_only=True):
    accounts: list[_Account]


class _Faults(_Body, frozen=True, kw_only=True):
    faults: list[CallFault]


class _Mistaken(Exception):
    pass


def audience_control_routes(sandbox: PinterestSandbox) -> list[Route]:
    """Return the routes that control and show lists, audiences, tokens and calls."""
    groups, control = _GroupControl(sandbox), _AudienceControl(sandbox)
    one, base = "/_sandbox/klaviyo/{kind:str}/{id}", "/_sandbox/pinterest"
    table: list[tuple[str, str, Callable[[Request], Awaitable[object]]]] = [
        ("PATCH", "/_sandbox/klaviyo/people", groups.change_people),
        ("PUT", "/_sandbox/klaviyo/settings", groups.settings),
        ("POST", "/_sandbox/klaviyo/cursors/expire", groups.expire_cursors),
        ("POST", "/_sandbox/{vendor}/tokens/{what}", control.tokens),
        ("POST", "/_sandbox/klaviyo/{kind:str}", groups.create),
        ("GET", one, groups.show),
        ("PATCH", one, groups.change),
        ("DELETE", one, groups.drop),
        ("POST", f"{one}/join", groups.join),
        ("POST", f"{one}/leave", groups.leave),
        ("GET", f"{one}/eligible", groups.eligible),
        ("POST", f"{base}/audiences", control.create),
        ("PUT", f"{base}/accounts", control.accounts),
        ("PUT", f"{base}/settings", control.settings),
        ("GET", f"{base}/{{kind}}/{{id}}", control.show),
        ("POST", f"{base}/{{kind}}/{{id}}/contains", control.contains),
        ("POST", "/_sandbox/calls/faults", control.add_faults),
        ("DELETE", "/_sandbox/calls/faults", control.clear_faults),
        ("GET", "/_sandbox/calls", control.calls),
    ]
    return [Route(path, _answered(run), methods=[method]) for method, path, run in table]


def _answered(run: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            found, status = await run(request), 200
        except (_Mistaken, ValueError) as error:
            found, status = {"error": str(error)}, 400
        except LookupError as error:
            found, status = {"error": str(error.args[0])}, 404
        return Response(msgspec.json.encode(found), status_code=status, media_type="application/json")

    return endpoint


async def _read(request: Request, kind: type[T]) -> T:
    return msgspec.json.decode(await request.body(), type=kind)


async def _merged(request: Request, now: S) -> S:
    """Return settings with those of the body changed."""
    given = msgspec.json.decode(await request.body(), type=dict[str, Any])
    return msgspec.convert({**msgspec.structs.asdict(now), **given}, type(now))


class _GroupControl:
    def __init__(self, sandbox: PinterestSandbox) -> None:
        self._sandbox = sandbox

    async def create(self, request: Request) -> object:
        body = await _read(request, _NewGroup)
        group = self._people.create(
            _kind(request), body.name, body.people, first=self._people.number(body.first), count=body.count,
            group_id=body.id, since=body.since, span_s=body.span_s,
        )  # fmt: skip
        return _shown(group)

    async def show(self, request: Request) -> object:
        group = self._group(request)
        if request.query_params.get("people") != "true":
            return _shown(group)
        people = self._people
        listed = [
            {"number": int(number), "id": profile_id(int(number)), "email": people.email(int(number)), "joined_at": at}
            for at, number in islice(group.walk(), MOST_SHOWN)
        ]
        return {**_shown(group), "people": listed}

    async def change(self, request: Request) -> object:
        group, body = self._group(request), await _read(request, _GroupChange)
        group.name = group.name if body.name is msgspec.UNSET else body.name
        group.is_active = group.is_active if body.is_active is msgspec.UNSET else body.is_active
        group.is_processing = group.is_processing if body.is_processing is msgspec.UNSET else body.is_processing
        group.claimed = group.claimed if body.profile_count is msgspec.UNSET else body.profile_count
        return _shown(group)

    async def drop(self, request: Request) -> object:
        del self._people.groups[self._group(request).id]
        return {}

    async def join(self, request: Request) -> object:
        group, body = self._group(request), await _read(request, _Join)
        at = int(self._sandbox.klaviyo.clock()) if body.joined_at is None else body.joined_at
        group.join(self._numbers(body), at)
        return _shown(group)

    async def leave(self, request: Request) -> object:
        group, body = self._group(request), await _read(request, _Which)
        group.leave(self._numbers(body))
        return _shown(group)

    async def eligible(self, request: Request) -> object:
        is_all = request.query_params.get("include_suppressed") == "true"
        members = self._people.eligible(self._group(request), include_suppressed=is_all)
        found = await asyncio.to_thread(HashSet.of, members)
        return {"count": len(found), "digest": found.digest}

    async def change_people(self, request: Request) -> object:
        body = await _read(request, _PeopleChange)
        people, now = self._people, int(self._sandbox.klaviyo.clock())
        numbers = list(self._numbers(body))
        for number in numbers:
            if body.email is not msgspec.UNSET:
                people.set_email(number, None if body.email is None else body.email.replace("{n}", str(number)))
            people.mark(number, _marked(people.marks(number), body, now))
        if body.delete:
            people.delete(numbers)
        return {"changed": len(numbers)}

    async def settings(self, request: Request) -> object:
        sandbox = self._sandbox.klaviyo
        sandbox.change(await _merged(request, sandbox.settings))
        return sandbox.settings

    async def expire_cursors(self, request: Request) -> object:  # noqa: ARG002 - the signature of an endpoint
        self._sandbox.klaviyo.expire_cursors()
        return {}

    @property
    def _people(self) -> People:
        return self._sandbox.klaviyo.people

    def _group(self, request: Request) -> Group:
        group = self._people.groups.get(request.path_params["id"])
        if group is None or group.kind != _kind(request):
            raise LookupError("there is no such list or segment")
        return group

    def _numbers(self, which: _Which) -> Iterable[int]:
        yield from range(self._people.number(which.first), self._people.number(which.first + which.count))
        yield from self._people.numbers(which.people)


class _AudienceControl:
    def __init__(self, sandbox: PinterestSandbox) -> None:
        self._sandbox = sandbox

    async def create(self, request: Request) -> object:
        body, own = await _read(request, _NewAudience), self._sandbox.audiences
        rule: dict[str, Any] = {}
        if body.audience_type == "CUSTOMER_LIST":
            emails = [f"person{number}@people.example" for number in range(body.first, body.first + body.count)]
            given = [one if isinstance(one, str) else f"person{one}@people.example" for one in body.people]
            hashes = [digest_of(one).hex() if "@" in one else one for one in [*emails, *given]]
            feed = own.lists[body.list] if body.list else own.new_list(body.account, body.name, hashes)
            rule = {"customer_list_id": feed.id}
        made = own.new_audience(body.account, body.name, body.audience_type, rule)
        return {"id": made.id, "list": made.feed.id if made.feed else None}

    async def show(self, request: Request) -> object:
        feed, own = self._list(request), self._sandbox.audiences
        shown: dict[str, Any] = {
            "list": feed.id, "account": feed.account, "count": len(feed.hashes), "digest": feed.hashes.digest,
            "status": feed.status(own.clock()), "matched": feed.matched, "batches": feed.batches, "added": feed.added,
            "removed": feed.removed, "plain": feed.plain, "invalid": feed.invalid,
            "audiences": [one.id for one in own.audiences.values() if one.feed is feed],
        }  # fmt: skip
        if request.query_params.get("members") == "true":
            if len(feed.hashes) > MOST_SHOWN:
                raise _Mistaken(f"more than {MOST_SHOWN} members: compare count and digest, or ask contains")
            shown["hashes"] = sorted(one.hex() for one in feed.hashes)
        return shown

    async def contains(self, request: Request) -> object:
        feed, body = self._list(request), await _read(request, _Hashes)
        return {"held": [bytes.fromhex(one) in feed.hashes for one in body.hashes]}

    async def accounts(self, request: Request) -> object:
        body, own = await _read(request, _Accounts), self._sandbox.audiences
        own.accounts = {one.id: one.name for one in body.accounts}
        own.is_closed = True
        return own.accounts

    async def settings(self, request: Request) -> object:
        own = self._sandbox.audiences
        own.change(await _merged(request, own.settings))
        return own.settings

    async def tokens(self, request: Request) -> object:
        vendor, what = request.path_params["vendor"], request.path_params["what"]
        if vendor not in {"pinterest", "klaviyo"} or what not in {"expire", "revoke"}:
            raise LookupError("pinterest or klaviyo, expire or revoke")
        own = self._sandbox
        grants = own.audiences.grants if vendor == "pinterest" else own.klaviyo.grants
        (grants.expire if what == "expire" else grants.clear)()
        if what == "revoke" and vendor == "klaviyo":
            own.klaviyo.keys.clear()
        return {}

    async def add_faults(self, request: Request) -> object:
        script = self._sandbox.script
        script.add(*(await _read(request, _Faults)).faults)
        return {"waiting": script.waiting}

    async def clear_faults(self, request: Request) -> object:  # noqa: ARG002 - the signature of an endpoint
        self._sandbox.script.clear()
        return {}

    async def calls(self, request: Request) -> object:
        query, log = request.query_params, self._sandbox.log
        vendor, path, limit = query.get("vendor", ""), query.get("path", ""), query.get("limit", "100")
        if not limit.isdecimal():
            raise _Mistaken("limit must be a whole number")
        found = [one for one in log.newest if vendor in {"", one.vendor} and path in one.path]
        return {
            "total": sum(log.by.values()),
            "by": dict(sorted(log.by.items())),
            "calls": found[-int(limit) or len(found) :],
        }

    def _list(self, request: Request) -> CustomerList:
        own, kind, name = self._sandbox.audiences, request.path_params["kind"], request.path_params["id"]
        one = own.audiences.get(name) if kind == "audiences" else None
        feed = own.lists.get(name) if kind == "lists" else one.feed if one else None
        if feed is None:
            raise LookupError("there is no such list, or no such audience with a list")
        return feed


def _marked(marks: Marks, body: _PeopleChange, now: int) -> Marks:
    changes: dict[str, Any] = {}
    if body.suppress is not msgspec.UNSET:
        changes["suppression"] = ((body.suppress, now),) if body.suppress else ()
    if body.list_suppress is not msgspec.UNSET:
        wanted = body.list_suppress
        changes["list_suppressions"] = ((wanted.list_id, wanted.reason, now),) if wanted else ()
    if body.consent is not msgspec.UNSET:
        changes["consent"] = body.consent
    return msgspec.structs.replace(marks, **changes)


def _kind(request: Request) -> Kind:
    kind = request.path_params["kind"]
    if kind not in {"lists", "segments"}:
        raise LookupError("lists or segments")
    return "list" if kind == "lists" else "segment"


def _shown(group: Group) -> dict[str, Any]:
    return {
        "id": group.id, "kind": group.kind, "name": group.name, "members": len(group), "is_active": group.is_active,
        "is_processing": group.is_processing, "profile_count": group.claimed,
    }  # fmt: skip
