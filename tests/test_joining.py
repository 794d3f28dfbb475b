"""A purchase that several sources tell reaches the vendor once, with everything that any of them knew."""

import asyncio
import itertools
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.event import SealedEvent
from gateway.merge import join
from gateway.outbox import Mark, Settlement, Unit
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import Fault
from tests.harness.inprocess import Clock, World, world
from tests.harness.orders import (
    EPIK,
    HOLD_S,
    IP,
    LIVE,
    NOW,
    UA,
    claim_with_others,
    config,
    conversion,
    due,
    hashed,
    order,
    pass_by,
    pixel,
    sent,
    signals_of,
    site,
    tell,
)  # fmt: skip

PIXEL, CREATE, PAID, RETRY = "pixel", "orders/create", "orders/paid", "retry"
#: The five orders in which the four deliveries matter: the browser first, second, third or last, and payment first.
ORDERS = [
    (PIXEL, CREATE, PAID, RETRY),
    (CREATE, PIXEL, PAID, RETRY),
    (CREATE, PAID, PIXEL, RETRY),
    (CREATE, PAID, RETRY, PIXEL),
    (PAID, PIXEL, CREATE, RETRY),
]
SHORT, LONG = 5.0, HOLD_S + 1.0
BROWSER = {"click_id", "client_ip_address", "client_user_agent"}
SERVER = {"em", "ph"}
Scenario = Callable[[World], Awaitable[None]]


def play(folder: Path, scenario: Scenario, **rules: Any) -> None:
    """Run a scenario on one shop with all its sources, on a clock that stands."""

    async def main() -> None:
        async with world(folder, config(**rules), clock=Clock(NOW)) as here:
            await scenario(here)

    asyncio.run(main())


async def deliver(here: World, kind: str) -> dict[str, Any]:
    """Deliver one of the four; a retry repeats the first webhook."""
    if kind == PIXEL:
        return await tell(here, "pixel", pixel())
    return await tell(here, "shop", order(), topic=PAID if kind == PAID else CREATE)


async def arrive(
    folder: Path, kinds: tuple[str, ...], gaps: tuple[float, ...], stop_after: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Deliver all, with a stop and start after one of them; returns the answers and what was sent."""
    clock, answers, worlds = Clock(NOW), [], []
    steps = list(zip(kinds, gaps, strict=True))
    parts = [steps] if stop_after is None else [steps[:stop_after], steps[stop_after:]]
    for part in parts:
        async with world(folder, config(), clock=clock) as here:
            worlds.append(here)
            for kind, gap in part:
                answers.append(await deliver(here, kind))
                here.step(gap)
                if gap > HOLD_S:
                    await here.drain()
            if part is parts[-1]:
                here.step(LONG)
                await here.drain()
    return answers, sent(*worlds)


@pytest.mark.parametrize("kinds", ORDERS, ids="-".join)
@pytest.mark.parametrize("gaps", [(SHORT,) * 4, (LONG,) * 4, (SHORT, LONG, SHORT, LONG)], ids=["short", "long", "both"])
def test_five_delivery_orders(tmp_path: Path, kinds: tuple[str, ...], gaps: tuple[float, ...]) -> None:
    """One checkout leaves, whatever came when and wherever the gateway was restarted, with all that came in time."""
    for stop_after in (None, 1, 2, 3):
        answers, events = asyncio.run(arrive(tmp_path / str(stop_after), kinds, gaps, stop_after))
        (event,) = events
        # what came before the first long gap came in time
        in_time = kinds[: gaps.index(LONG) + 1] if LONG in gaps else kinds
        has_browser, has_server = PIXEL in in_time, set(in_time) != {PIXEL}
        assert event["event_id"] == ("sh-6001" if has_browser else "shop-6001")
        assert signals_of(event) == (BROWSER if has_browser else set()) | (SERVER if has_server else set())
        value = {"value": "12.00", "currency": "USD"} if has_server else {"value": "11.50", "currency": "EUR"}
        data = event["custom_data"]
        assert (float(data["value"]), data["currency"]) == (float(value["value"]), value["currency"])
        assert event["event_time"] == NOW - (12 if has_browser else 9)
        outcomes = [answer["outcome"] for answer in answers]
        assert outcomes[0] == "accepted"
        late = len(in_time)
        assert set(outcomes[1:late]) <= {"merged", "duplicate"}
        assert set(outcomes[late:]) <= {"duplicate"}
        assert all(answer["of"] == event["event_id"] for answer in answers[late:])


def test_hold_ends_as_soon_as_both_have_met(tmp_path: Path) -> None:
    """With a browser's and a server's copy nothing is waited for: the clock does not move at all."""

    async def scenario(here: World) -> None:
        for number, pair in enumerate(itertools.permutations((PIXEL, CREATE))):
            for kind in pair:
                told = 7000 + number
                await tell(here, *(("pixel", pixel(told)) if kind == PIXEL else ("shop", order(told))))
        await here.running.delivered(2)
        assert here.clock() == NOW
        assert [signals_of(event) for event in sent(here)] == [BROWSER | SERVER] * 2

    play(tmp_path, scenario)


def test_two_copies_of_one_side_wait_for_the_other(tmp_path: Path) -> None:
    """Two webhooks do not end a hold: the browser may still come."""

    async def scenario(here: World) -> None:
        await deliver(here, CREATE)
        await deliver(here, PAID)
        here.step(HOLD_S - 1)
        await pass_by(here)
        assert sent(here) == []
        await deliver(here, PIXEL)
        await here.running.delivered(2)
        assert [event["event_id"] for event in sent(here)] == ["sh-6001"]

    play(tmp_path, scenario)


@pytest.mark.parametrize("source", ["shop", "pixel", "api"])
def test_hold_lasts_its_time(tmp_path: Path, source: str) -> None:
    """Whichever source brought it, a checkout waits ``hold_s`` and no longer."""

    async def scenario(here: World) -> None:
        body = {"shop": order(), "pixel": pixel(), "api": conversion(user={"email": "jo@example.com"})}[source]
        await tell(here, source, body)
        assert await due(here) == NOW + HOLD_S
        here.step(HOLD_S - 0.5)
        await pass_by(here)
        assert sent(here) == []
        here.step(0.5)
        await here.drain()
        assert len(sent(here)) == 1

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("hold_s", "age_s", "held_s"),
    [(30.0, 60, 30.0), (30.0, 3_290, 10.0), (30.0, 3_300, 0.0), (30.0, 5_000, 0.0), (7_200.0, 0, 3_300.0), (0.0, 0, 0)],
)
def test_hold_ends_in_time_to_count_as_live(tmp_path: Path, hold_s: float, age_s: float, held_s: float) -> None:
    """A hold ends 55 minutes after the event at the latest; a late event does not wait at all."""

    async def scenario(here: World) -> None:
        here.sandbox.faults.down()  # it stays where it is looked at
        await tell(here, "shop", order(at=NOW - age_s + 9))
        assert await due(here) == (NOW + held_s if held_s else 0.0)

    play(tmp_path, scenario, hold_s=hold_s)


@pytest.mark.parametrize("name", ["page_visit", "add_to_cart", "initiate_checkout", "lead"])
def test_other_events_never_wait(tmp_path: Path, name: str) -> None:
    """Only a checkout is held."""

    async def scenario(here: World) -> None:
        await tell(here, "tag", conversion(event_name=name))
        await here.running.delivered(1)
        assert here.clock() == NOW

    play(tmp_path, scenario)


def test_a_source_alone_never_waits(tmp_path: Path) -> None:
    """A site with one source for the destination holds nothing, even beside others for other destinations."""
    api = {"adapter": "browser_tag", "secrets": ["server-secret"], "destinations": ["pinterest"]}
    tables = {
        "sites": {"shop": {"hold_s": HOLD_S}},
        "sources": {"api": {**api, "site": "shop"}, "two-api": {**api, "site": "shop", "destinations": ["other"]},
                    "own-api": api},
        "destinations": {"pinterest": {}, "other": {"ad_account_id": "549000000002"}},
    }  # fmt: skip

    async def main() -> None:
        async with world(tmp_path, tables, clock=Clock(NOW)) as here:
            for number, source in enumerate(("api", "two-api", "own-api")):
                await tell(here, source, conversion(number, user={"email": "jo@example.com"}))
            await here.running.delivered(3)
            assert here.clock() == NOW

    asyncio.run(main())


def test_a_third_copy_joins_two_that_wait(tmp_path: Path) -> None:
    """Pixel {token} and payment {order} do not know each other until the order with both keys comes."""

    async def scenario(here: World) -> None:
        assert (await tell(here, "pixel", pixel(order=False)))["outcome"] == "accepted"
        paid = conversion(value="12.00", currency="USD", user={"phone": "+12025550143"})
        assert (await tell(here, "api", paid))["outcome"] == "accepted"
        both = {**order(), "phone": None}
        assert (await tell(here, "shop", both))["outcome"] == "merged"
        await here.drain()
        (event,) = sent(here)
        assert (event["event_id"], signals_of(event)) == ("sh-6001", BROWSER | SERVER)
        assert event["user_data"]["ph"] == [hashed("12025550143")]
        assert sorted(one.end for one in here.running.settled) == ["delivered", "merged"]
        assert (await tell(here, "api", paid))["outcome"] == "duplicate"
        assert (await tell(here, "pixel", pixel(order=False)))["outcome"] == "duplicate"

    play(tmp_path, scenario)


def test_an_erasure_finds_what_was_joined(tmp_path: Path) -> None:
    """A person whom only one of the joined copies named is erased with the joint event."""

    async def scenario(here: World) -> None:
        for number, named in itertools.product((1, 2), ("first", "second", "third")):
            told = 10 * number + ("first", "second", "third").index(named)
            person = {name: {"user": {"email": f"{name}-{told}@example.com"}} for name in ("first", "second", "third")}
            token = {"checkout_token": f"chk-{told}"}
            await tell(here, "api", {**conversion(told), **person["first"]})
            await tell(here, "api", {**conversion(told), **person["second"], **token, "order_id": None})
            if number == 2:
                here.step(0)
            merged = await tell(here, "api", {**conversion(told), **person["third"], **token})
            assert merged["outcome"] == "merged"
            here.step(10)  # a request covers what happened before it
            erased = await here.api("POST", "/api/erase", {"email": f"{named}-{told}@example.com"})
            assert erased["erased"] == 1, named
        here.step(LONG)
        await here.drain()
        assert sent(here) == []

    play(tmp_path, scenario)


def test_a_copy_after_delivery_says_what_it_would_have_added(tmp_path: Path) -> None:
    """It is a duplicate of the id that left, and a server learns which of its signals came too late."""

    async def scenario(here: World) -> None:
        await deliver(here, PIXEL)
        here.step(LONG)
        await here.drain()
        late = await deliver(here, CREATE)
        assert (late["outcome"], late["of"]) == ("duplicate", "sh-6001")
        assert {"em", "ph", "items"} <= set(late["missed"])
        assert not {"value", "order_id", "epik", "client_ip"} & set(late["missed"])
        again = await deliver(here, PIXEL)
        assert (again["outcome"], again["of"]) == ("duplicate", "sh-6001")
        assert "missed" not in again
        await here.drain()
        assert len(sent(here)) == 1

    play(tmp_path, scenario)


def copy_of(born: Literal["browser", "server"]) -> SealedEvent:
    """Return a sealed checkout."""
    return SealedEvent(
        event_id="e", event_name="checkout", event_time=int(NOW), accepted_at=NOW, source=born, site="shop", born=born
    )


def thin(number: int = 6001) -> dict[str, Any]:
    """Return a server's checkout without anything of the browser."""
    return conversion(number, value="12.00", currency="USD", user={"email": "jo@example.com"})


def test_a_copy_during_an_attempt_completes_the_next_one(tmp_path: Path) -> None:
    """While the call hangs, and while a retry is awaited, a copy adds missing signals and changes nothing else."""

    async def main() -> None:
        async with world(tmp_path, config(), clock=Clock(NOW)) as here:
            here.sandbox.faults.queue(Fault(kind="status", delay_s=0.4))
            await tell(here, "api", thin())
            here.step(HOLD_S)
            lane = here.gateway.sender.lanes[0]
            await here.until(lambda: len(here.calls) == 1, "the first attempt is under way")
            copy = conversion(event_id="late", click_id=EPIK, event_time=int(NOW) - 60, tag=True, value="99")
            merged = await tell(here, "tag", copy)
            assert (merged["outcome"], merged["of"]) == ("merged", "shop-6001")
            assert lane.state.in_flight == 1
            await here.until(lambda: lane.state.state == "backing_off" and not lane.state.in_flight, "it failed")
            person = {**thin(), "user": {"email": "other@example.com", "phone": "+12025550143"}}
            assert (await tell(here, "api", person))["outcome"] == "merged"
            here.step(120)
            await here.running.delivered(1)
            first, second = sent(here)
            assert signals_of(first) == {"em"}
            assert signals_of(second) == BROWSER | SERVER
            for name in ("event_id", "event_name", "event_time"):
                assert second[name] == first[name]
            assert second["custom_data"] == first["custom_data"]
            assert second["user_data"]["em"] == first["user_data"]["em"] == [hashed("jo@example.com")]
            assert (second["event_id"], second["event_time"]) == ("shop-6001", NOW - 5)

    asyncio.run(main())


def test_a_copy_does_not_shorten_a_retry(tmp_path: Path) -> None:
    """The other side's copy ends a hold, not the wait for a retry."""

    async def main() -> None:
        clock = Clock(NOW)
        outbox = SqliteOutbox(tmp_path / "store.db", clock=clock, linger_s=0.0)
        try:
            mark = Mark(digest=outbox.digest("order"), lifetime_s=2_592_000, business=True)
            await outbox.admit([Unit(lane=LIVE, event=copy_of("server"), marks=(mark,), hold_s=HOLD_S)], join)
            assert await outbox.next_due(LIVE) == NOW + HOLD_S
            lease = await outbox.claim(LIVE, 10, NOW + HOLD_S)
            assert lease is not None
            later = NOW + 600
            await outbox.settle(lease, [Settlement(unit=lease.units[0].unit, end="retry", due=later)])
            (merged,) = await outbox.admit([Unit(lane=LIVE, event=copy_of("browser"), marks=(mark,))], join)
            assert merged.fate == "merged"
            assert await outbox.next_due(LIVE) == later
        finally:
            await outbox.close()

    asyncio.run(main())


def test_two_shops_with_one_order_number_never_meet(tmp_path: Path) -> None:
    """Order and checkout numbers belong to their site."""
    tables = {"sites": {"shop": {"hold_s": HOLD_S}, "two": {"hold_s": HOLD_S}}, "sources": site() | site("two", "two-")}

    async def main() -> None:
        async with world(tmp_path, tables, clock=Clock(NOW)) as here:
            assert (await tell(here, "shop", order()))["outcome"] == "accepted"
            assert (await tell(here, "two-shop", {**order(), "subtotal_price": "40.00"}))["outcome"] == "accepted"
            other = conversion(checkout_token="chk-6001", value="40.00", event_id="two-id")
            assert (await tell(here, "two-tag", other))["outcome"] == "merged"
            await here.running.delivered(1)
            here.step(LONG)
            await here.drain()
            found = {event["event_id"]: signals_of(event) for event in sent(here)}
            assert found == {"two-id": SERVER | BROWSER - {"click_id"}, "shop-6001": SERVER}

    asyncio.run(main())


def gtm(number: int = 6001) -> dict[str, Any]:
    """Return a purchase of a GTM server container."""
    return {
        "event_name": "purchase", "event_time": int(NOW) - 7, "transaction_id": str(number), "value": 12,
        "currency": "USD", "user_data": {"email_address": "jo@example.com", "phone_number": "+12025550143"},
    }  # fmt: skip


def tealium(number: int = 6001) -> dict[str, Any]:
    """Return a purchase of Tealium."""
    return {
        "tealium_event": "purchase", "order_id": str(number), "order_subtotal": "12.00", "order_currency": "USD",
        "customer_email": "jo@example.com", "customer_phone": "+12025550143",
    }  # fmt: skip


@pytest.mark.parametrize(("source", "body"), [("gtm", gtm()), ("tealium", tealium())], ids=["gtm", "tealium"])
@pytest.mark.parametrize("tag_first", [True, False])
def test_other_servers_join_the_tag_by_the_order(tmp_path: Path, source: str, body: Any, tag_first: bool) -> None:
    """GTM's transaction id and Tealium's order id are the order that the browser tag names."""

    async def scenario(here: World) -> None:
        tag = conversion(event_id="tag-1", click_id=EPIK, tag=True)
        copies = [("tag", tag), (source, body)]
        answers = [await tell(here, *copy) for copy in (copies if tag_first else copies[::-1])]
        assert [answer["outcome"] for answer in answers] == ["accepted", "merged"]
        await here.running.delivered(1)
        (event,) = sent(here)
        assert (event["event_id"], float(event["custom_data"]["value"])) == ("tag-1", 12.0)
        assert signals_of(event) == BROWSER | SERVER
        assert event["user_data"]["client_ip_address"] == IP
        assert event["user_data"]["client_user_agent"] == UA

    play(tmp_path, scenario)


def test_a_dead_event_is_revived_by_a_better_copy(tmp_path: Path) -> None:
    """What the vendor refused goes out again with what the copy adds, under the id that was tried."""

    async def scenario(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="partial", event_ids=("shop-6001",)))
        await tell(here, "api", thin())
        here.step(LONG)
        await here.running.ended(1)
        (letter,) = await here.letters()
        assert letter["event_id"] == "shop-6001"
        assert (await deliver(here, PIXEL))["outcome"] == "merged"
        await here.running.delivered(1)
        assert await here.letters() == []
        event = sent(here)[-1]
        assert (event["event_id"], signals_of(event)) == ("shop-6001", BROWSER | {"em"})

    play(tmp_path, scenario)


@pytest.mark.parametrize("kinds", [(CREATE, PIXEL), (PIXEL, CREATE)], ids=["held", "told before"])
def test_refused_consent_withdraws_what_is_held(tmp_path: Path, kinds: tuple[str, str]) -> None:
    """A refusal in the browser ends the held order, and keeps out the one that comes after it."""

    async def scenario(here: World) -> None:
        for kind in kinds:
            if kind == CREATE:
                outcome = (await deliver(here, CREATE))["outcome"]
                assert outcome == ("accepted" if kind == kinds[0] else "dropped")
            else:
                denied = await tell(here, "pixel", pixel(consent=False))
                assert (denied["outcome"], denied["reason"]) == ("dropped", "consent")
        retry = await deliver(here, RETRY)
        assert (retry["outcome"], retry["reason"]) == ("dropped", "consent")
        here.step(LONG)
        await here.drain()
        assert sent(here) == []
        ends = [(one.end, one.reason) for one in here.running.settled]
        assert ends == ([("dropped", "consent")] if kinds[0] == CREATE else [])

    play(tmp_path, scenario)


def test_limited_data_of_either_copy_stays(tmp_path: Path) -> None:
    """Whichever copy says limited data, and whenever it came, the event that leaves says so too."""

    async def scenario(here: World) -> None:
        for number, limited in enumerate(("tag", "api")):
            for source in ("tag", "api"):
                body = thin(number) if source == "api" else conversion(number)
                await tell(here, source, {**body, "limited_data": True} if source == limited else body)
        await here.running.delivered(2)
        assert [event["custom_data"]["opt_out_type"] for event in sent(here)] == ["LDP"] * 2

    play(tmp_path, scenario)


def test_only_servers_are_told_the_signals(tmp_path: Path) -> None:
    """A page never learns what others know of its visitor; a server reads where each signal came from."""

    async def scenario(here: World) -> None:
        first = await deliver(here, CREATE)
        assert "signals" not in first
        page = await deliver(here, PIXEL)
        assert page == {"event_id": "sh-6001", "outcome": "merged", "reason": None, "of": "sh-6001"}
        await here.running.delivered(1)
        await tell(here, "tag", conversion(6002, click_id=EPIK))
        server = await tell(here, "api", thin(6002))
        assert server["signals"] == {
            "browser:tag": ["client_ip", "client_user_agent", "epik"],
            "server:api": ["em", "order_id", "value"],
        }
        again = await tell(here, "tag", conversion(6002, click_id=EPIK))
        assert not {"signals", "missed"} & again.keys()

    play(tmp_path, scenario)


async def explained(here: World, source: str, body: Any) -> dict[str, Any]:
    """Ask what would become of a body."""
    capture = b64encode(json.dumps(body).encode()).decode()
    found: dict[str, Any] = await here.api(
        "POST", "/api/explain", {"source": source, "capture": capture, "verify": False}
    )
    return found


def test_explain_shows_holding_and_joining(tmp_path: Path) -> None:
    """``explain`` says that a first copy is held, what a second one joins, and the one payload; nothing is kept."""

    async def scenario(here: World) -> None:
        first = await explained(here, "api", thin())
        (held,) = [step for step in first["steps"] if step["name"] == "held for pinterest"]
        assert held["detail"]["hold_s"] == HOLD_S
        assert first["outcomes"][0]["fate"] == "accepted"
        await tell(here, "api", thin())
        for _ in range(2):  # asking twice gives the same: nothing was admitted
            second = await explained(here, "tag", conversion(event_id="tag-1", click_id=EPIK))
            (joined,) = [step for step in second["steps"] if step["name"].startswith("joined for pinterest")]
            assert joined["detail"]["of"] == "tag-1"
            assert joined["detail"]["signals"]["server:api"] == ["em", "order_id", "value"]
            assert "epik" in joined["detail"]["signals"]["browser:tag"]
            (payload,) = second["payloads"]
            assert (payload["event"]["event_id"], float(payload["event"]["custom_data"]["value"])) == ("tag-1", 12.0)
            assert (second["outcomes"][0]["fate"], second["outcomes"][0]["of"]) == ("merged", "tag-1")
        here.step(LONG)
        await here.drain()
        (event,) = sent(here)
        assert event["event_id"] == "shop-6001"

    play(tmp_path, scenario)


def test_many_at_once_are_joined_in_one_commit(tmp_path: Path) -> None:
    """Copies that arrive together, in one commit and in any order, make one event each."""

    async def scenario(here: World) -> None:
        numbers = range(60)
        copies = [("tag", conversion(number, event_id=f"tag-{number}", click_id=EPIK)) for number in numbers]
        copies += [("api", thin(number)) for number in numbers]
        copies.sort(key=lambda copy: hashed(f"{copy[0]}{copy[1]['order_id']}"))
        answers = await asyncio.gather(*(tell(here, *copy) for copy in copies))
        await here.running.delivered(60)
        await here.drain()
        assert sorted(answer["outcome"] for answer in answers) == ["accepted"] * 60 + ["merged"] * 60
        assert {event["event_id"] for event in sent(here)} == {f"tag-{number}" for number in numbers}
        assert all(signals_of(event) == BROWSER | {"em"} for event in sent(here))
        assert len(sent(here)) == 60

    play(tmp_path, scenario)


def test_a_copy_that_comes_while_the_first_is_dropped_is_not_lost(tmp_path: Path) -> None:
    """A held event without identity is dropped with a batch whose call takes a while: its better half still arrives."""

    async def scenario(here: World) -> None:
        assert (await tell(here, "api", conversion()))["outcome"] == "accepted"
        await claim_with_others(here, HOLD_S)
        assert (await tell(here, "tag", conversion(click_id=EPIK)))["outcome"] in ("accepted", "merged")
        await here.until(lambda: not here.gateway.sender.lanes[0].state.in_flight, "the call fails")
        here.step(120)
        await here.drain()
        assert len(sent(here)) == 1

    play(tmp_path, scenario)
