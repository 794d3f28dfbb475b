"""The memory: what a later event gets of an earlier hit, what it never gets, and what a person chose."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.event import Client, Consent, Event, Key, User
from gateway.hit import Secret, Source
from gateway.memory import Memory, Trail
from gateway.outbox import ALLOWED, LIMITED, OPTED_OUT, Memorandum, Remembered, schema
from gateway.outbox.memories import Memories
from gateway.outbox.recollection import Filter
from gateway.outbox.sqlite import SqliteOutbox
from gateway.subjects import person_of
from gateway.testing.doubles import NOW, Clock

DAY = 86_400
LIFE_S = 30 * DAY
SHOP = Source(name="api", adapter="browser_tag", site="shop", destinations=("p",), secrets=(Secret(value="s3cret"),))
OTHER = structs.replace(SHOP, name="else", site="other")
CLIENT = Client(ip="8.8.4.4", user_agent="Mozilla/5.0 (X11; Linux x86_64) Chrome/131.0")
#: Every key of a hit that knows them all.
KEYS: dict[str, Any] = {
    "client_id": "browser-77", "cart_token": "cart-55", "keys": (Key(kind="checkout", value="checkout-33"),),
    "user": User(email=("Jo@Example.com",), external_id=("customer-9",)),
}  # fmt: skip
#: One key of a later event, under its kind.
LATER: dict[str, dict[str, Any]] = {
    "client": {"client_id": "browser-77"},
    "checkout": {"keys": (Key(kind="order", value="1"), Key(kind="checkout", value="checkout-33"))},
    "cart": {"cart_token": "cart-55"},
    "email": {"user": User(email=(" jo@example.COM",))},
    "external_id": {"user": User(external_id=("customer-9",))},
}


def event(click: str | None = None, **fields: Any) -> Event:
    return Event(name="checkout", click_ids={} if click is None else {"epik": click}, **fields)


class Bench:
    """A memory on a store of its own; ``cold`` forgets the cache after every event, as a restart does."""

    def __init__(self, folder: Path, clock: Clock, *, cold: bool = False, life_s: int = LIFE_S, keys: int = 1_000_000):
        self.path = folder / "gateway.db"
        self.clock = clock
        self.life_s = life_s
        self.cold = cold
        self.outbox = SqliteOutbox(self.path, clock=clock, linger_s=0.0, memory_keys=keys)
        self.memory = Memory(self.outbox, clock, life_s)

    def forget_cache(self) -> None:
        self.memory = Memory(self.outbox, self.clock, self.life_s)

    async def see(
        self, told: Event, *, ago: float = 0.0, source: Source = SHOP, limited: bool = False
    ) -> tuple[Event, Trail]:
        """Take an event through the memory as the pipeline does; ``limited`` is what the privacy step decides."""
        found, trail = await self.memory.recall(told, source, self.clock() - ago)
        decided = structs.replace(found, limited_data=True) if limited else found
        noted = self.memory.note(trail, None if found.consent.marketing is False else decided) if trail.keys else ()
        if noted:
            await self.outbox.admit([], memories=noted)
        if self.cold:
            self.forget_cache()
        return found, trail

    async def got(self, **fields: Any) -> Event:
        """Return what a silent event of these fields would get; nothing is noted."""
        return (await self.memory.recall(event(**fields), SHOP, self.clock()))[0]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, read beside the writer."""
        with closing(sqlite3.connect(self.path)) as reader:
            reader.row_factory = sqlite3.Row
            newest = {row["digest"]: dict(row) for row in reader.execute("SELECT * FROM memory ORDER BY id")}
            return list(newest.values())

    async def upkeep(self) -> None:
        """Let the writer do all that is due."""
        await self.outbox._writer.run(self._step)

    def _step(self) -> tuple[None, None]:
        while self.outbox._memories.index(0.0, force=True):
            pass
        self.outbox._memories.step(self.clock())
        return None, None


Scenario = Callable[[Bench, Clock], Coroutine[Any, Any, None]]
Run = Callable[..., None]


@pytest.fixture(params=["cached", "stored"])
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """Run a scenario with a warm cache, and once from the store alone."""

    def go(scenario: Scenario, **options: Any) -> None:
        async def main() -> None:
            clock = Clock()
            bench = Bench(tmp_path, clock, cold=request.param == "stored", **options)
            try:
                await scenario(bench, clock)
            finally:
                await bench.outbox.close()

        asyncio.run(main())

    return go


# -- what a later event gets


@pytest.mark.parametrize("kind", LATER)
def test_a_later_event_gets_what_an_earlier_hit_knew(run: Run, kind: str) -> None:
    """By any one key the click id comes back; address and browser by a browser's keys alone, never by a person's."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click-1", client=CLIENT, **KEYS))
        clock.advance(600)
        found, trail = await bench.see(event(**LATER[kind]))
        assert found.click_ids == {"epik": "click-1"}
        is_browser = kind in ("client", "checkout")
        assert found.client == (CLIENT if is_browser else Client())
        assert trail.origins["epik"] == f"memory:{kind}"
        assert ("client_ip" in trail.origins) is ("client_user_agent" in trail.origins) is is_browser

    run(scenario)


@pytest.mark.parametrize("order", [(300, 100), (100, 300)], ids=["in order", "out of order"])
def test_the_newest_click_wins(run: Run, order: tuple[int, int]) -> None:
    """Of two clicks the later one counts, also when the earlier one is told afterwards."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        for ago in order:
            await bench.see(event(f"click-{ago}", client_id="b"), ago=ago)
        assert (await bench.got(client_id="b")).click_ids == {"epik": "click-100"}

    run(scenario)


def test_the_newest_click_wins_over_keys(run: Run) -> None:
    """Two keys know two clicks: the newer one counts, whichever key it is."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("old", client_id="b"), ago=500)
        await bench.see(event("new", cart_token="c"), ago=400)
        assert (await bench.got(client_id="b", cart_token="c")).click_ids == {"epik": "new"}

    run(scenario)


def test_own_values_always_win(run: Run) -> None:
    """An older event's own click id, address and browser stay; what it lacks is filled one by one."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("remembered", client=CLIENT, client_id="b"))
        own = Client(ip="1.1.1.1", user_agent="own")
        found, trail = await bench.see(event("own", client=own, client_id="b"), ago=10)
        assert (found.click_ids, found.client, trail.origins) == ({"epik": "own"}, own, {})
        found, trail = await bench.see(event(client=Client(ip="1.1.1.1"), client_id="b"))
        assert found.client == Client(ip="1.1.1.1", user_agent=CLIENT.user_agent)
        assert sorted(trail.origins) == ["client_user_agent", "epik"]

    run(scenario)


@pytest.mark.parametrize(("after_s", "is_given"), [(-60, True), (299, True), (301, False), (7_200, False)])
def test_what_came_after_an_event_did_not_lead_to_it(run: Run, after_s: int, is_given: bool) -> None:
    """A click or an address seen later than the event (five minutes for clocks) is not attributed to it."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        found, _ = await bench.see(event(client_id="b"), ago=after_s)
        assert (found.click_ids == {"epik": "click"}) is is_given
        assert (found.client == CLIENT) is is_given

    run(scenario)


def test_an_older_click_is_found_behind_a_later_one(run: Run) -> None:
    """A click after the event under one key does not hide the one before it under another."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("before", cart_token="c"), ago=7_200)
        await bench.see(event("after", client_id="b"))
        found, _ = await bench.see(event(client_id="b", cart_token="c"), ago=3_600)
        assert found.click_ids == {"epik": "before"}

    run(scenario)


@pytest.mark.parametrize(("later_s", "click", "client"), [
    (DAY - 1, True, True), (DAY, True, False), (LIFE_S - 1, True, False), (LIFE_S, False, False),
])  # fmt: skip
def test_everything_has_its_time(run: Run, later_s: int, click: bool, client: bool) -> None:
    """Address and browser live a day, a click thirty, to the second."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        clock.advance(later_s)
        found = await bench.got(client_id="b")
        assert (bool(found.click_ids), found.client == CLIENT) == (click, client)

    run(scenario)


def test_travelling_on_keeps_the_time(run: Run) -> None:
    """From the browser to its checkout and from there to the order: the click is as old as it was."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        clock.advance(DAY - 100)
        await bench.see(event(client_id="b", **LATER["checkout"]))
        clock.advance(50)
        assert (await bench.got(**LATER["checkout"])).client == CLIENT
        clock.advance(100)
        found = await bench.got(**LATER["checkout"])
        assert (found.client, found.click_ids) == (Client(), {"epik": "click"})
        clock.now = NOW + LIFE_S
        assert (await bench.got(**LATER["checkout"])).click_ids == {}

    run(scenario)


def test_a_click_travels_to_the_person_but_an_address_does_not(run: Run) -> None:
    """A browser that signs in leaves its click under the e-mail address, and never its own address."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        await bench.see(event(client_id="b", **LATER["email"]))
        found = await bench.got(**LATER["email"])
        assert (found.click_ids, found.client) == ({"epik": "click"}, Client())
        by_clicks = [row for row in bench.rows() if row["ip"] or row["user_agent"]]
        assert len(by_clicks) == 1, "under the browser alone"

    run(scenario)


def test_offline_events_have_no_browser(run: Run) -> None:
    """An offline event gets the click id and neither address nor browser, and leaves none of its own."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        found, _ = await bench.see(event(client_id="b", action_source="offline"))
        assert (found.click_ids, found.client) == ({"epik": "click"}, Client())
        await bench.see(event(client_id="till", client=CLIENT, action_source="offline"))
        assert (await bench.got(client_id="till")).client == Client()

    run(scenario)


def test_sites_do_not_meet(run: Run) -> None:
    """The same browser, cart, checkout and person at another site get nothing."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS))
        told = event(**KEYS)
        found, trail = await bench.see(told, source=OTHER)
        assert (found, trail.origins) == (told, {})

    run(scenario)


def test_half_an_address_does_not_replace_a_whole_one(run: Run) -> None:
    """A hit that knows less of the same browser leaves the rest; another browser's replaces it."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event(client=CLIENT, client_id="b"))
        clock.advance(7_200)
        await bench.see(event(client=Client(user_agent=CLIENT.user_agent), client_id="b"))
        assert (await bench.got(client_id="b")).client == CLIENT
        await bench.see(event(client=Client(ip="1.1.1.1"), client_id="b"))
        assert (await bench.got(client_id="b")).client == Client(ip="1.1.1.1")

    run(scenario)


def test_the_memory_can_be_switched_off(run: Run) -> None:
    """With ``memory_s = 0`` nothing is written and nothing is given."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS))
        assert await bench.got(**KEYS) == event(**KEYS)
        assert bench.rows() == []

    run(scenario, life_s=0)


# -- what a person chose

DENIED, GRANTED = Consent(marketing=False), Consent(marketing=True)
BARS: dict[str, dict[str, Any]] = {
    "denied": {"consent": DENIED}, "limited": {"limited_data": True}, "gpc": {"consent": Consent(gpc=True)},
    "no sale": {"consent": Consent(sale_of_data=False)},
}  # fmt: skip


@pytest.mark.parametrize("bar", BARS)
def test_nothing_is_remembered_of_who_said_no(run: Run, bar: str) -> None:
    """Denied or limited: click id, address and browser are not kept, and earlier ones go, from the disk too."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("first", client=CLIENT, **KEYS))
        clock.advance(10)
        await bench.see(event("second", client=CLIENT, **KEYS, **BARS[bar]), limited=bar != "denied")
        assert {(row["clicks"], row["ip"], row["user_agent"]) for row in bench.rows()} == {(None, None, None)}
        for later in LATER.values():
            found = await bench.got(**later)
            assert (found.click_ids, found.client) == ({}, Client())

    run(scenario)


@pytest.mark.parametrize("bar", BARS)
@pytest.mark.parametrize("kind", ["client", "email", "external_id"])
def test_a_choice_applies_to_later_events(run: Run, bar: str, kind: str) -> None:
    """A silent later event of the browser or the person is denied or limited as the earlier one was."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event(**KEYS, **BARS[bar]), limited=bar != "denied")
        clock.advance(5 * DAY)
        found = await bench.got(**LATER[kind])
        assert found.consent.marketing is (False if bar == "denied" else None)
        assert found.limited_data is (True if bar == "limited" else None)
        assert found.consent.sale_of_data is (False if bar in ("gpc", "no sale") else None)
        assert found.notes == ("privacy: remembered",)

    run(scenario)


@pytest.mark.parametrize("order", [(200, 100), (100, 200)], ids=["in order", "out of order"])
@pytest.mark.parametrize(("old", "new", "is_denied"), [(DENIED, GRANTED, False), (GRANTED, DENIED, True)])
def test_the_newest_choice_wins(run: Run, order: tuple[int, int], old: Consent, new: Consent, is_denied: bool) -> None:
    """Denied then granted is granted, granted then denied is denied, in whichever order the hits arrive."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("before", client=CLIENT, client_id="b"), ago=300)
        for ago in order:
            await bench.see(event(client_id="b", consent=old if ago == 200 else new), ago=ago)
        assert ((await bench.got(client_id="b")).consent.marketing is False) is is_denied

    run(scenario)


def test_a_grant_from_before_the_denial_does_not_help(run: Run) -> None:
    """A late event that says "granted" is dropped when the person denied since; one that came after is not."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event(client_id="b", consent=DENIED), ago=100)
        late, _ = await bench.see(event(client_id="b", consent=GRANTED), ago=200)
        assert late.consent.marketing is False
        assert (await bench.got(client_id="b")).consent.marketing is False
        after, _ = await bench.see(event(client_id="b", consent=GRANTED), ago=50)
        assert after.consent.marketing is True
        assert (await bench.got(client_id="b")).consent.marketing is None

    run(scenario)


def test_a_late_denial_does_not_undo_a_newer_grant(run: Run) -> None:
    """What was remembered after the grant stays when an older denial arrives; the late event itself is dropped."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client_id="b", consent=GRANTED), ago=50)
        late, _ = await bench.see(event("refused", client_id="b", consent=DENIED), ago=100)
        assert late.consent.marketing is False
        found = await bench.got(client_id="b")
        assert (found.click_ids, found.consent.marketing) == ({"epik": "click"}, None)

    run(scenario)


def test_a_permission_alone_is_no_row(run: Run) -> None:
    """Everybody who agrees costs nothing: a permission is kept only beside something else."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event(consent=structs.replace(GRANTED, sale_of_data=True), **KEYS))
        assert bench.rows() == []

    run(scenario)


@pytest.mark.parametrize("signal", [{"consent": Consent(gpc=True)}, {"consent": Consent(sale_of_data=False)}])
def test_a_signal_does_not_weaken_what_was_said(run: Run, signal: dict[str, Any]) -> None:
    """Limited data that a source said stays explicit after a mere signal, for that event and under its other keys."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event(client_id="b", limited_data=True), limited=True)
        clock.advance(100)
        found, _ = await bench.see(event(client_id="b", cart_token="c", **signal))
        assert found.limited_data is True
        assert (await bench.got(client_id="b")).limited_data is True
        assert (await bench.got(cart_token="c")).limited_data is True

    run(scenario)


def test_an_explicit_permission_lifts_the_limit(run: Run) -> None:
    """``limited_data = false`` later on ends what was said, and a signal after it is a signal."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event(client_id="b", limited_data=True), limited=True)
        clock.advance(100)
        await bench.see(event(client_id="b", limited_data=False))
        assert (await bench.got(client_id="b")).limited_data is None
        clock.advance(100)
        await bench.see(event(client_id="b", consent=Consent(gpc=True)), limited=True)
        found = await bench.got(client_id="b")
        assert (found.limited_data, found.consent.sale_of_data) == (None, False)

    run(scenario)


def test_what_the_privacy_step_read_is_remembered(run: Run) -> None:
    """An opt-out in a string that only the privacy step reads counts later, also against an older permission."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client_id="b", consent=Consent(sale_of_data=True)))
        clock.advance(10)
        await bench.see(event(client_id="b", consent=Consent(us_privacy="1YYN")), limited=True)
        found = await bench.got(client_id="b")
        assert (found.consent.sale_of_data, found.click_ids) == (False, {})

    run(scenario)


def test_a_choice_is_remembered_for_thirty_days(run: Run) -> None:
    """A refusal counts a second before its time is over and not after it, in a process that runs on too."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event(client_id="b", consent=DENIED))
        clock.advance(LIFE_S - 1)
        assert (await bench.got(client_id="b")).consent.marketing is False
        clock.advance(3)
        assert (await bench.got(client_id="b")).consent.marketing is None

    run(scenario)


def test_a_refusal_that_is_over_takes_away_all_the_same(run: Run) -> None:
    """A very old limited event leaves no choice, and nothing else either: the row goes."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        await bench.see(event(client_id="b", limited_data=True), ago=LIFE_S + 10, limited=True)
        assert bench.rows() == []
        assert await bench.got(client_id="b") == event(client_id="b")

    run(scenario)


def test_a_denied_event_gets_nothing(run: Run) -> None:
    """A person known under one key as denied is not given the click that another key knows."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        await bench.see(event(consent=DENIED, **LATER["email"]))
        found, trail = await bench.see(event(client_id="b", **LATER["email"]))
        assert (found.click_ids, found.client, trail.origins) == ({}, Client(), {})
        assert (await bench.got(client_id="b")).click_ids == {}, "and the browser's own is gone with it"

    run(scenario)


# -- what is on disk


def test_only_keyed_hashes_are_keys(run: Run) -> None:
    """Neither client id, tokens, e-mail address nor customer id are in the store, plain or as plain hashes."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS))
        await bench.outbox.close()
        content = bench.path.read_bytes()
        assert b"click" in content, "the control"
        for raw in ("browser-77", "cart-55", "checkout-33", "jo@example.com", "Jo@Example.com", "customer-9"):
            assert raw.encode() not in content

    run(scenario)


def test_the_time_limits_hold_on_disk_too(run: Run) -> None:
    """Upkeep empties the address after a day, and deletes the row when the click is over."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        await bench.see(event(client=CLIENT, client_id="visitor"))
        clock.advance(DAY + 2)
        await bench.upkeep()
        (row,) = bench.rows()
        assert (row["clicks"], row["ip"], row["user_agent"]) == ('{"epik":"click"}', None, None)
        clock.now = NOW + LIFE_S + 2
        await bench.upkeep()
        assert bench.rows() == []

    run(scenario)


def test_a_visitor_who_returns_does_not_keep_an_old_click(run: Run) -> None:
    """Hits of the same browser renew its address, and not what is too old: that leaves the disk with the next one."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, client_id="b"))
        clock.advance(LIFE_S + 5)
        await bench.see(event(client=CLIENT, client_id="b"))
        (row,) = bench.rows()
        assert (row["clicks"], row["ip"]) == (None, CLIENT.ip)
        assert row["expires"] <= clock() + DAY + 1

    run(scenario)


def test_old_events_leave_nothing(run: Run) -> None:
    """What is over already when it is told (an import of last year) is not written."""

    async def scenario(bench: Bench, _clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS), ago=LIFE_S + 1)
        assert bench.rows() == []

    run(scenario)


def test_the_table_is_bounded(tmp_path: Path) -> None:
    """Beyond its limit nothing new is remembered, and upkeep takes those that would go first; known keys still work."""

    async def main() -> None:
        clock = Clock()
        bench = Bench(tmp_path, clock, keys=100)
        for number in range(400):
            clock.advance(1)
            await bench.see(event(f"click-{number}", client_id=f"browser-{number}"))
        assert 100 <= len(bench.rows()) <= 126
        for _ in range(3):
            await bench.upkeep()
        kept = bench.rows()
        assert 90 <= len(kept) <= 101
        oldest = min(row["click_at"] for row in kept)
        assert oldest > NOW + 20, "the oldest went first"
        await bench.see(event("again", client_id="new browser"))
        assert (await bench.got(client_id="new browser")).click_ids == {"epik": "again"}
        await bench.outbox.close()
        # a new process knows how many there are
        bench = Bench(tmp_path, clock, keys=100)
        for number in range(100):
            await bench.see(event("more", client_id=f"next {number}"))
        assert len(bench.rows()) <= 130
        await bench.outbox.close()

    asyncio.run(main())


def test_the_walk_goes_round_a_large_table(tmp_path: Path) -> None:
    """More rows than one slice: what has expired is gone after a round, and what has not is there."""

    async def main() -> None:
        clock = Clock()
        bench = Bench(tmp_path, clock)
        for start, ago in ((0, 20 * DAY), (2_000, 0)):
            noted: list[Memorandum] = []
            for number in range(start, start + 1_500):
                found, trail = await bench.memory.recall(event("c", client_id=f"b{number}"), SHOP, clock() - ago)
                noted += bench.memory.note(trail, found)
            await bench.outbox.admit([], memories=noted)
        clock.advance(15 * DAY)
        for _ in range(5):
            await bench.upkeep()
        assert {row["click_at"] for row in bench.rows()} == {NOW}
        assert len(bench.rows()) == 1_500
        await bench.outbox.close()

    asyncio.run(main())


def test_a_restart_remembers(tmp_path: Path) -> None:
    """Another process on the same store knows what the first one was told."""

    async def main() -> None:
        clock = Clock()
        first = Bench(tmp_path, clock)
        await first.see(event("click", client=CLIENT, **KEYS))
        await first.outbox.close()
        second = Bench(tmp_path, clock)
        for kind, later in LATER.items():
            assert (await second.got(**later)).click_ids == {"epik": "click"}, kind
        await second.outbox.close()

    asyncio.run(main())


# -- the filter

digests = st.binary(min_size=12, max_size=12)


@given(st.sets(digests, max_size=200), st.sets(digests, max_size=50))
@settings(deadline=None)
def test_the_filter_never_denies_a_key(keys: set[bytes], others: set[bytes]) -> None:
    """What was added may be there; an incomplete filter says so of everything."""
    found = Filter(1_000)
    for key in keys:
        found.add(key)
    assert all(found.may_have(key) for key in others), "incomplete"
    found.is_complete = True
    assert all(found.may_have(key) for key in keys)


def test_the_filter_spares_most_looks(tmp_path: Path) -> None:
    """Of keys that were never seen few cost a look: fewer than one in a hundred at the limit."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "gateway.db", linger_s=0.0)
        found = Filter(10_000)
        found.is_complete = True
        for number in range(10_000):
            found.add(outbox.digest("there", str(number)))
        wrong = sum(found.may_have(outbox.digest("never", str(number))) for number in range(20_000))
        assert 0 < wrong < 200
        await outbox.close()

    asyncio.run(main())


def test_the_filter_is_made_anew_after_churn(tmp_path: Path) -> None:
    """After as many keys as fit, a filter of those in the table takes its place, and misses none of them."""

    async def main() -> None:
        clock = Clock()
        bench = Bench(tmp_path, clock, keys=50)
        recollection = bench.outbox._recollection
        await asyncio.to_thread(recollection._pool.submit(int).result)
        first = recollection._filter
        for number in range(300):
            clock.advance(1)
            await bench.see(event("c", client_id=f"b{number}"))
            if number % 25 == 0:
                for _ in range(2):
                    await bench.upkeep()
        for _ in range(500):
            if recollection._filter is not first and recollection._next is None:
                break
            await asyncio.sleep(0.01)
        assert recollection._filter is not first
        assert recollection._filter.is_complete
        rows = bench.rows()
        assert rows
        assert all(bench.outbox.may_remember(row["digest"]) for row in rows)
        await bench.outbox.close()

    asyncio.run(main())


# -- failures


def test_a_failed_commit_leaves_no_ghost(tmp_path: Path) -> None:
    """What was not committed is not given to later events, and is written when the hit comes again."""

    async def main() -> None:
        bench = Bench(tmp_path, Clock())
        told = event("click", client_id="b")
        found, trail = await bench.memory.recall(told, SHOP, NOW)
        bench.memory.forget(bench.memory.note(trail, found))
        assert (await bench.got(client_id="b")).click_ids == {}
        await bench.see(told)
        bench.forget_cache()
        assert (await bench.got(client_id="b")).click_ids == {"epik": "click"}
        await bench.outbox.close()

    asyncio.run(main())


def test_what_was_noted_but_never_committed_is_written_by_the_retry(tmp_path: Path) -> None:
    """A hit that fails after its first event was noted leaves a cached record: the next one writes it all the same."""

    async def main() -> None:
        bench = Bench(tmp_path, Clock())
        told = event("click", client_id="b")
        found, trail = await bench.memory.recall(told, SHOP, NOW)
        assert bench.memory.note(trail, found), "and nobody commits it"
        await bench.see(told)
        bench.forget_cache()
        assert (await bench.got(client_id="b")).click_ids == {"epik": "click"}
        await bench.outbox.close()

    asyncio.run(main())


# -- erasure


@pytest.mark.parametrize("by", [{"email": ("jo@example.com",)}, {"external_id": ("customer-9",)}])
def test_an_erasure_clears_everything_of_the_person(run: Run, by: dict[str, Any]) -> None:
    """Click ids, address and choices go under every key that the person was seen with; others' stay."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS))
        await bench.see(event("other", client_id="somebody else"))
        clock.advance(10)
        subjects = person_of(bench.outbox.digest, "shop", User(**by), None).all
        await bench.memory.erase(subjects, requested_at=clock())
        for later in LATER.values():
            assert await bench.got(**later) == event(**later)
        assert [row["clicks"] for row in bench.rows()] == ['{"epik":"other"}']
        assert (await bench.got(client_id="somebody else")).click_ids == {"epik": "other"}

    run(scenario)


@pytest.mark.parametrize("ago", [100, 0], ids=["from before the request", "from after it"])
def test_a_hit_under_way_does_not_bring_it_back(run: Run, ago: int) -> None:
    """A hit that was told of the click just before the erasure does not write it again after it."""

    async def scenario(bench: Bench, clock: Clock) -> None:
        await bench.see(event("click", client=CLIENT, **KEYS), ago=200)
        found, trail = await bench.memory.recall(event(client_id="browser-77"), SHOP, clock() - ago)
        assert found.click_ids == {"epik": "click"}
        subjects = person_of(bench.outbox.digest, "shop", KEYS["user"], None).all
        await bench.memory.erase(subjects, requested_at=clock() - 50)
        noted = bench.memory.note(trail, found)
        if noted:
            await bench.outbox.admit([], memories=noted)
        assert bench.rows() == []
        assert (await bench.got(client_id="browser-77")).click_ids == {}

    run(scenario)


# -- a model: with the cache and without it the memory says the same

names = st.sampled_from(["a", "b"])
keys = st.fixed_dictionaries(
    {},
    optional={
        "client_id": names, "cart_token": names, "keys": names.map(lambda name: (Key(kind="checkout", value=name),)),
        "user": names.map(lambda name: User(email=(f"{name}@example.com",))),
    },
)  # fmt: skip
told = st.fixed_dictionaries(
    {},
    optional={
        "consent": st.sampled_from([DENIED, GRANTED, Consent(gpc=True), Consent(sale_of_data=True)]),
        "limited_data": st.booleans(),
        "client": st.sampled_from([CLIENT, Client(ip="1.1.1.1"), Client(user_agent="other")]),
        "action_source": st.sampled_from(["web", "offline"]),
    },
)
steps = st.lists(
    st.tuples(
        keys, told, st.sampled_from([None, None, "one", "two"]), st.sampled_from([0, 1, 400, DAY, 20 * DAY]),
        st.sampled_from([0, 0, 200, 4_000, 2 * DAY]), st.booleans(),
    ),
    max_size=14,
)  # fmt: skip


@given(steps)
@settings(max_examples=50, deadline=None)
def test_the_cache_changes_nothing(tmp_path_factory: pytest.TempPathFactory, taken: Any) -> None:
    """Whatever happens in whichever order: cache and store agree, own values stay, and nothing too old is given."""

    async def main() -> None:
        clock = Clock()
        warm, cold = (Bench(tmp_path_factory.mktemp("model"), clock, cold=is_cold) for is_cold in (False, True))
        clicks: dict[str, list[float]] = {}
        for where, fields, click, later_s, ago, limited in taken:
            clock.advance(later_s)
            known, moment = event(click, **where, **fields), clock() - ago
            (one, _), (two, _) = [await bench.see(known, ago=ago, limited=limited) for bench in (warm, cold)]
            assert one == two
            if click is not None:
                clicks.setdefault(click, []).append(moment)
                assert one.click_ids == known.click_ids
            elif one.click_ids:
                times = clicks[one.click_ids["epik"]]
                assert any(clock() - LIFE_S < at <= moment + 300 for at in times)
            if known.client != one.client:
                assert known.action_source == "web"
                assert known.client.ip in (None, one.client.ip)
                assert known.client.user_agent in (None, one.client.user_agent)
            if one.consent.marketing is False or one.limited_data is True:
                assert one.click_ids == known.click_ids
        await warm.outbox.close()
        await cold.outbox.close()

    asyncio.run(main())


def test_the_values_of_a_choice() -> None:
    """The store's numbers are fixed: a file of an older version is read by them."""
    assert (ALLOWED, OPTED_OUT, LIMITED) == (0, 1, 2)
    assert Remembered().is_empty


def test_a_failed_commit_of_the_index_loses_no_key(tmp_path: Path) -> None:
    """What a round had taken up is found again, and indexed, when its commit did not happen."""
    connection = schema.connect(tmp_path / "gateway.db")
    memories = Memories(connection, 1_000)
    record = Remembered()
    record.clicks, record.click_at, record.expires = {"epik": "click"}, NOW, int(NOW + DAY)
    memories.written(memories.write({b"k" * 12: record}))
    connection.execute("BEGIN IMMEDIATE")
    assert memories.index(0.0, force=True)
    connection.execute("ROLLBACK")
    memories.restart_round()
    while memories.index(0.0, force=True):
        pass
    assert connection.execute("SELECT digest FROM memory_key").fetchall() == [(b"k" * 12,)]
    with closing(schema.connect_reader(tmp_path / "gateway.db")) as reader:
        found = Memories(connection, 1_000).read(reader, [b"k" * 12], NOW)
    assert found[b"k" * 12].clicks == {"epik": "click"}, "a new process finds it by the index"
    connection.close()
