"""The page of deliveries and dead letters: what it counts, what it would send, and what it changes."""

import asyncio
import html
import json
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import config as configuration
from gateway.event import SealedEvent
from gateway.hit import Secret
from gateway.interfaces import Delivered, Paused
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.reasons import MEANINGS, meaning_of, remedy_of_lane
from gateway.operator.rehearsal import rehearse
from gateway.operator.veil import veiled
from gateway.outbox import DeadFilter, DeadLetter, Lane, Settlement, Unit
from gateway.outbox.census import _COUNT, _GLANCE, Letters, census, newest
from gateway.outbox.sqlite import SqliteOutbox
from gateway.outcome import Settled
from gateway.runtime import Gateway
from gateway.sandbox.faults import Fault
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock, RecordingDestination
from gateway.warnings_seen import WarningsSeen
from tests.harness.inprocess import World, event, tables, world
from tests.harness.operator_site import Visitor

OPERATOR, VIEWER = "op-password", "view-password"
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
LIVE = Lane(destination="pinterest", kind="live")
CONFIG: dict[str, Any] = {
    "sources": {"api": {"adapter": "browser_tag", "secrets": ["s3cret"], "destinations": ["pinterest"]}},
    "destinations": {"pinterest": {"type": "pinterest", "ad_account_id": "549755885175", "token": "t"}},
}


def sealed(event_id: str, **changes: Any) -> SealedEvent:
    """Return an event as the store has it."""
    given: dict[str, Any] = {
        "event_name": "lead", "source": "api", "event_time": int(NOW) - 60, "user": {"em": ("ab" * 32,)}, **changes,
    }  # fmt: skip
    return SealedEvent(event_id=event_id, accepted_at=NOW, born="server", site="api", **given)


async def bury(gateway: Gateway, reason: str, *events: SealedEvent) -> None:
    """Make dead letters of events."""
    await gateway.outbox.admit([Unit(lane=LIVE, event=one) for one in events])
    lease = await gateway.outbox.claim(LIVE, 1_000, gateway.clock())
    assert lease is not None
    await gateway.outbox.settle(lease, [Settlement(unit=one.unit, end="dead", reason=reason) for one in lease.units])


class Site:
    """A gateway that delivers nothing, and its pages."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.app = operator_app(gateway, Secret(value=OPERATOR), Secret(value=VIEWER))

    async def enter(self, password: str = OPERATOR) -> Visitor:
        """Return somebody who has logged in."""
        visitor = Visitor(self.app)
        assert (await visitor.login(password)).status_code == 303
        return visitor


def site(folder: Path, scenario: Callable[[Site], Awaitable[None]], clock: Clock | None = None) -> None:
    """Run a scenario on a gateway that stands still."""

    async def main() -> None:
        parsed = configuration.parse(CONFIG, folder / "gateway.toml")
        gateway = Gateway(parsed, http=AppClient(None), clock=clock or Clock(), hit_log=HitLog(enabled=False))
        try:
            await scenario(Site(gateway))
        finally:
            await gateway.stop()

    asyncio.run(main())


def text_of(page: str) -> str:
    """Return what a reader sees, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<main")[2])).split())


def payload_of(page: str) -> dict[str, str]:
    """Return field and value of each row of the first payload of a page."""
    table = page.partition('<table class="payload stacked">')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(?:<mark>)?(.*?)(?:</mark>)?</th>\s*<td><code>(.*?)</code>', table, re.DOTALL)
    return {html.unescape(path): html.unescape(value) for path, value in rows}


# -- what the page says


def test_empty_states_explain(tmp_path: Path) -> None:
    """Without calls, warnings and letters the page says what would stand there, and since when it counts."""

    async def scenario(found: Site) -> None:
        async with await found.enter(VIEWER) as visitor:
            said = text_of(await visitor.page("/deliveries"))
        for part in ("No call since start", "No warning since start", "No dead letter.", "pinterest running"):
            assert part in said
        assert "Delivered in the last 24 hours 0" in said

    site(tmp_path, scenario)


def test_groups_by_reason_in_two_classes(tmp_path: Path) -> None:
    """Letters are counted by code, each with its class, what it means, its words, sources, events and age."""

    async def scenario(found: Site) -> None:
        gateway = found.gateway
        await bury(gateway, "refused: em is not a hash", sealed("a"), sealed("b", event_name="checkout"))
        await bury(gateway, "refused: too old", sealed("c", source="other"))
        await bury(gateway, "invalid_request: data is odd", sealed("d"))
        async with await found.enter(VIEWER) as visitor:
            said = text_of(await visitor.page("/deliveries"))
        ours, theirs = (
            said.partition("Theirs to fix")[0].partition("Ours to fix")[2],
            said.partition("Theirs to fix")[2],
        )
        assert "invalid_request 1 dead letter" in ours
        assert MEANINGS["invalid_request"].meaning in ours
        assert "data is odd" in ours
        assert "refused 3 dead letters" in theirs
        assert "em is not a hash (2)" in theirs
        assert "too old (1)" in theirs
        assert "Sources api 2, other 1" in theirs
        assert "Events lead 2, checkout 1" in theirs
        assert "4 events kept until you replay or discard them" in said

    site(tmp_path, scenario)


def test_every_reason_of_the_docs_has_a_sentence() -> None:
    """The table of reasons of `dead` in docs/operations.md and the page's are the same; others are a plugin's."""
    text = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = text.partition("| reason of `dead` |")[2].partition("\n\n")[0]
    named = {name for row in rows.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert named <= set(MEANINGS)
    assert {one.side for one in MEANINGS.values()} == {"ours", "theirs"}
    assert "plugin" in meaning_of("their_own").meaning


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    """Names, ids, URLs, reasons and warnings that are markup stay text on every page."""

    async def scenario(found: Site) -> None:
        gateway = found.gateway
        evil = sealed(
            EVIL, event_name=EVIL, source=EVIL, source_url=f"https://x.example/{EVIL}", extra={EVIL: EVIL},
            search_string=EVIL,
        )  # fmt: skip
        await bury(gateway, f"refused: {EVIL}", evil)
        settled = Settled(
            unit="1", destination="pinterest", event_id="e", event_name=EVIL, source=EVIL, end="delivered", warning=EVIL
        )
        gateway.sender.settled(settled)
        (letter,) = await gateway.outbox.dead(DeadFilter())
        async with await found.enter() as visitor:
            for path in (
                "/deliveries", "/deliveries/dead", f"/deliveries/dead/{letter.unit}", "/deliveries/preview/replay",
                "/deliveries/preview/discard?code=refused", "/deliveries/dead?event_name=%22%3E%3Cscript%3E",
                "/deliveries/dead?source=%22%3E%3Cscript%3E&code=%3Cscript%3E",
            ):  # fmt: skip
                page = await visitor.page(path)
                assert "<script>" not in page, path
                assert "<img src=x" not in page, path
        assert "alert(1)" in text_of(page) or "None of" in text_of(page) or "No dead letter" in text_of(page)

    site(tmp_path, scenario)


def test_warnings_are_counted_and_bounded() -> None:
    """Distinct wordings are kept with count and times, the one not heard for longest makes room."""
    clock = Clock()
    seen = WarningsSeen(clock, most=2)
    told = Settled(
        unit="1", destination="pinterest", event_id="e", event_name="lead", source="api", end="delivered", warning="hm"
    )
    seen.settled(msgspec.structs.replace(told, warning=None))
    for text in ("one", "two", "one", "three"):
        seen.settled(msgspec.structs.replace(told, warning=text))
        clock.advance(10)
    assert [(one.text, one.count) for one in seen.list()] == [("three", 1), ("one", 2)]
    assert (seen.list()[1].first_at, seen.list()[1].last_at) == (NOW, NOW + 20)
    assert seen.forgotten == 1


def test_calls_warnings_and_a_paused_lane(tmp_path: Path) -> None:
    """Results of calls and the vendor's warnings are shown; a paused lane says why, and what to do."""

    async def scenario() -> None:
        async with world(tmp_path, tables(linger_s=0.0)) as found:
            destination = found.gateway.parts.destinations["pinterest"]
            send = destination.send
            destination.send = _answers([Delivered(warning="ph looks unhashed")])
            await found.post(event("a", found.clock()))
            await found.drain()
            destination.send = _answers(Paused(reason="unauthorized"))
            await found.post(event("b", found.clock()))
            await found.until(lambda: found.gateway.sender.lanes[0].state.state == "paused", "the lane pauses")
            async with await _site(found).enter(VIEWER) as visitor:
                said = text_of(await visitor.page("/deliveries"))
            destination.send = send
        assert "pinterest paused" in said
        assert remedy_of_lane("paused", "unauthorized") in said
        assert "answered 1 The vendor said" in said
        assert "paused 1 Nothing can be" in said
        assert "ph looks unhashed pinterest 1" in said
        assert "Delivered in the last 24 hours 1" in said

    asyncio.run(scenario())


def _answers(verdict: Any) -> Any:
    async def send(_batch: Any) -> Any:
        return verdict

    return send


def _site(found: World) -> Site:
    return Site(found.gateway)


# -- what would be sent


def test_a_letter_shows_todays_payload_and_marks_what_was_named(tmp_path: Path) -> None:
    """Fields of the vendor's words are marked, those that are not in the payload are named; identifiers are masked."""

    async def scenario(found: Site) -> None:
        one = sealed(
            "a", user={"em": ("cd" * 32,), "ph": ("ef" * 32,)}, source_url="https://shop.example/x?email=jo@example.com"
        )
        one = msgspec.structs.replace(
            one, client=msgspec.structs.replace(one.client, ip="203.0.113.77", user_agent="UA")
        )
        await bury(found.gateway, "refused: user_data.em and hashed_maids are no lists of hashes", one)
        (letter,) = await found.gateway.outbox.dead(DeadFilter())
        async with await found.enter(VIEWER) as visitor:
            page = await visitor.page(f"/deliveries/dead/{letter.unit}")
        assert re.findall(r"<mark>(.*?)</mark>", page) == ["user_data.em[0]"]
        assert "Named by the vendor, and not in it: hashed_maids ." in text_of(page)
        assert payload_of(page)["user_data.em[0]"] == '"cdcdcd…"'
        assert payload_of(page)["user_data.client_ip_address"] == '"203.0.113.0/24"'
        for raw in ("cd" * 32, "ef" * 32, "203.0.113.77", "jo@example.com"):
            assert raw not in page
        assert "not the bytes that were refused" in page
        assert "<button>Replay it" not in page  # a viewer's

    site(tmp_path, scenario)


@pytest.mark.parametrize(
    ("words", "named", "missing"),
    [
        ("invalid value for em", {"user_data.em"}, set()),
        ("'value' must be text", {"custom_data.value"}, set()),
        ("custom_data.value must be text", {"custom_data.value"}, set()),
        ("the state of the event_time is odd", {"event_time"}, set()),
        ("data[0].user_data.ph is short", {"user_data.ph"}, set()),
        ("num_items is missing", set(), {"num_items"}),
        ("nothing of it is known", set(), set()),
    ],
)
def test_the_words_name_fields(words: str, named: set[str], missing: set[str]) -> None:
    """Field names are found in sentences, quotes and paths; everyday words count only when set apart."""
    destination = RecordingDestination()
    destination.encode = lambda event: {  # type: ignore[method-assign]
        "event_time": 1, "user_data": {"em": "x", "ph": "y"}, "custom_data": {"value": "1"}, "state": {"a": "b"},
    }  # fmt: skip
    if missing:
        destination.encode = lambda event: _Object(em="x")  # type: ignore[method-assign]
    letter = DeadLetter(
        unit="1", destination="recording", event=sealed("a"), reason=f"refused: {words}", died_at=NOW, attempts=1
    )
    found = rehearse(letter, destination, NOW)
    assert (set(found.named), set(found.missing)) == (named, missing)


class _Object(msgspec.Struct, omit_defaults=True):
    em: str = ""
    num_items: int | None = None


def test_the_preview_is_what_is_sent(tmp_path: Path) -> None:
    """What the letter's page shows is, masked, what arrives at the vendor after the replay; the form sends it once."""

    async def scenario() -> None:
        async with world(tmp_path, tables(linger_s=0.0)) as found:
            found.sandbox.faults.queue(Fault(kind="partial", event_ids=("a",)))
            await found.post(event("a", found.clock(), items=[{"id": "p1", "price": "2.50", "quantity": 2}]))
            await found.drain()
            (letter,) = await found.letters()
            async with await _site(found).enter() as visitor:
                shown = payload_of(await visitor.page(f"/deliveries/dead/{letter['unit']}"))
                example = payload_of(await visitor.page("/deliveries/preview/replay?code=refused"))
                before = len(found.calls)
                page = f"/deliveries/dead/{letter['unit']}"
                first, second = await asyncio.gather(
                    visitor.send("/deliveries/replay", page, unit=letter["unit"]),
                    visitor.send("/deliveries/replay", page, unit=letter["unit"]),
                )
                assert (first.status_code, second.status_code) == (303, 303)
                await found.drain()
                said = text_of(await visitor.page("/deliveries"))
            (call,) = found.calls[before:]
            (sent,) = call.body["data"]
            assert dict(_flat(veiled(sent))) == shown == example
            assert found.copies()["a"] == 1
            assert "Queued one dead letter again." in said
            assert "Nothing was left to replay." in said
            noted = [(one.what, one.count) for one in found.gateway.audit.last() if one.what == "replay"]
            assert sorted(noted) == [("replay", 0), ("replay", 1)]

    asyncio.run(scenario())


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [pair for name, item in value.items() for pair in _flat(item, f"{path}.{name}" if path else name)]
    if isinstance(value, list) and value:
        return [pair for number, item in enumerate(value) for pair in _flat(item, f"{path}[{number}]")]
    return [(path, json.dumps(value, ensure_ascii=False, separators=(",", ":")))]


def test_a_preview_says_what_would_not_be_sent(tmp_path: Path) -> None:
    """Letters that are too old by now, or whose destination is gone, are counted apart before anybody replays them."""

    async def scenario(found: Site) -> None:
        await bury(found.gateway, "refused", sealed("a"), sealed("b", event_time=int(NOW) - 900_000))
        gone = Lane(destination="gone", kind="live")
        await found.gateway.outbox.admit([Unit(lane=gone, event=sealed("c"))])
        lease = await found.gateway.outbox.claim(gone, 10, NOW)
        assert lease is not None
        await found.gateway.outbox.settle(
            lease, [Settlement(unit=one.unit, end="dead", reason="refused") for one in lease.units]
        )
        async with await found.enter() as visitor:
            said = text_of(await visitor.page("/deliveries/preview/replay?code=refused"))
        assert "3 dead letters: code refused ." in said
        assert "1 would be sent." in said
        assert "1 would end again as too_old" in said
        assert "1 would wait: their destination is not configured any more." in said

    site(tmp_path, scenario)


# -- what is changed


def test_a_group_is_replayed_up_to_the_preview(tmp_path: Path) -> None:
    """A group's form means the letters of its code that had died when it was shown, and no other."""

    async def scenario(found: Site) -> None:
        gateway, clock = found.gateway, found.gateway.clock
        assert isinstance(clock, Clock)
        await bury(gateway, "refused: x", sealed("a"), sealed("b"))
        await bury(gateway, "refuse", sealed("c"))
        clock.advance(10)
        async with await found.enter() as visitor:
            path = "/deliveries/preview/replay?destination=pinterest&code=refused"
            page = await visitor.page(path)
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.partition("<main")[2]))
            assert {"destination", "code", "until", "csrf"} == set(fields)
            clock.advance(10)
            await bury(gateway, "refused: later", sealed("d"))
            answer = await visitor.client.post("/deliveries/replay", data=fields)
            assert (answer.status_code, answer.headers["location"]) == (303, "/deliveries")
            assert "Queued 2 dead letters again." in text_of(await visitor.page("/deliveries"))
        left = await gateway.outbox.dead(DeadFilter())
        assert sorted(one.event.event_id for one in left) == ["c", "d"]
        (entry,) = [one for one in gateway.audit.last() if one.what == "replay"]
        assert (entry.count, entry.who, entry.detail) == (2, "operator", "destination pinterest, code refused")

    site(tmp_path, scenario)


def test_discarding_is_confirmed(tmp_path: Path) -> None:
    """A preview comes first; its form deletes one letter, or those of a filter, for good."""

    async def scenario(found: Site) -> None:
        await bury(found.gateway, "refused: x", sealed("a"), sealed("b"), sealed("c", event_name="checkout"))
        letters = {one.event.event_id: one.unit for one in await found.gateway.outbox.dead(DeadFilter())}
        async with await found.enter() as visitor:
            path = f"/deliveries/preview/discard?unit={letters['a']}"
            assert "Discard it for good" in await visitor.page(path)
            assert len(await found.gateway.outbox.dead(DeadFilter())) == 3
            await visitor.send("/deliveries/discard", path, unit=letters["a"])
            assert "Discarded one dead letter, for good." in await visitor.page("/deliveries")
            path = "/deliveries/preview/discard?event_name=lead"
            until = re.findall(r'name="until" value="([^"]*)"', await visitor.page(path))[0]
            await visitor.send("/deliveries/discard", path, event_name="lead", until=until)
        (left,) = await found.gateway.outbox.dead(DeadFilter())
        assert left.event.event_id == "c"

    site(tmp_path, scenario)


def test_who_may_change_what(tmp_path: Path) -> None:
    """Nobody without a login, no viewer, no form without its token, and no form that names no letters."""

    async def scenario(found: Site) -> None:
        await bury(found.gateway, "refused", sealed("a"))
        (letter,) = await found.gateway.outbox.dead(DeadFilter())
        async with Visitor(found.app) as nobody:
            answer = await nobody.client.get("/deliveries")
            assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/deliveries")
            for path in ("/deliveries/replay", "/deliveries/discard"):
                assert (await nobody.client.post(path, data={"unit": letter.unit})).status_code in (303, 401)
        async with await found.enter(VIEWER) as viewer:
            for path in ("/deliveries/replay", "/deliveries/discard"):
                assert (await viewer.send(path, "/deliveries", unit=letter.unit)).status_code == 403
            assert '<form method="post" action="/deliveries' not in await viewer.page("/deliveries/preview/replay")
        async with await found.enter() as operator:
            for path in ("/deliveries/replay", "/deliveries/discard"):
                for data in ({"unit": letter.unit}, {"unit": letter.unit, "csrf": "x"}):
                    assert (await operator.client.post(path, data=data)).status_code == 403
                assert (await operator.send(path, "/deliveries")).status_code == 400
                assert (await operator.send(path, "/deliveries", until="soon")).status_code == 400
                assert (await operator.client.get(path)).status_code == 405
            assert (await operator.client.get("/deliveries/preview/everything")).status_code == 400
            await operator.page("/deliveries/dead/ffff", 404)
            await operator.page("/deliveries/dead?after=x", 400)
        assert len(await found.gateway.outbox.dead(DeadFilter())) == 1

    site(tmp_path, scenario)


# -- many letters


def bury_many(folder: Path, count: int) -> Path:
    """Write a store with so many dead letters, of four wordings, two names and two sources."""
    path = folder / "var" / "gateway.db"
    path.parent.mkdir()

    async def one_each() -> None:
        outbox = SqliteOutbox(path, clock=Clock())
        items = {"items": [{"id": f"p{number}", "name": "A thing of some length"} for number in range(10)]}
        for source, name in (("api", "lead"), ("other", "checkout")):
            event = sealed(name, source=source, event_name=name, extra={"pad": json.dumps(items)})
            await outbox.admit([Unit(lane=LIVE, event=event)])
        await outbox.close()

    asyncio.run(one_each())
    with closing(sqlite3.connect(path)) as store, store:
        rows = store.execute("SELECT lane, event_time, due, accepted_at, subjects, event FROM unit").fetchall()
        store.execute("DELETE FROM unit")
        store.executemany(
            "INSERT INTO unit (lane, state, event_time, due, accepted_at, attempts, twice, ended_at, reason, marks,"
            " subjects, event) VALUES (?, 1, ?, ?, ?, 1, 0, ?, ?, x'', ?, ?)",
            (
                (*rows[number % 2][:4], NOW - number % 9_000, f"refused: wording {number % 4}", *rows[number % 2][4:])
                for number in range(count)
            ),
        )
    return path


def test_fifty_thousand_letters_cost_a_page_little(tmp_path: Path) -> None:
    """The page counts 50,000 letters exactly, in bounded time, by an index, and reads 2,000 of their events."""
    path = bury_many(tmp_path, 50_000)

    async def scenario(found: Site) -> None:
        async with await found.enter() as visitor:
            await visitor.page("/deliveries")
            took = []
            for _ in range(3):
                began = time.perf_counter()
                said = text_of(await visitor.page("/deliveries"))
                took.append(time.perf_counter() - began)
            began = time.perf_counter()
            await visitor.page("/deliveries/dead?event_name=checkout")
            listed = time.perf_counter() - began
        assert "refused 50,000 dead letters" in said
        assert "wording 0 (12,500)" in said
        assert "Sources and events are those of the newest 2,000." in said
        sources = re.findall(r"Sources (?:api|other) ([0-9,]+), (?:api|other) ([0-9,]+)", said)[0]
        assert sum(int(count.replace(",", "")) for count in sources) == 2_000
        assert min(took) < 0.3, took
        assert listed < 0.3

    site(tmp_path, scenario)
    with closing(sqlite3.connect(path)) as store:
        count = str(store.execute(f"EXPLAIN QUERY PLAN {_COUNT}").fetchall())
        glance = str(store.execute(f"EXPLAIN QUERY PLAN {_GLANCE}", (1,)).fetchall())
    assert "USING COVERING INDEX unit_dead" in count
    assert "TEMP B-TREE" not in count
    assert "USING INDEX unit_ended" in glance


def test_sources_and_events_are_those_of_the_newest(tmp_path: Path) -> None:
    """Every letter is counted by its reason, and so many of the newest by source and event."""
    path = bury_many(tmp_path, 60)
    found = census(path, events=10)
    assert (found.counted, found.glanced) == (60, 10)
    assert sum(count for _, count in found.groups[0].sources) == 10
    assert sum(group.count for group in found.groups) == 60


def test_pages_of_a_list_meet_each_letter_once(tmp_path: Path) -> None:
    """Newest first, page by page, also where many died at once and where a search looks at few at a time."""
    path = bury_many(tmp_path, 100)
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("UPDATE unit SET ended_at = ? WHERE id % 3 > 0", (NOW,))
    for most in (7, 1_000):
        seen, after = [], None
        while True:
            found = newest(path, DeadFilter(source="api"), 8, after, most=most)
            seen += [(one.died_at, int(one.unit, 16)) for one in found.letters]
            after = found.after
            if after is None:
                break
        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) == 50


def test_a_filter_by_code_and_time(tmp_path: Path) -> None:
    """A code is what stands before the colon, never a part of it; letters of after ``until`` are left out."""

    async def scenario(found: Site) -> None:
        gateway, clock = found.gateway, found.gateway.clock
        assert isinstance(clock, Clock)
        for reason in ("refused", "refused: x", "refuse", "refused_more: x"):
            await bury(gateway, reason, sealed(reason))
            clock.advance(1)
        letters = Letters(gateway.parts.config.store_path)
        for which, expected in (
            (DeadFilter(code="refused"), {"refused", "refused: x"}),
            (DeadFilter(code="refused", until=NOW + 0.5), {"refused"}),
            (DeadFilter(until=NOW + 1.5), {"refused", "refused: x"}),
            (DeadFilter(reason="refused: x"), {"refused: x"}),
            (DeadFilter(code="%"), set()),
        ):
            assert {one.reason for one in await gateway.outbox.dead(which)} == expected
            assert {one.reason for one in (await letters.newest(which)).letters} == expected

    site(tmp_path, scenario)
