"""``checkout = "signed"``: what a page says of an order adds to the signed order, and never stands in for it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.event import Purchase, SealedEvent
from gateway.merge import join
from gateway.outbox import DeadFilter, Mark, Settlement, Unit
from gateway.outbox.sqlite import SqliteOutbox
from tests.harness.inprocess import Clock, World, world
from tests.harness.orders import (
    EPIK,
    HOLD_S,
    LIVE,
    NOW,
    UA,
    claim_with_others,
    config,
    conversion,
    due,
    order,
    pass_by,
    pixel,
    sent,
    signals_of,
    site,
    tell,
)

#: From the checkout to the end of the time in which it counts as live.
LIVE_S = 3_300


def play(folder: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Run a scenario on one shop whose checkouts must be signed, on a clock that stands."""

    async def main() -> None:
        async with world(folder, config(checkout="signed"), clock=Clock(NOW)) as here:
            await scenario(here)

    asyncio.run(main())


def forged(number: int = 6001, **more: Any) -> dict[str, Any]:
    """Return a checkout that anybody can send from a page."""
    return conversion(number, value="0.01", currency="USD", click_id=EPIK, **more)


def amounts(here: World) -> list[float]:
    """Return the amounts that were sent, in order."""
    return [float(event["custom_data"]["value"]) for event in sent(here)]


@pytest.mark.parametrize("when", ["before", "while it waits", "after"])
@pytest.mark.parametrize("event_id", [None, "shop-6001", "own"])
def test_a_forged_order_changes_no_amount(tmp_path: Path, when: str, event_id: str | None) -> None:
    """Before, while and after the signed order waits: one checkout leaves, with the signed amount."""

    async def scenario(here: World) -> None:
        public = forged() if event_id is None else forged(event_id=event_id)
        if when == "before":
            assert (await tell(here, "tag", public))["outcome"] == "accepted"
            here.step(HOLD_S + 1)
            await pass_by(here)
            assert sent(here) == []
        real = await tell(here, "shop", order())
        assert real["outcome"] == "accepted"
        if when == "after":
            here.step(HOLD_S)
            await here.drain()
        if when != "before":
            late = await tell(here, "tag", public)
            assert late["outcome"] == ("merged" if when == "while it waits" else "duplicate")
        await here.drain()
        assert amounts(here) == [12.0]
        assert (await tell(here, "shop", order(), topic="orders/paid"))["outcome"] == "duplicate"
        await here.drain()
        assert amounts(here) == [12.0]

    play(tmp_path, scenario)


def test_a_forged_order_alone_is_dropped(tmp_path: Path) -> None:
    """It waits as long as it could be live, then it is dropped, and leaves no mark that keeps the real order out."""

    async def scenario(here: World) -> None:
        await tell(here, "tag", forged())
        assert await due(here) == NOW - 5 + LIVE_S
        here.step(LIVE_S - 10)
        await pass_by(here)
        assert here.running.settled[-1].event_name == "page_visit"
        here.step(5)
        await here.until(lambda: here.running.settled[-1].event_name == "checkout", "it ends")
        ended = here.running.settled[-1]
        assert (ended.end, ended.reason) == ("dropped", "unsigned")
        assert sent(here) == []
        real = await tell(here, "shop", order())
        assert real["outcome"] == "accepted"
        await here.drain()
        assert amounts(here) == [12.0]

    play(tmp_path, scenario)


@pytest.mark.parametrize("age_s", [0, 3_200, 86_400])
def test_an_old_unsigned_one_waits_its_hold(tmp_path: Path, age_s: int) -> None:
    """Also one that is late already waits ``hold_s`` for the signed order, which then leaves at once."""

    async def scenario(here: World) -> None:
        at = NOW - age_s
        await tell(here, "tag", forged(at=at))
        assert await due(here) == max(at - 5 + LIVE_S, NOW + HOLD_S)
        await tell(here, "shop", order(at=at))
        await here.drain()
        assert (amounts(here), here.clock()) == ([12.0], NOW)

    play(tmp_path, scenario)


@pytest.mark.parametrize("sequence", list(itertools.permutations(("forged", 6001, 6002))), ids=str)
@pytest.mark.parametrize("gap", [0.0, HOLD_S + 1])
@pytest.mark.parametrize("link", ["id", "token"])
def test_a_forged_copy_cannot_link_two_orders(tmp_path: Path, sequence: Sequence[Any], gap: float, link: str) -> None:
    """A page that names one order under another's id or checkout hides neither of them."""

    async def scenario(here: World) -> None:
        other = {"event_id": "shop-6002"} if link == "id" else {"checkout_token": "chk-6002"}
        for one in sequence:
            if one == "forged":
                await tell(here, "tag", forged(6001, **other))
            else:
                told = await tell(here, "shop", {**order(one), "subtotal_price": "10.00" if one == 6001 else "20.00"})
                assert told["outcome"] == "accepted"
            here.step(gap)
            if gap:
                await pass_by(here)
        here.step(HOLD_S)
        await here.until(lambda: len(sent(here)) >= 2, "both orders leave")
        assert sorted(amounts(here)) == [10.0, 20.0]

    play(tmp_path, scenario)


def test_an_honest_page_still_gives_its_signals(tmp_path: Path) -> None:
    """Pixel and tag add click id, address and browser, and the browser's id leaves, at once."""

    async def scenario(here: World) -> None:
        await tell(here, "pixel", pixel(order=False))
        await tell(here, "tag", conversion(event_id="tag-1"))
        real = await tell(here, "shop", order())
        assert (real["outcome"], real["of"]) == ("accepted", "sh-6001")
        assert {"client_ip", "client_user_agent", "epik"} <= set(real["signals"]["browser:pixel"])
        await here.drain()
        (event,) = sent(here)
        assert (event["event_id"], here.clock()) == ("sh-6001", NOW)
        assert signals_of(event) == {"em", "ph", "click_id", "client_ip_address", "client_user_agent"}
        assert event["user_data"]["client_user_agent"] == UA
        assert sorted(one.end for one in here.running.settled) == ["delivered", "merged", "merged"]
        for _ in range(2):
            assert (await tell(here, "pixel", pixel()))["outcome"] == "duplicate"

    play(tmp_path, scenario)


def test_a_signed_copy_that_waits_gets_what_the_next_one_found(tmp_path: Path) -> None:
    """Of two signed copies the second one met the pixel: the first leaves with it, and waits no longer."""

    async def scenario(here: World) -> None:
        await tell(here, "api", conversion(value="12.00", user={"email": "jo@example.com"}))
        await tell(here, "pixel", pixel(order=False))
        assert (await tell(here, "shop", order()))["outcome"] == "merged"
        await here.drain()
        (event,) = sent(here)
        assert (event["event_id"], here.clock(), amounts(here)) == ("sh-6001", NOW, [12.0])

    play(tmp_path, scenario)


def test_a_signed_order_that_comes_while_the_unsigned_one_is_dropped(tmp_path: Path) -> None:
    """The drop is decided with a batch whose call takes a while: the order that arrives meanwhile is not lost."""

    async def scenario(here: World) -> None:
        await tell(here, "tag", forged())
        await claim_with_others(here, LIVE_S)
        assert (await tell(here, "shop", order()))["outcome"] == "accepted"
        await here.until(lambda: not here.gateway.sender.lanes[0].state.in_flight, "the call fails")
        here.step(120)
        await here.drain()
        assert amounts(here) == [12.0]

    play(tmp_path, scenario)


def sealed(born: Any, **more: Any) -> SealedEvent:
    return SealedEvent(
        event_id="shop-1", event_name="checkout", event_time=int(NOW), accepted_at=NOW, source=born, site="shop",
        born=born, **more,
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["lease lost", "dead letter"])
def test_after_a_kill_the_signed_amount_still_counts(tmp_path: Path, ending: str) -> None:
    """
    An unsigned one that was claimed when the process ended counts as attempted: the order's content wins nonetheless.
    """
    public = sealed("browser", unsigned=True, purchase=Purchase(order_id="forged"))
    real = sealed("server", purchase=Purchase(order_id="real"))

    async def main() -> None:
        clock = Clock(NOW)
        outbox = SqliteOutbox(tmp_path / "store.db", clock=clock, linger_s=0.0)
        mark = Mark(digest=outbox.digest("order"), lifetime_s=2_592_000, business=True)
        await outbox.admit([Unit(lane=LIVE, event=public, marks=(mark,))], join)
        assert await outbox.claim(LIVE, 10, NOW) is not None
        await outbox.close()
        outbox = SqliteOutbox(tmp_path / "store.db", clock=clock, linger_s=0.0)
        try:
            if ending == "dead letter":
                lease = await outbox.claim(LIVE, 10, NOW)
                assert lease is not None
                assert lease.units[0].attempts == 1
                await outbox.settle(lease, [Settlement(unit=lease.units[0].unit, end="dead", reason="unsigned")])
            (admission,) = await outbox.admit([Unit(lane=LIVE, event=real, marks=(mark,))], join)
            assert [one.end for one in admission.ended] == ["merged"]
            lease = await outbox.claim(LIVE, 10, NOW)
            assert lease is not None
            (claimed,) = lease.units
            assert (claimed.event.purchase.order_id, claimed.event.unsigned, claimed.attempts) == ("real", False, 0)
            assert await outbox.dead(DeadFilter()) == []
            assert outbox.waiting(LIVE) == 0
        finally:
            await outbox.close()

    asyncio.run(main())


def test_other_events_of_a_page_need_no_signature(tmp_path: Path) -> None:
    """Only checkouts do."""

    async def scenario(here: World) -> None:
        await tell(here, "tag", conversion(event_name="lead", user={"email": "jo@example.com"}))
        await here.running.delivered(1)

    play(tmp_path, scenario)


def test_without_the_rule_a_page_may_sell(tmp_path: Path) -> None:
    """The control: with ``checkout = "any"`` the forged order alone is sent."""

    async def main() -> None:
        async with world(tmp_path, config(), clock=Clock(NOW)) as here:
            await tell(here, "tag", forged())
            here.step(HOLD_S)
            await here.drain()
            assert amounts(here) == [0.01]

    asyncio.run(main())


def test_signed_needs_a_signed_source(tmp_path: Path) -> None:
    """A site without a source that signs, or whose signed source feeds another destination, is a config error."""
    sources = site()
    public = {name: sources[name] for name in ("pixel", "tag")}
    elsewhere = {**sources["shop"], "destinations": ["other"]}
    for members in (public, {**public, "shop": elsewhere}):
        tables = {
            "sites": {"shop": {"checkout": "signed"}},
            "sources": members,
            "destinations": {"pinterest": {}, "other": {"ad_account_id": "549000000002"}},
        }

        async def main(tables: dict[str, Any] = tables) -> None:
            async with world(tmp_path, tables, clock=Clock(NOW)):
                raise AssertionError("it started")

        with pytest.raises(ConfigError, match=r"\[sites\.shop\] checkout = \"signed\".*Add the signed source"):
            asyncio.run(main())
