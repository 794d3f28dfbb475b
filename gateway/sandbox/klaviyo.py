"""
The stand-in of Klaviyo: lists, segments and their profiles.

Source: Klaviyo's OpenAPI description, revision 2026-07-15 (operations, page sizes, filters, sorts, limits), and its
guide to rate limits: fixed windows of a second and a minute; what is not 429 tells the state of the
steady one in headers.
Without a word on it, and thus the sandbox's own: codes and texts of errors, the order of profiles without ``sort``
(oldest first), that limits count for each operation, and that windows begin with the clock's second and minute.
"""

import base64
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.routing import Route

from gateway.sandbox.answers import Answer
from gateway.sandbox.calls import Call, Endpoint, Handler, Log
from gateway.sandbox.filters import BadQuery, Term, parse
from gateway.sandbox.grants import App, Grants
from gateway.sandbox.oauth import klaviyo_routes
from gateway.sandbox.people import FIRST_KEY, LAST_KEY, Group, Key, Kind, People, profile_id
from gateway.sandbox.resources import Fields, group_resource, profile_resource
from gateway.sandbox.script import Script
from gateway.sandbox.windows import Windows

MEDIA: Final = "application/vnd.api+json"
OPERATORS: Final = ("greater-than", "greater-or-equal", "less-than", "less-or-equal")
_REVISION: Final = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9](\.[a-z0-9]+)?")
_ACCEPTED: Final = ("*/*", "application/*", "application/json", MEDIA)
_GROUP_FILTERS: Final = {
    "name": ("any", "equals"), "id": ("any", "equals"), "created": ("greater-than",), "updated": ("greater-than",),
}  # fmt: skip
_SEGMENT_FILTERS: Final = {**_GROUP_FILTERS, "is_active": ("any", "equals"), "is_starred": ("equals",)}
_MEMBER_FILTERS: Final = {
    "email": ("any", "equals"), "phone_number": ("any", "equals"), "push_token": ("any", "equals"),
    "_kx": ("equals",), "joined_group_at": OPERATORS,
}  # fmt: skip
_SORTS: Final = tuple(f"{sign}{name}" for name in ("created", "id", "name", "updated") for sign in ("", "-"))
_PAGING: Final = {"page[cursor]", "page[size]", "filter", "sort"}
_ERRORS: Final = {
    400: ("invalid", "Invalid input."),
    401: ("not_authenticated", "Authentication credentials were not accepted."),
    403: ("permission_denied", "You do not have permission to perform this action."),
    404: ("not_found", "Not found."),
    406: ("not_acceptable", "Could not satisfy the request Accept header."),
    429: ("throttled", "Request was throttled."),
}


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """
    How the stand-in behaves, and may be told to behave from now on.

    Args:
        burst, steady: Calls of one operation a second and a minute; None: no limit.
        count_burst, count_steady: The same where ``profile_count`` is asked for.
        null_next: Whether the last page has ``"next": null``, not no such link (the description knows no null).
        access_token_s: Life of an access token of OAuth, in seconds.
        deny: Whether the owner of the account says no to the app that asks.
    """

    burst: int | None = 75
    steady: int | None = 750
    count_burst: int | None = 1
    count_steady: int | None = 15
    null_next: bool = False
    access_token_s: int = 3600
    deny: bool = False


class _Cursor(msgspec.Struct, array_like=True):
    epoch: int
    group: str
    sort: str
    at: tuple[int, int]


class KlaviyoSandbox:
    """
    One account at Klaviyo.

    Attributes: ``people`` (everyone, and the groups), ``settings``, ``grants`` (OAuth), ``keys`` (valid private keys),
    ``routes`` (to mount).

    Args:
        clock: Unix seconds now.
        script, log: Shared with the other stand-ins.
        keys: Private keys.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, *, script: Script, log: Log, keys: tuple[str, ...]
    ) -> None:
        self.people = People(clock)
        self.settings = Settings()
        self.keys = set(keys)
        app = App(client_id="sandbox-klaviyo-app", secret="sandbox-klaviyo-secret")  # noqa: S106 - opens nothing else
        self.grants = Grants(clock, apps=(app,), prefix="kl", is_rotating=False)
        self._configured_keys = keys
        self._windows = Windows(clock)
        self._epoch = 0
        self._errors = 0
        self.clock = clock
        self._script, self._log = script, log
        self.routes = [*self._group_routes("list"), *self._group_routes("segment"), *klaviyo_routes(self)]

    def reset(self) -> None:
        """Go back to the start."""
        self.people.clear()
        self.grants.clear()
        self._windows.clear()
        self.change(Settings())
        self.keys = set(self._configured_keys)

    def change(self, settings: Settings) -> None:
        """Behave so from now on."""
        self.settings = settings
        self.grants.access_s = settings.access_token_s

    def expire_cursors(self) -> None:
        """Refuse every cursor that was handed out so far."""
        self._epoch += 1

    def endpoint(self, route: str, run: Callable[[Call], Answer]) -> Endpoint:
        """Return the ASGI application of one route."""
        handler = Handler(vendor="klaviyo", route=route, run=run, error=self.error, shorten=_shorten)
        return Endpoint(handler, self._script, self._log, self.clock)

    def error(self, status: int, headers: dict[str, str], detail: str = "", parameter: str = "") -> Answer:
        """Return the error of a status in Klaviyo's shape."""
        code, title = _ERRORS.get(status, ("error", "A server error occurred."))
        self._errors += 1
        source = {"parameter": parameter} if parameter else {"pointer": "/data/"}
        one = {"id": str(uuid.UUID(int=self._errors)), "code": code, "title": title, "detail": detail or title}
        content = msgspec.json.encode({"errors": [{**one, "status": status, "source": source}]})
        return Answer(status=status, content=content, media_type=MEDIA, headers=headers)

    def _group_routes(self, kind: Kind) -> list[Route]:
        base = f"/api/{kind}s"

        def route(path: str, scopes: tuple[str, ...], run: Callable[[Call, Kind], Any]) -> Route:
            return Route(path, self.endpoint(path, lambda call: self._checked(call, path, scopes, kind, run)))

        members = (f"{kind}s:read", "profiles:read")
        return [
            route(base, members[:1], self._groups),
            route(f"{base}/{{id}}", members[:1], self._group),
            route(f"{base}/{{id}}/profiles", members, self._profiles),
            route(f"{base}/{{id}}/relationships/profiles", members, self._profiles),
        ]

    def _checked(
        self, call: Call, path: str, scopes: tuple[str, ...], kind: Kind, run: Callable[[Call, Kind], Any]
    ) -> Answer:
        owner, granted = self._owner(call.headers.get("authorization", ""))
        if call.method != "GET":
            return self.error(405, {}, "Method not allowed.")
        if not owner:
            return self.error(401, {})
        if not _REVISION.fullmatch(call.headers.get("revision", "")):
            return self.error(400, {}, "A revision header with a date (YYYY-MM-DD) is required.")
        accepted = [one.partition(";")[0].strip() for one in call.headers.get("accept", "*/*").split(",")]
        if not any(one in _ACCEPTED for one in accepted):
            return self.error(406, {})
        counted = "profile_count" in call.args.get(f"additional-fields[{kind}]", "")
        limits = self._limits(f"{owner} {path} {counted}", is_count=counted)
        if isinstance(limits, Answer):
            return limits
        if granted is not None and not granted.issuperset(scopes):
            return self.error(403, limits)
        try:
            found = run(call, kind)
        except BadQuery as error:
            return self.error(400, limits, str(error), error.parameter)
        except LookupError as error:
            return self.error(404, limits, str(error.args[0]))
        return Answer(status=200, content=msgspec.json.encode(found), media_type=MEDIA, headers=limits)

    def _owner(self, authorization: str) -> tuple[str, frozenset[str] | None]:
        scheme, _, secret = authorization.partition(" ")
        if scheme == "Klaviyo-API-Key":
            return ("key" if secret.strip() in self.keys else ""), None
        token = self.grants.access(secret.strip()) if scheme.lower() == "bearer" else None
        return ("", None) if token is None else (f"app {token.client_id}", frozenset(token.scope.split()))

    def _limits(self, key: str, *, is_count: bool) -> dict[str, str] | Answer:
        now = self.settings
        burst, steady = (now.count_burst, now.count_steady) if is_count else (now.burst, now.steady)
        windows = self._windows
        for most, length_s in ((burst, 1.0), (steady, 60.0)):
            if most is not None and windows.used(key, length_s) >= most:
                wait = windows.left_s(length_s)
                detail = f"Request was throttled. Expected available in {wait} second{'s' if wait > 1 else ''}."
                return self.error(429, {"retry-after": str(wait)}, detail)
        windows.count(key, 1.0)
        windows.count(key, 60.0)
        if steady is None:
            return {}
        left = max(0, steady - windows.used(key, 60.0))
        reset = windows.left_s(60.0)
        return {"ratelimit-limit": str(steady), "ratelimit-remaining": str(left), "ratelimit-reset": str(reset)}

    def _found(self, call: Call, kind: Kind) -> Group:
        group = self.people.groups.get(call.params["id"])
        if group is None or group.kind != kind:
            raise LookupError(f"A {kind} with id {call.params['id']} does not exist.")
        return group

    def _group(self, call: Call, kind: Kind) -> dict[str, Any]:
        _known(call, {f"additional-fields[{kind}]", f"fields[{kind}]", "fields[flow]", "fields[tag]", "include"})
        fields = Fields.of(call.args, kind)
        resource = group_resource(self._found(call, kind), fields, call.base)
        return {"data": resource, "links": {"self": _address(call)}}

    def _groups(self, call: Call, kind: Kind) -> dict[str, Any]:
        _known(call, _PAGING | {f"fields[{kind}]", "fields[flow]", "fields[tag]", "include"})
        fields, size = Fields.of(call.args, kind), _size(call, 10, 10)
        terms = _terms(call, _SEGMENT_FILTERS if kind == "segment" else _GROUP_FILTERS)
        sort = _sort(call, _SORTS)
        found = [one for one in self.people.groups.values() if one.kind == kind and _fits(one, terms)]
        found.sort(key=lambda one: (getattr(one, sort.lstrip("-") or "created"), one.id), reverse=sort.startswith("-"))
        start = self._cursor(call, "", sort, (0, 0)).at[0]
        page = found[start : start + size]
        after = (start + size, 0) if start + size < len(found) else None
        data = [group_resource(one, fields, call.base) for one in page]
        return {"data": data, "links": self._links(call, "", sort, after)}

    def _profiles(self, call: Call, kind: Kind) -> dict[str, Any]:
        only_ids = call.path.endswith("/relationships/profiles")
        _known(call, _PAGING | (set() if only_ids else {"additional-fields[profile]", "fields[profile]"}))
        fields, size = Fields.of(call.args, "profile"), _size(call, 20, 100)
        segment = {"profile_id": ("any", "equals")} if kind == "segment" else {}
        terms = _terms(call, {**_MEMBER_FILTERS, **segment})
        sort = _sort(call, ("joined_group_at", "-joined_group_at"))
        group = self._found(call, kind)
        page = self._members(call, group, terms, sort, size + 1)
        after = (int(page[size - 1][0]), int(page[size - 1][1])) if len(page) > size else None
        base = call.base
        data = [
            {"type": "profile", "id": profile_id(int(number))}
            if only_ids
            else profile_resource(self.people, int(number), int(at), fields, base)
            for at, number in page[:size]
        ]
        return {"data": data, "links": self._links(call, group.id, sort, after)}

    def _members(self, call: Call, group: Group, terms: tuple[Term, ...], sort: str, most: int) -> list[Key]:
        is_down = sort.startswith("-")
        low, high, only = _bounds(terms, self.people)
        if "page[cursor]" in call.args:
            at = self._cursor(call, group.id, sort, (0, 0)).at
            low, high = (low, min(high, at)) if is_down else (max(low, at), high)
        found: list[Key] = []
        for key in group.walk(low, high, newest_first=is_down):
            if only is None or key[1] in only:
                found.append(key)
            if len(found) == most:
                break
        return found

    def _cursor(self, call: Call, group: str, sort: str, start: tuple[int, int]) -> _Cursor:
        text = call.args.get("page[cursor]")
        if text is None:
            return _Cursor(self._epoch, group, sort, start)
        try:
            found = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Cursor)
        except (ValueError, msgspec.DecodeError):
            raise BadQuery("page[cursor]", "The cursor is invalid.") from None
        if (found.epoch, found.group, found.sort) != (self._epoch, group, sort):
            raise BadQuery("page[cursor]", "The cursor is invalid or has expired.")
        return found

    def _links(self, call: Call, group: str, sort: str, after: tuple[int, int] | None) -> dict[str, str | None]:
        links: dict[str, str | None] = {"self": _address(call)}
        if after is not None:
            cursor = base64.urlsafe_b64encode(msgspec.json.encode(_Cursor(self._epoch, group, sort, after))).decode()
            links["next"] = _address(call, cursor)
        elif self.settings.null_next:
            links["next"] = None
        return links


def _address(call: Call, cursor: str | None = None) -> str:
    query = [(name, text) for name, text in call.query if cursor is None or name != "page[cursor]"]
    if cursor is not None:
        query.append(("page[cursor]", cursor))
    return f"{call.base}{call.path}{'?' if query else ''}{urlencode(query)}"


def _known(call: Call, allowed: set[str]) -> None:
    for name, _ in call.query:
        if name not in allowed:
            raise BadQuery(name, f"'{name}' is not a parameter of this call.")


def _size(call: Call, default: int, most: int) -> int:
    text = call.args.get("page[size]", str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise BadQuery("page[size]", f"Page size must be an integer between 1 and {most}.")
    return int(text)


def _sort(call: Call, allowed: tuple[str, ...]) -> str:
    sort = call.args.get("sort", "")
    if sort and sort not in allowed:
        raise BadQuery("sort", f"Invalid sort; one of {', '.join(allowed)}.")
    return sort


def _terms(call: Call, allowed: Mapping[str, tuple[str, ...]]) -> tuple[Term, ...]:
    return parse(call.args["filter"], allowed) if "filter" in call.args else ()


def _fits(group: Group, terms: tuple[Term, ...]) -> bool:
    for term in terms:
        if term.operator == "greater-than":
            if getattr(group, term.field) <= term.time:
                return False
        elif term.field in {"name", "id"}:
            if getattr(group, term.field) not in term.values:
                return False
        else:
            is_so = group.is_active if term.field == "is_active" else False
            if str(is_so).lower() not in term.values:
                return False
    return True


def _bounds(terms: tuple[Term, ...], people: People) -> tuple[Key, Key, set[float] | None]:
    """Return the keys between which members lie, and the numbers of the only ones wanted."""
    low, high = FIRST_KEY, LAST_KEY
    only: set[float] | None = None
    for term in terms:
        if term.field == "joined_group_at":
            edge: Key = (term.time, LAST_KEY[1] if term.operator in {"greater-than", "less-or-equal"} else FIRST_KEY[1])
            low, high = (max(low, edge), high) if term.operator.startswith("greater") else (low, min(high, edge))
            continue
        wanted: set[float] = set()
        if term.field == "email":
            wanted = {number for text in term.values if (number := people.find(text)) is not None}
        elif term.field == "profile_id":
            wanted = {int(text[9:]) for text in term.values if text[:9] == "01SANDBOX" and text[9:].isdecimal()}
        only = wanted if only is None else only & wanted
    return low, high, only


def _shorten(page: dict[str, Any], keep: bool) -> None:
    page.get("links", {}).pop("next", None)
    if not keep and isinstance(page.get("data"), list):
        page["data"] = []
