"""In-memory doubles of a source and a sink of audiences, with scripted faults, and an engine that can be killed."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from gateway.audience import AudienceError, AudienceSink, AudienceSource, Group, LeftOut, Member, Page
from gateway.audiences import Audiences, Settings
from gateway.interfaces import Context, NoOptions
from gateway.testing.doubles import Clock

T = TypeVar("T")


class Kill(BaseException):
    """The process ends here."""


def sha(email: str) -> str:
    """Return the hash that the sink is to get for a normalised address."""
    return hashlib.sha256(email.encode()).hexdigest()


class People(msgspec.Struct):
    """A list or segment: profile to (e-mail, why it is left out, when it joined)."""

    name: str
    kind: str = "list"
    members: dict[str, tuple[str, LeftOut | None, float]] = {}
    state: str = "ready"
    size: int | None = None
    refusal: str = ""

    def group(self, group_id: str) -> Group:
        size = len(self.members) if self.size is None else self.size
        return Group(id=group_id, name=self.name, kind=self.kind, size=size, state=self.state, refusal=self.refusal)


class Scripted:
    """Calls by name; before and after each, a fault from the script or a hook."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        #: (call or "", stage, error): raised once, at the next such call, before or after it had its effect.
        self.faults: deque[tuple[str, Literal["before", "after"], BaseException]] = deque()
        self.hook: Callable[[str], None] = lambda _: None

    def at(self, call: str, stage: Literal["before", "after"]) -> None:
        if stage == "before":
            self.calls.append(call)
            self.hook(call)
        if self.faults and self.faults[0][0] in ("", call) and self.faults[0][1] == stage:
            raise self.faults.popleft()[2]


class MemorySource(AudienceSource):
    """Lists in memory; a cursor is the place in the order of joining, so it survives joins and leaves."""

    type: ClassVar[str] = "memory"
    tells_who_joined = True

    def __init__(self, clock: Clock, *, page_size: int = 3) -> None:
        super().__init__("memory", NoOptions(), Context())
        self.clock = clock
        self.page_size = page_size
        self.lists: dict[str, People] = {}
        self.script = Scripted()
        self.expired: set[str] = set()

    def join(self, group: str, profile: str, email: str, left_out: LeftOut | None = None) -> None:
        self.lists[group].members[profile] = (email, left_out, self.clock())

    def change(self, group: str, profile: str, email: str, left_out: LeftOut | None = None) -> None:
        self.lists[group].members[profile] = (email, left_out, self.lists[group].members[profile][2])

    async def groups(self, search: str = "") -> Sequence[Group]:
        self.script.at("groups", "before")
        return [each.group(name) for name, each in self.lists.items() if search.lower() in each.name.lower()]

    async def group(self, kind: str, group_id: str) -> Group:
        self.script.at("group", "before")
        if group_id not in self.lists or self.lists[group_id].kind != kind:
            raise AudienceError(f"There is no {kind} {group_id}.")
        return self.lists[group_id].group(group_id)

    async def page(self, group: Group, cursor: str | None = None, *, since: float | None = None) -> Page:
        self.script.at("page", "before")
        if cursor is None:
            self.expired.clear()
        if cursor in self.expired:
            raise AudienceError("The cursor has expired.", retry_after_s=0)
        start = (float(cursor.split("|")[0]), cursor.split("|")[1]) if cursor else (since or 0.0, "")
        people = (
            sorted(
                ((at, profile), Member(id=profile, email=email, left_out=left_out))
                for profile, (email, left_out, at) in self.lists[group.id].members.items()
                if ((at, profile) > start if cursor else at >= start[0])
            )
            if len(self.lists[group.id].members)
            else []
        )
        found = people[: self.page_size]
        more = len(people) > self.page_size
        self.script.at("page", "after")
        return Page(
            members=tuple(member for _, member in found),
            cursor=f"{found[-1][0][0]!r}|{found[-1][0][1]}" if more else None,
            newest=found[-1][0][0] if found else None,
        )


class MemorySink(AudienceSink):
    """Feeds and audiences in memory; whatever is applied is checked for form."""

    type: ClassVar[str] = "memory"
    max_records: ClassVar[int] = 4

    def __init__(self) -> None:
        super().__init__("memory", NoOptions(), Context())
        self.script = Scripted()
        self.listed: list[Group] = [Group(id="A1", name="Shop", kind="account")]
        self.feeds: dict[str, set[str]] = {}
        self.audiences: dict[str, Group] = {}
        self.told: list[tuple[str, int]] = []

    def existing(self, audience: str, name: str, emails: Sequence[str] = (), feed: str = "") -> None:
        feed = feed or f"feed-{audience}"
        self.feeds.setdefault(feed, set()).update(map(sha, emails))
        self.audiences[audience] = Group(id=audience, name=name, kind="CUSTOMER_LIST", feed=feed)

    async def accounts(self) -> Sequence[Group]:
        self.script.at("accounts", "before")
        return self.listed

    async def groups(self, account: str, search: str = "") -> Sequence[Group]:
        self.script.at("groups", "before")
        return [each for each in self.audiences.values() if search.lower() in each.name.lower()]

    async def group(self, account: str, audience: str) -> Group:
        self.script.at("group", "before")
        if audience not in self.audiences:
            raise AudienceError(f"There is no audience {audience}.")
        return self.audiences[audience]

    async def create_feed(self, account: str, name: str, hashes: Sequence[str]) -> str:
        self.script.at("create_feed", "before")
        self._check(hashes)
        feed = f"feed{len(self.feeds) + 1}"
        self.feeds[feed] = set(hashes)
        self.script.at("create_feed", "after")
        return feed

    async def create_audience(self, account: str, name: str, feed: str) -> Group:
        self.script.at("create_audience", "before")
        audience = Group(id=f"audience{len(self.audiences) + 1}", name=name, kind="CUSTOMER_LIST", feed=feed)
        self.audiences[audience.id] = audience
        self.script.at("create_audience", "after")
        return audience

    async def apply(self, account: str, feed: str, operation: Literal["add", "remove"], hashes: Sequence[str]) -> None:
        self.script.at(operation, "before")
        self._check(hashes)
        assert account == "A1"
        if operation == "add":
            self.feeds[feed] |= set(hashes)
        else:
            self.feeds[feed] -= set(hashes)
        self.told.append((operation, len(hashes)))
        self.script.at(operation, "after")

    async def create_lookalike(self, account: str, name: str, audience: str, country: str, percent: int) -> Group:
        self.script.at("create_lookalike", "before")
        return Group(id="lookalike", name=f"{name} {audience} {country} {percent}", kind="ACTALIKE")

    def _check(self, hashes: Sequence[str]) -> None:
        assert 0 < len(hashes) <= self.max_records
        assert len(set(hashes)) == len(hashes)
        assert all(len(each) == 64 and set(each) <= set("0123456789abcdef") for each in hashes)


class World:
    """Both sides, and an engine on a file that can be killed and opened again."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.path = folder / "audiences.db"
        self.clock = Clock()
        self.settings = settings or Settings(commit_every=1)
        self.source = MemorySource(self.clock)
        self.sink = MemorySink()
        self.barred: set[str] = set()
        self.slept: list[float] = []
        self.metered: list[tuple[str, int, int]] = []
        #: Counts down over the store's jobs; at 0 the process ends, before or after the commit.
        self.kill_in: tuple[int, Literal["before", "after"]] | None = None
        self.engine = self._engine()

    def group(self, group: str, *emails: str, kind: str = "list", name: str = "") -> None:
        """Make a list whose profiles are p0, p1 and so on."""
        members = {f"p{number}": (email, None, self.clock()) for number, email in enumerate(emails)}
        self.source.lists[group] = People(name=name or group, kind=kind, members=dict(members))

    def people(self, group: str, number: int) -> list[str]:
        """Make a list of so many; returns their addresses."""
        emails = [f"n{each}@shop.example" for each in range(number)]
        self.group(group, *emails)
        return emails

    def _engine(self) -> Audiences:
        engine = Audiences(
            self.path,
            {"memory": self.source},
            {"memory": self.sink},
            self.settings,
            self.clock,
            self._barred,
            meter=lambda what, number, by: self.metered.append((what, number, by)),
            sleep=self._sleep,
            ticks=self.clock,
        )
        do = engine._store.do

        async def killable(job: Callable[[Any], T]) -> T:
            if self._dies("before"):
                raise Kill
            result = await do(job)
            if self._dies("after"):
                raise Kill
            return result

        engine._store.do = killable  # type: ignore[method-assign]
        return engine

    def _dies(self, stage: str) -> bool:
        if self.kill_in is None or self.kill_in[1] != stage:
            return False
        left, when = self.kill_in
        self.kill_in = None if left == 0 else (left - 1, when)
        return left == 0

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def _barred(self, hashes: Sequence[str]) -> set[str]:
        return self.barred & set(hashes)

    def run(self, scenario: Callable[[Audiences], Awaitable[T]]) -> T:
        """Run a scenario on the engine as it is, opening the file when that is not done."""

        async def inner() -> T:
            if self.engine._store._db is None:
                await self.engine.open()
            return await scenario(self.engine)

        return asyncio.run(inner())

    def die(self) -> None:
        """Drop the engine as it stands, and make another for the same file."""
        self.kill_in = None
        self.engine._store.close()
        self.engine = self._engine()

    def close(self) -> None:
        self.engine._store.close()
