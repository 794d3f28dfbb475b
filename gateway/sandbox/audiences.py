"""
The stand-in of Pinterest's customer lists, audiences and ad accounts.

Source: Pinterest's OpenAPI description v5.23.0 (bodies, answers, page sizes, counters, statuses). Documented
nowhere and thus the sandbox's own: the shape of ad accounts (not in the copy of the description at hand), how much one
call may hold (10,000 records, 1 MB: what other senders keep to), codes of refusals, when an audience may be made of a
list, and that a lookalike needs a seed that is ``READY``.
"""

import base64
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Literal

import msgspec
from starlette.routing import Route

from gateway.sandbox import answers
from gateway.sandbox.answers import Answer
from gateway.sandbox.calls import Call, Endpoint, Handler, Log
from gateway.sandbox.grants import App, Grants
from gateway.sandbox.lists import Audience, CustomerList
from gateway.sandbox.oauth import pinterest_routes
from gateway.sandbox.script import Script
from gateway.sandbox.windows import Windows

_ACCOUNT: Final = re.compile(r"[0-9]{1,18}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_MINUTE: Final = 60.0
_METHODS: Final = {"HEAD": "GET"}
Type = Literal["CUSTOMER_LIST", "VISITOR", "ENGAGEMENT", "ACTALIKE", "PERSONA"]


class Settings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """
    How the stand-in behaves, and may be told to behave from now on.

    Args:
        processing_s: Seconds in which a changed list is ``PROCESSING`` and a new audience ``INITIALIZING``.
        audience_needs: What a list must be before an audience is made of it: anything, read (not ``PROCESSING``), ready
            (not ``TOO_SMALL`` either).
        match_rate: Share of people with a Pinterest account.
        max_records, max_bytes: Most of one call.
        read_rate, write_rate: Calls a minute of one token's app; None: no limit.
        retry_after: Whether a 429 names the seconds to wait.
        access_token_s: Life of an access token of OAuth, in seconds.
        deny: Whether the owner of the account says no to the app that asks.
    """

    processing_s: float = 0.0
    audience_needs: Literal["any", "read", "ready"] = "read"
    match_rate: float = 1.0
    max_records: int = 10_000
    max_bytes: int = 1_048_576
    read_rate: int | None = None
    write_rate: int | None = None
    retry_after: bool = True
    access_token_s: int = 2_592_000
    deny: bool = False


class _NewList(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    records: str
    list_type: Literal["EMAIL", "IDFA", "MAID", "LR_ID", "DLX_ID", "HASHED_PINNER_ID"] = "EMAIL"


class _ListChange(msgspec.Struct, kw_only=True, frozen=True):
    operation_type: Literal["ADD", "REMOVE"]
    records: str


class _NewAudience(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    audience_type: Type
    rule: dict[str, Any]
    description: str | None = None


class _AudienceChange(msgspec.Struct, kw_only=True, frozen=True):
    name: str | None = None
    description: str | None = None
    rule: dict[str, Any] | None = None
    operation_type: Literal["UPDATE", "REMOVE"] = "UPDATE"


class Refused(Exception):
    """The call is refused with a status and a text."""

    def __init__(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class AudienceSandbox:
    """
    The ad accounts of one business at Pinterest.

    Attributes: ``lists`` and ``audiences`` by id, ``accounts`` (id to name), ``settings``, ``grants`` (OAuth),
        ``routes``.

    Args:
        clock: Unix seconds now.
        script, log: Shared with the other stand-ins.
        tokens: The bearer tokens that are valid now, beside those of OAuth.
        sending: Those of them that may send events and nothing else.
        accounts: The ad accounts; others are refused only when ``is_closed``.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        script: Script,
        log: Log,
        tokens: Callable[[], set[str]],
        accounts: Iterable[str] | None,
        sending: Collection[str] = (),
    ) -> None:
        self.clock = clock
        self.settings = Settings()
        app = App(client_id="1500000", secret="sandbox-app-secret")  # noqa: S106 - opens nothing else
        self.grants = Grants(clock, apps=(app,), prefix="pina", is_rotating=True)
        self.lists: dict[str, CustomerList] = {}
        self.audiences: dict[str, Audience] = {}
        self._configured = None if accounts is None else {one: f"Account {one}" for one in sorted(accounts)}
        self._tokens, self._sending = tokens, frozenset(sending)
        self._windows = Windows(clock)
        self._script, self._log = script, log
        self._made = 0
        self.reset()
        self.routes = [*self._routes(), *pinterest_routes(self)]

    def reset(self) -> None:
        """Go back to the start."""
        self.settings = Settings()
        self.grants.clear()
        self.grants.access_s = self.settings.access_token_s
        self.lists.clear()
        self.audiences.clear()
        self._windows.clear()
        self.accounts = dict(self._configured or {"549000000001": "Sandbox shop"})
        self.is_closed = self._configured is not None

    def change(self, settings: Settings) -> None:
        """Behave so from now on."""
        self.settings = settings
        self.grants.access_s = settings.access_token_s
        for one in self.lists.values():
            one.rate(settings.match_rate)

    def new_list(self, account: str, name: str, records: Iterable[str]) -> CustomerList:
        """Make a customer list."""
        self._made += 1
        now = self.clock()
        made = CustomerList(str(7_000_000_000_000 + self._made), account, name, self.settings.match_rate, now)
        made.change("ADD", records, now, self.settings.processing_s)
        self.lists[made.id] = made
        return made

    def new_audience(
        self, account: str, name: str, kind: str, rule: dict[str, Any], description: str | None = None
    ) -> Audience:
        """Make an audience, of whatever kind and state."""
        self._made += 1
        now = self.clock()
        feed = self.lists.get(str(rule.get("customer_list_id")))
        made = Audience(
            id=str(2_542_620_000_000 + self._made), account=account, name=name, type=kind, rule=rule, feed=feed,
            description=description, created=now, updated=now, ready_at=now + self.settings.processing_s,
        )  # fmt: skip
        self.audiences[made.id] = made
        return made

    def endpoint(self, route: str, run: Callable[[Call], Answer]) -> Endpoint:
        """Return the ASGI application of one route."""
        handler = Handler(vendor="pinterest", route=route, run=run, error=_error, shorten=_shorten)
        return Endpoint(handler, self._script, self._log, self.clock)

    def read_route(self, path: str, run: Callable[[Call], Any]) -> Route:
        """Return the route of a GET that a token with ``ads:read`` opens; what ``run`` returns is its JSON."""
        return Route(f"/v5{path}", self.endpoint(path, lambda call: self._checked(call, run)), methods=["GET"])

    def _routes(self) -> list[Route]:
        base = "/ad_accounts/{ad_account_id}"

        def route(path: str, **runs: Callable[[Call], Any]) -> Route:
            shown = f"/v5{path}"
            endpoint = self.endpoint(
                path, lambda call: self._checked(call, runs[_METHODS.get(call.method, call.method)])
            )
            return Route(shown, endpoint, methods=list(runs))

        return [
            route("/ad_accounts", GET=self._list_accounts),
            route(base, GET=lambda call: self._shown_account(call.params["ad_account_id"])),
            route(f"{base}/customer_lists", GET=self._list_lists, POST=self._create_list),
            route(f"{base}/customer_lists/{{id}}", GET=self._read_list, PATCH=self._change_list),
            route(f"{base}/audiences", GET=self._list_audiences, POST=self._create_audience),
            route(f"{base}/audiences/{{id}}", GET=self._read_audience, PATCH=self._change_audience),
        ]

    def _checked(self, call: Call, run: Callable[[Call], Any]) -> Answer:
        try:
            self._admit(call)
            return Answer(status=200, content=msgspec.json.encode(run(call)))
        except Refused as error:
            return answers.error(error.status, str(error), error.headers)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return answers.error(400, f"Invalid request: {error}")

    def _admit(self, call: Call) -> None:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        token = token.strip()
        granted = self.grants.access(token)
        if scheme.lower() != "bearer" or (granted is None and token not in self._tokens()):
            raise Refused(401)
        if token in self._sending:
            raise Refused(403)
        is_read = call.method == "GET"
        if granted is not None and f"ads:{'read' if is_read else 'write'}" not in granted.scope.split():
            raise Refused(403)
        account = call.params.get("ad_account_id", "0")
        if not _ACCOUNT.fullmatch(account):
            raise Refused(400, "Invalid request: ad_account_id is not 1 to 18 digits")
        if self.is_closed and account != "0" and account not in self.accounts:
            raise Refused(403)
        rate = self.settings.read_rate if is_read else self.settings.write_rate
        key = f"{granted.client_id if granted else ''} {is_read}"
        if rate is not None and self._windows.used(key, _MINUTE) >= rate:
            wait = {"retry-after": str(self._windows.left_s(_MINUTE))} if self.settings.retry_after else {}
            raise Refused(429, headers=wait)
        self._windows.count(key, _MINUTE)

    def _list_accounts(self, call: Call) -> dict[str, Any]:
        return _page(call, [self._shown_account(one) for one in self.accounts])

    def _shown_account(self, account: str) -> dict[str, Any]:
        name = self.accounts.get(account, f"Account {account}")
        owner = {"username": "sandbox", "id": "1"}
        return {
            "id": account, "name": name, "owner": owner, "country": "US", "currency": "USD", "permissions": ["OWNER"],
            "created_time": 1_577_836_800, "updated_time": 1_577_836_800,
        }  # fmt: skip

    def _list_lists(self, call: Call) -> dict[str, Any]:
        account, now = call.params["ad_account_id"], self.clock()
        return _page(call, [one.resource(now) for one in self.lists.values() if one.account == account])

    def _create_list(self, call: Call) -> dict[str, Any]:
        body = msgspec.json.decode(call.body, type=_NewList)
        if not body.name:
            raise Refused(400, "Invalid request: name is empty")
        records = self._records(call, body.records)
        return self.new_list(call.params["ad_account_id"], body.name, records).resource(self.clock())

    def _read_list(self, call: Call) -> dict[str, Any]:
        return self._list(call).resource(self.clock())

    def _change_list(self, call: Call) -> dict[str, Any]:
        body = msgspec.json.decode(call.body, type=_ListChange)
        records = self._records(call, body.records)
        one = self._list(call)
        one.change(body.operation_type, records, self.clock(), self.settings.processing_s)
        return one.resource(self.clock())

    def _list(self, call: Call) -> CustomerList:
        one = self.lists.get(call.params["id"])
        if one is None or one.account != call.params["ad_account_id"]:
            raise Refused(404, "Customer list not found.")
        return one

    def _records(self, call: Call, text: str) -> list[str]:
        records = [one.strip() for one in text.split(",") if one.strip()]
        if not records:
            raise Refused(400, "Invalid request: records is empty")
        if len(records) > self.settings.max_records or len(call.body) > self.settings.max_bytes:
            most = f"{self.settings.max_records} records or {self.settings.max_bytes} bytes"
            raise Refused(400, f"Invalid request: one call holds at most {most}")
        return records

    def _list_audiences(self, call: Call) -> dict[str, Any]:
        account, now = call.params["ad_account_id"], self.clock()
        ownership = call.args.get("ownership_type", "OWNED")
        if ownership not in {"OWNED", "RECEIVED"}:
            raise Refused(400, "Invalid ad account audience parameters.")
        owned = self.audiences.values() if ownership == "OWNED" else ()
        return _page(call, [one.resource(now) for one in owned if one.account == account])

    def _create_audience(self, call: Call) -> dict[str, Any]:
        body = msgspec.json.decode(call.body, type=_NewAudience)
        account = call.params["ad_account_id"]
        if body.audience_type == "CUSTOMER_LIST":
            self._check_feed(account, body.rule)
        elif body.audience_type == "ACTALIKE":
            self._check_seeds(account, body.rule)
        made = self.new_audience(account, body.name, body.audience_type, body.rule, body.description)
        return made.resource(self.clock())

    def _check_feed(self, account: str, rule: dict[str, Any]) -> None:
        feed = self.lists.get(str(rule.get("customer_list_id")))
        if feed is None or feed.account != account:
            raise Refused(400, "Invalid request: rule.customer_list_id is no customer list of this ad account")
        status, needs = feed.status(self.clock()), self.settings.audience_needs
        if needs != "any" and (status == "PROCESSING" or (needs == "ready" and status != "READY")):
            raise Refused(400, f"Invalid request: the customer list is {status}")

    def _check_seeds(self, account: str, rule: dict[str, Any]) -> None:
        seeds, country, percent = rule.get("seed_id"), rule.get("country"), rule.get("percentage")
        if not isinstance(seeds, list) or not seeds:
            raise Refused(400, "Invalid request: rule.seed_id is not a list of audiences")
        if not isinstance(country, str) or not _COUNTRY.fullmatch(country):
            raise Refused(400, "Invalid request: rule.country is not a country of two capital letters")
        if not isinstance(percent, int) or isinstance(percent, bool) or not 1 <= percent <= 10:
            raise Refused(400, "Invalid request: rule.percentage is not an integer from 1 to 10")
        for seed in seeds:
            one = self.audiences.get(str(seed))
            if one is None or one.account != account:
                raise Refused(400, "Invalid request: rule.seed_id names no audience of this ad account")
            if (status := one.status(self.clock())) != "READY":
                raise Refused(400, f"Invalid request: the seed audience is {status}")

    def _read_audience(self, call: Call) -> dict[str, Any]:
        return self._audience(call).resource(self.clock())

    def _change_audience(self, call: Call) -> dict[str, Any]:
        body = msgspec.json.decode(call.body, type=_AudienceChange)
        one = self._audience(call)
        one.updated = self.clock()
        if body.operation_type == "REMOVE":
            del self.audiences[one.id]
            return one.resource(self.clock())
        one.name = one.name if body.name is None else body.name
        one.description = one.description if body.description is None else body.description
        if body.rule is not None:
            self._check_feed(one.account, body.rule) if one.type == "CUSTOMER_LIST" else None
            one.rule, one.feed = body.rule, self.lists.get(str(body.rule.get("customer_list_id")))
        return one.resource(self.clock())

    def _audience(self, call: Call) -> Audience:
        one = self.audiences.get(call.params["id"])
        if one is None or one.account != call.params["ad_account_id"]:
            raise Refused(404, "Audience not found.")
        return one


def _page(call: Call, items: list[dict[str, Any]]) -> dict[str, Any]:
    args = call.args
    size, order, bookmark = args.get("page_size", "25"), args.get("order", "ASCENDING"), args.get("bookmark", "")
    if not size.isdecimal() or not 1 <= int(size) <= 250 or order not in {"ASCENDING", "DESCENDING"}:
        raise Refused(400, "Invalid request: page_size is 1 to 250, order is ASCENDING or DESCENDING")
    try:
        start = int(base64.urlsafe_b64decode(bookmark)) if bookmark else 0
    except ValueError:
        raise Refused(400, "Invalid request: bookmark is unknown") from None
    ordered = items[::-1] if order == "DESCENDING" else items
    end = start + int(size)
    after = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(ordered) else None
    return {"items": ordered[start:end], "bookmark": after}


def _error(status: int, headers: dict[str, str]) -> Answer:
    return answers.error(status, headers=headers)


def _shorten(page: dict[str, Any], keep: bool) -> None:
    if "items" in page:
        page["bookmark"] = None
        page["items"] = page["items"] if keep else []
