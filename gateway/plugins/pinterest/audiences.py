"""The sink: the customer lists and audiences of Pinterest's ad accounts."""

import builtins
import hashlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from gateway import (
    Answer,
    AudienceError,
    AudienceSink,
    Call,
    Calls,
    Context,
    Credential,
    FixedToken,
    Group,
    Limit,
    OAuth,
    Pace,
    Struct,
    shared_pace,
    token_path,
)
from gateway.plugins.pinterest import audience_objects as objects
from gateway.plugins.pinterest import oauth
from gateway.plugins.pinterest.audience_options import AudienceOptions, check

T = TypeVar("T")
#: The largest page of audiences. Source: OpenAPI 5.23.0, parameter ``page_size``.
PAGE_SIZE = 250
#: Of ad accounts, whose largest page was 100 for long.
ACCOUNTS_PAGE_SIZE = 100
#: Bytes of one call's body. Source: what Tealium's connector sends at most (10,000 records or 1 MB); Pinterest's own
#: documents name no limit.
MAX_BYTES = 1_000_000
_MAX_PAGES = 400
#: A customer list this young and with exactly our records is the one whose creation got no answer, in seconds.
_YOUNG_S = 900.0
_ID = re.compile(r"[0-9]{1,18}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")


class PinterestAudiences(AudienceSink):
    """
    Feeds audiences of type CUSTOMER_LIST through their customer lists, at ``{base_url}/ad_accounts/…``.

    ``login`` is the sign-in, None with a token. ``read_pace`` and ``write_pace`` are the user's and app's.

    Raises:
        ValueError: An option cannot work; see :func:`check`.
    """

    type: ClassVar[str] = "pinterest"
    Options: ClassVar[builtins.type[Struct]] = AudienceOptions
    max_records: ClassVar[int] = 10_000
    options: AudienceOptions

    def __init__(self, name: str, options: Any, context: Context) -> None:
        super().__init__(name, options, context)
        check(self.options)
        self._where = f"[audience_sinks.{name}]"
        self.login: OAuth | None = None
        credential: Credential
        if self.options.token is None:
            path = token_path(context, self.options.token_file, f"audience-sink-{name}")
            credential = self.login = OAuth(oauth.app(self.options, self._where), path, context, self.options.timeout_s)
            account = f"app:{self.options.app_id}:{path}"
        else:
            credential = FixedToken(self.options.token)
            account = f"token:{hashlib.sha256(self.options.token.value.strip().encode()).hexdigest()}"
        self._calls = Calls("Pinterest", context, credential, timeout_s=self.options.timeout_s)
        self._base = self.options.base_url.rstrip("/")
        of_all = f"pinterest:{self._base}:{account}"
        self.read_pace = shared_pace(f"{of_all}:read", lambda: self._new_pace(self.options.reads_per_minute))
        self.write_pace = shared_pace(f"{of_all}:write", lambda: self._new_pace(self.options.writes_per_minute))

    def _new_pace(self, per_minute: int) -> Pace:
        limits = [Limit(calls=per_minute, seconds=60.0)]
        if self.options.calls_per_day:
            # reading and writing draw on the day's one allowance: half for each is safe
            limits.append(Limit(calls=max(1, self.options.calls_per_day // 2), seconds=86_400.0))
        return Pace(*limits)

    async def accounts(self) -> Sequence[Group]:
        """Return the ad accounts of the token's user, or the configured one."""
        configured = self.options.ad_account_id
        if configured is not None:
            return [Group(id=configured, name=configured, kind="account")]
        found: list[Group] = []
        query = {"page_size": str(ACCOUNTS_PAGE_SIZE)}
        for _ in range(_MAX_PAGES):
            page = await self._get("/ad_accounts", query, objects.Accounts, "the ad accounts")
            found += [Group(id=one.id, name=one.name or one.id, kind="account") for one in page.items]
            if not self._turn_page(query, page.bookmark):
                break
        return found

    async def groups(self, account: str, search: str = "") -> Sequence[Group]:
        """Return the audiences that the account owns, the newest first."""
        path = f"{self._account(account)}/audiences"
        query = {"order": "DESCENDING", "page_size": str(PAGE_SIZE)}
        wanted = search.casefold()
        found: list[Group] = []
        for _ in range(_MAX_PAGES):
            page = await self._get(path, query, objects.Audiences, "the audiences")
            found += [group for one in page.items if wanted in (group := objects.group(one)).name.casefold()]
            if not self._turn_page(query, page.bookmark):
                break
        return found

    def _turn_page(self, query: dict[str, str], bookmark: str | None) -> bool:
        if not bookmark:
            return False
        if bookmark == query.get("bookmark"):
            raise AudienceError("Pinterest names the same page as the next one.", retry_after_s=60.0)
        query["bookmark"] = bookmark
        return True

    async def group(self, account: str, audience: str) -> Group:
        """Return one audience as it is now."""
        path = f"{self._account(account)}/audiences/{_id(audience, 'audience')}"
        return objects.group(await self._get(path, {}, objects.Audience, f"the audience {audience}"))

    async def create_feed(self, account: str, name: str, hashes: Sequence[str]) -> str:
        """
        Create a customer list with its first members; returns its id.

        A list cannot be deleted at Pinterest: when no answer came, the one that was made is looked for first.
        """
        body = objects.CustomerListCreate(name=name, records=self._records(hashes))
        path = f"{self._account(account)}/customer_lists"
        try:
            made = await self._write("POST", path, body, objects.CustomerList, "a new customer list")
        except AudienceError as error:
            found = await self._made(path, name, len(hashes)) if error.ambiguous else None
            if found is None:
                raise
            return found
        return made.id

    async def _made(self, path: str, name: str, count: int) -> str | None:
        query = {"order": "DESCENDING", "page_size": "25"}
        try:
            page = await self._get(path, query, objects.CustomerLists, "the customer lists")
        except AudienceError:
            return None
        oldest = self.context.clock() - _YOUNG_S
        for one in page.items:
            ours = one.name == name and one.num_batches == 1 and one.num_uploaded_user_records == count
            if ours and (one.created_time or 0.0) >= oldest:
                return one.id
        return None

    async def create_audience(self, account: str, name: str, feed: str) -> Group:
        """
        Create the audience of a customer list; one that is there already, from a call without answer, is returned.

        Pinterest refuses while it reads the list, and one with fewer than 100 people who have an account there.
        """
        feed = _id(feed, "customer list")
        for group in await self.groups(account):
            if group.feed == feed:
                return group
        body = objects.AudienceCreate(
            name=name, audience_type="CUSTOMER_LIST", rule=objects.Rule(customer_list_id=feed)
        )
        path = self._account(account)
        try:
            made = await self._write("POST", f"{path}/audiences", body, objects.Audience, "a new audience")
        except AudienceError as error:
            if error.retry_after_s is not None:
                raise
            raise await self._why_not(path, feed) or error from None
        group = objects.group(made)
        return msgspec.structs.replace(group, feed=feed, refusal="", kind="CUSTOMER_LIST")

    async def _why_not(self, path: str, feed: str) -> AudienceError | None:
        """Return why no audience can be made of a list yet; None when the list is not the reason."""
        found = await self._get(f"{path}/customer_lists/{feed}", {}, objects.CustomerList, "the customer list")
        if found.status in ("PROCESSING", "UPLOADING"):
            return AudienceError(
                f"Pinterest still reads the customer list {feed}: the audience follows by itself.", retry_after_s=60.0
            )
        if found.status == "TOO_SMALL":
            return AudienceError(
                f"Fewer than {objects.SMALLEST} people of the customer list {feed} have a Pinterest account: the "
                "audience follows by itself once there are more.",
                retry_after_s=3600.0,
            )
        return None

    async def apply(self, account: str, feed: str, operation: Literal["add", "remove"], hashes: Sequence[str]) -> None:
        """Add or remove members in one call; adding twice or removing whom the list does not hold changes nothing."""
        body = objects.CustomerListUpdate(
            operation_type="ADD" if operation == "add" else "REMOVE", records=self._records(hashes)
        )
        path = f"{self._account(account)}/customer_lists/{_id(feed, 'customer list')}"
        await self._write("PATCH", path, body, objects.CustomerList, f"the customer list {feed}")

    def _records(self, hashes: Sequence[str]) -> str:
        if not 1 <= len(hashes) <= self.max_records:
            raise AudienceError(f"One call takes 1 to {self.max_records:,} records, not {len(hashes):,}.")
        if not all(map(_HASH.match, hashes)):
            raise AudienceError("A record is not a SHA-256 hash of 64 lower-case hex digits: nothing was sent.")
        return ",".join(hashes)

    async def create_lookalike(self, account: str, name: str, audience: str, country: str, percent: int) -> Group:
        """Create an actalike audience; the seed must be ``READY``, and of at least 100 people."""
        if not 1 <= percent <= 10:
            raise AudienceError(f"percent must be 1 to 10, not {percent}.")
        if not _COUNTRY.match(country):
            raise AudienceError("country must be a code of two capital letters, such as US, CA or GB.")
        rule = objects.Rule(seed_id=(_id(audience, "audience"),), country=country, percentage=percent)
        body = objects.AudienceCreate(name=name, audience_type="ACTALIKE", rule=rule)
        path = f"{self._account(account)}/audiences"
        try:
            made = await self._write("POST", path, body, objects.Audience, f"an actalike of {audience}")
        except AudienceError as error:
            seed = await self.group(account, audience) if error.retry_after_s is None else None
            if seed is None or seed.state == "ready":
                raise
            raise AudienceError(
                f"Pinterest makes no actalike of {audience} while it is {seed.state}: it needs at least "
                f"{objects.SMALLEST} people who have an account there. Try again when it is ready."
            ) from None
        return msgspec.structs.replace(objects.group(made), kind="ACTALIKE")

    async def probe(self) -> str | None:
        """Read the audiences of the first account; None when the token may."""
        try:
            accounts = await self.accounts()
            if not accounts:
                return "The token opens no ad account: its user must own one, or have a role in one."
            path = f"{self._account(accounts[0].id)}/audiences"
            await self._get(path, {"page_size": "1"}, objects.Audiences, "the audiences")
        except AudienceError as error:
            return str(error)
        return None

    def _account(self, account: str) -> str:
        chosen = account or self.options.ad_account_id
        if not chosen:
            raise AudienceError(f"Say which ad account is meant: set {self._where} ad_account_id, or name it.")
        return f"/ad_accounts/{_id(chosen, 'ad account')}"

    async def _get(self, path: str, query: dict[str, str], kind: builtins.type[T], what: str) -> T:
        tail = f"?{urlencode(query)}" if query else ""
        call = Call(method="GET", url=f"{self._base}{path}{tail}", headers={"accept": "application/json"})
        return self._read(call, await self._calls.send(self.read_pace, call), kind, what)

    async def _write(self, method: str, path: str, body: Struct, kind: builtins.type[T], what: str) -> T:
        content = msgspec.json.encode(body)
        if len(content) > MAX_BYTES:
            raise AudienceError(f"The call would be {len(content):,} bytes, over {MAX_BYTES:,}: send fewer records.")
        headers = {"accept": "application/json", "content-type": "application/json"}
        call = Call(method=method, url=f"{self._base}{path}", headers=headers, content=content)
        return self._read(call, await self._calls.send(self.write_pace, call), kind, what)

    def _read(self, call: Call, answer: Answer, kind: builtins.type[T], what: str) -> T:
        if answer.status >= 400:
            raise self._refused(call, answer, what)
        return self._calls.decoded(call, answer, kind)

    def _refused(self, call: Call, answer: Answer, what: str) -> AudienceError:
        told = f"({answer.status}{objects.error_code(answer.body)})"
        if answer.status == 401:
            remedy = (
                f"set {self._where} token to an OAuth token with {oauth.SCOPE}; a conversion token is not enough."
                if self.login is None
                else "run 'tag-gateway audiences login'."
            )
            return AudienceError(f"Pinterest does not accept the token {told}: {remedy}")
        if answer.status == 403:
            scope = "ads:write" if call.writes else "ads:read"
            return AudienceError(
                f"The token is not permitted {what} {told}: it needs the scope {scope}, and its user must own the ad "
                "account or have the role Admin, Audience or Campaign in it."
            )
        if answer.status == 404:
            return AudienceError(f"Pinterest does not have {what} {told}: was it deleted, or is it another account's?")
        return AudienceError(f"Pinterest refuses the request for {what} {told}: nothing was changed.")


def _id(text: str, what: str) -> str:
    if not _ID.match(text):
        raise AudienceError(f"The id of this {what} is not a number of up to 18 digits: look it up in the list.")
    return text
