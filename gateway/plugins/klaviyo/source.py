"""The source: lists and segments of one Klaviyo account."""

import builtins
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode

from gateway import (
    Answer,
    AudienceError,
    AudienceSource,
    Call,
    Calls,
    Context,
    FixedToken,
    Group,
    Limit,
    OAuth,
    Pace,
    Page,
    Struct,
    shared_pace,
    token_path,
)
from gateway.plugins.klaviyo import oauth, objects
from gateway.plugins.klaviyo.options import KlaviyoOptions, check

T = TypeVar("T")
#: The largest pages. Source: OpenAPI 2026-07-15, ``page[size]`` of the collections.
PAGE_SIZE, GROUPS_PAGE_SIZE = 100, 10
#: Calls in one second, and with ``profile_count`` in a second and a minute. Source: as ``requests_per_minute``, and the
#: rate limits of ``/api/lists/{id}``.
BURST, COUNT_BURST, COUNT_STEADY = 75, 1, 15
#: Pages of lists or segments after which the listing is given up: 100,000 of them.
_MAX_PAGES = 10_000
_PATHS = {"list": "lists", "segment": "segments"}
#: As little of a person as will do; ``subscriptions`` says who must be left out.
_FIELDS = ",".join(
    (
        "email",
        "joined_group_at",
        "subscriptions.email.marketing.can_receive_email_marketing",
        "subscriptions.email.marketing.consent",
        "subscriptions.email.marketing.list_suppressions",
        "subscriptions.email.marketing.suppression",
    )
)
_GROUP_FIELDS = {"list": "name", "segment": "name,is_active,is_processing"}


class Klaviyo(AudienceSource):
    """
    Reads ``/api/lists`` and ``/api/segments`` of ``base_url``.

    ``login`` is the sign-in, None with a private key. ``pace`` and ``count_pace`` are the account's: the second for the
    few calls that ask for a group's size.

    Raises:
        ValueError: An option cannot work; see :func:`check`.
    """

    type: ClassVar[str] = "klaviyo"
    Options: ClassVar[builtins.type[Struct]] = KlaviyoOptions
    tells_who_joined: ClassVar[bool] = True
    options: KlaviyoOptions

    def __init__(self, name: str, options: Any, context: Context) -> None:
        super().__init__(name, options, context)
        check(self.options)
        where = f"[audience_sources.{name}]"
        self.login: OAuth | None = None
        if self.options.api_key is None:
            path = token_path(context, self.options.token_file, f"audience-source-{name}")
            self.login = OAuth(oauth.app(self.options, where), path, context, self.options.timeout_s)
            account = f"app:{self.options.client_id}:{path}"
            self._calls = Calls("Klaviyo", context, self.login, timeout_s=self.options.timeout_s)
        else:
            key = self.options.api_key
            account = f"key:{hashlib.sha256(key.value.strip().encode()).hexdigest()}"
            self._calls = Calls(
                "Klaviyo", context, FixedToken(key), "Klaviyo-API-Key", timeout_s=self.options.timeout_s
            )
        self.pace = shared_pace(f"klaviyo:{self.options.base_url}:{account}", self._new_pace)
        self.count_pace = shared_pace(f"klaviyo:{self.options.base_url}:{account}:count", _new_count_pace)
        self._base = self.options.base_url.rstrip("/")
        self._headers = {"accept": "application/vnd.api+json", "revision": self.options.revision}
        self._where = where

    def _new_pace(self) -> Pace:
        minute = self.options.requests_per_minute
        return Pace(Limit(calls=min(BURST, minute), seconds=1.0), Limit(calls=minute, seconds=60.0))

    async def groups(self, search: str = "") -> Sequence[Group]:
        """Return lists and segments by name; sizes are not told here, they would take a slow call each."""
        found = [group for kind in _PATHS for group in await self._groups(kind)]
        wanted = search.casefold()
        return [group for group in found if wanted in group.name.casefold()]

    async def _groups(self, kind: str) -> list[Group]:
        query = {f"fields[{kind}]": _GROUP_FIELDS[kind], "page[size]": str(GROUPS_PAGE_SIZE), "sort": "name"}
        groups: list[Group] = []
        for _ in range(_MAX_PAGES):
            page = await self._get(f"/api/{_PATHS[kind]}", query, objects.Groups, f"the {kind}s")
            groups += [objects.group(kind, resource) for resource in page.data]
            cursor = self._next(page.links, query.get("page[cursor]"))
            if cursor is None:
                return groups
            query["page[cursor]"] = cursor
        raise AudienceError(f"Klaviyo lists more than {_MAX_PAGES * GROUPS_PAGE_SIZE} {kind}s: name one by its id.")

    async def group(self, kind: str, group_id: str) -> Group:
        """Return one list or segment with its size; few such calls are allowed, so it may take a minute."""
        query = {
            f"additional-fields[{kind}]": "profile_count",
            f"fields[{kind}]": f"{_GROUP_FIELDS.get(kind, '')},profile_count",
        }
        path = self._path(kind, group_id)
        found = await self._get(path, query, objects.OneGroup, f"the {kind} {group_id}", self.count_pace)
        return objects.group(kind, found.data)

    async def page(self, group: Group, cursor: str | None = None, *, since: float | None = None) -> Page:
        """
        Return 100 members, in the order in which they joined: who joins during a scan is found at its end.

        ``since`` is rounded down to the second.
        """
        query = {
            "additional-fields[profile]": "subscriptions",
            "fields[profile]": _FIELDS,
            "page[size]": str(PAGE_SIZE),
            "sort": "joined_group_at",
        }
        if since is not None:
            moment = datetime.fromtimestamp(int(since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            query["filter"] = f"greater-or-equal(joined_group_at,{moment})"
        if cursor is not None:
            query["page[cursor]"] = cursor
        path = f"{self._path(group.kind, group.id)}/profiles"
        found = await self._get(path, query, objects.Profiles, f"the members of the {group.kind} {group.id}")
        return Page(
            members=tuple(objects.member(profile, group.id) for profile in found.data),
            cursor=self._next(found.links, cursor),
            newest=objects.newest(found.data),
        )

    async def probe(self) -> str | None:
        """Read one list, one segment, and one member of the list; None when the key may."""
        try:
            for kind in _PATHS:
                query = {f"fields[{kind}]": "name", "page[size]": "1"}
                found = await self._get(f"/api/{_PATHS[kind]}", query, objects.Groups, f"the {kind}s")
                if kind == "list" and found.data:
                    path = f"{self._path(kind, found.data[0].id)}/profiles"
                    members = {"fields[profile]": "joined_group_at", "page[size]": "1"}
                    await self._get(path, members, objects.Profiles, "the members of a list")
        except AudienceError as error:
            return str(error)
        return None

    def _path(self, kind: str, group_id: str) -> str:
        if kind not in _PATHS:
            raise AudienceError(f"Klaviyo has lists and segments, not '{kind}'.")
        return f"/api/{_PATHS[kind]}/{quote(group_id, safe='')}"

    def _next(self, links: objects.Links, cursor: str | None) -> str | None:
        try:
            following = objects.next_cursor(links)
        except ValueError as error:
            raise AudienceError(f"Klaviyo's answer cannot be followed: {error}.", retry_after_s=60.0) from None
        if following is not None and following == cursor:
            raise AudienceError("Klaviyo names the same page as the next one: the scan starts anew.", retry_after_s=0.0)
        return following

    async def _get(
        self, path: str, query: dict[str, str], kind: builtins.type[T], what: str, pace: Pace | None = None
    ) -> T:
        call = Call(method="GET", url=f"{self._base}{path}?{urlencode(query)}", headers=self._headers)
        answer = await self._calls.send(pace or self.pace, call)
        if answer.status >= 400:
            raise self._refused(answer, what, has_cursor="page[cursor]" in query)
        return self._calls.decoded(call, answer, kind)

    def _refused(self, answer: Answer, what: str, *, has_cursor: bool) -> AudienceError:
        status = answer.status
        if status in (400, 404, 410, 422) and has_cursor and objects.is_about_cursor(answer.body):
            return AudienceError(
                "Klaviyo no longer knows the page to go on from: the scan starts anew.", retry_after_s=0.0
            )
        if status == 401:
            return AudienceError(f"Klaviyo does not accept the key or sign-in (401): {self._remedy()}")
        if status == 403:
            return AudienceError(f"The key or sign-in may not read {what} (403): it needs the scopes {oauth.SCOPE}.")
        if status == 404:
            return AudienceError(f"Klaviyo does not have {what} (404): was it deleted, or is it another account's?")
        return AudienceError(
            f"Klaviyo refuses the request for {what} ({status}): check {self._where} "
            f"{'api_key, ' if self.login is None else ''}revision and base_url."
        )

    def _remedy(self) -> str:
        if self.login is not None:
            return "run 'tag-gateway audiences login'."
        return f"make a private key with the scopes {oauth.SCOPE} in Klaviyo and set {self._where} api_key."


def _new_count_pace() -> Pace:
    return Pace(Limit(calls=COUNT_BURST, seconds=1.0), Limit(calls=COUNT_STEADY, seconds=60.0))
