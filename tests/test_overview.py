"""The overview: what came in, what went out, what waits, what is wrong; and the minutes behind its plot."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.errors import Unavailable
from gateway.history import Rolled
from gateway.minutes import KEPT, Minutes
from gateway.operator.pages.overview import day_of, week_of
from gateway.outcome import Settled
from gateway.testing.doubles import NOW, Clock
from tests.harness.operator_site import Visitor
from tests.test_operator import Operated, operated


def settled(end: Literal["delivered", "dead", "merged"], *, is_test: bool = False) -> Settled:
    return Settled(
        unit="1", destination="pinterest", source="api", event_name="lead", event_id="e", end=end, is_test=is_test
    )


def test_minutes_are_counted() -> None:
    """Each minute has its own counts, an hour is kept, and a clock that jumps back loses and repeats nothing."""
    clock = Clock()
    minutes = Minutes(clock)
    minutes.received("tag")
    clock.advance(60)
    minutes.received("tag")
    minutes.received("api")
    minutes.settled(settled("delivered"))
    minutes.settled(settled("dead"))
    minutes.settled(settled("merged"))
    minutes.settled(settled("delivered", is_test=True))
    last = minutes.last()
    assert len(last) == KEPT
    assert [tuple(one)[1:] for one in last[-2:]] == [(1, 0, 0), (2, 1, 1)]
    assert last[-1].start == int(NOW) + 60
    assert minutes.seen_at == {"tag": NOW + 60, "api": NOW + 60}
    clock.advance(-3_600)
    minutes.received("tag")
    assert minutes.last()[-1].received == 3
    clock.advance(3_600 + 59 * 60)
    assert minutes.last()[0].received == 3
    clock.advance(60)
    assert not any(one.received for one in minutes.last())
    clock.advance(86_400 * 365)
    assert not any(any(tuple(one)[1:]) for one in minutes.last())


def test_roll_ups_are_summed() -> None:
    """The week by hour, the last 24 hours by fate and source, and the last hour that each source was heard in."""
    now = int(NOW) + 1_800
    first = (now // 3_600 - 167) * 3_600

    def row(start: int, what: str, count: int, source: str = "tag") -> Rolled:
        return Rolled(start, source, "pinterest", "lead", what, "", count)

    rows = [
        row(first, "accepted", 7), row(int(NOW), "accepted", 5), row(int(NOW), "duplicate", 2),
        row(int(NOW) - 3_600, "delivered", 4), row(int(NOW), "ended", 1), row(first, "rejected", 3, "old"),
        row(first - 3_600, "accepted", 100), row(int(NOW) + 3_600, "accepted", 100),
    ]  # fmt: skip
    week = week_of(rows, first, now)
    lines = {name: values for name, values, _ in week.lines}
    assert (lines["Events in"][0], lines["Events in"][-1], sum(lines["Events in"])) == (10, 7, 17)
    assert lines["Delivered"][-2] == 4
    assert week.last_hour == {"tag": int(NOW) + 3_600, "old": first}
    day = day_of(rows[1:5])
    assert {name: count for name, count, _ in day.door} == {
        "Accepted": 5, "Merged": 0, "Duplicate": 2, "Dropped": 0, "Rejected": 0,
    }  # fmt: skip
    assert {name: count for name, count, _ in day.ends} == {"Delivered": 4, "Dead letter": 0, "Withdrawn": 1}
    assert day.by_source == {"tag": 7}


@asynccontextmanager
async def visited(folder: Path, password: str = "op-password") -> AsyncIterator[tuple[Operated, Visitor]]:
    async with operated(folder) as api, Visitor(api.app) as visitor:
        assert (await visitor.login(password)).status_code == 303
        yield api, visitor


def show(scenario: Callable[[Operated, Visitor], Awaitable[None]], folder: Path, password: str = "op-password") -> None:
    async def main() -> None:
        async with visited(folder, password) as (api, visitor):
            await scenario(api, visitor)

    asyncio.run(main())


def stats(page: str) -> dict[str, str]:
    """Return the figures at the top, by name."""
    found = re.findall(r'<dt>([^<]+)</dt>\s*<dd><span class="value">([^<]*)</span>', page)
    return dict(found)


def test_a_new_gateway_explains_itself(tmp_path: Path) -> None:
    """Without a single event there are zeros, empty states that say what to do, and no alarm."""

    async def scenario(_: Operated, visitor: Visitor) -> None:
        page = await visitor.page("/")
        assert stats(page) == {
            "Events in": "0", "Delivered": "0", "Waiting": "0", "Dead letters": "0", "Hits": "Taken"
        }  # fmt: skip
        assert "No events yet." in page
        assert "Nothing was sent yet." in page
        assert "none in seven days" in page
        assert "Alarm" not in page

    show(scenario, tmp_path)


def test_what_happens_is_shown(tmp_path: Path) -> None:
    """Events at the door, what waits and since when, dead letters, the source's last event: in page and fragment."""

    async def scenario(api: Operated, visitor: Visitor) -> None:
        await api.hit("e1", "e2", "e3")
        await api.kill()
        await api.hit("e4", "e5")
        api.gateway.clock.advance(90)  # type: ignore[attr-defined]
        for path in ("/", "/overview/now"):
            page = await visitor.page(path)
            found = stats(page)
            assert (found["Events in"], found["Waiting"], found["Dead letters"]) == ("5", "2", "3"), path
            assert "oldest 1 min 30 s" in page
            assert re.search(r"<li>.*Accepted <strong>5</strong>", page)
            row = re.search(r'<th scope="row">api</th>(.*?)</tr>', page, re.DOTALL)
            assert row is not None
            assert "1 min 30 s ago" in row[1]
            assert row[1].rstrip().endswith('data-label="Events">5</td>')
        assert "<!doctype" not in await visitor.page("/overview/now")

    show(scenario, tmp_path)


def test_a_paused_lane_says_what_to_do(tmp_path: Path) -> None:
    """A lane that is paused or backs off shows its reason and the remedy."""

    async def scenario(api: Operated, visitor: Visitor) -> None:
        (lane,) = api.gateway.sender.lanes
        assert ">Running<" in await visitor.page("/")
        lane._failures, lane._reason, lane._blocked_until = 3, "http_503", NOW + 60
        page = await visitor.page("/")
        assert "Backing off" in page
        assert "http_503. It tries again by itself" in page
        lane._paused, lane._reason = True, "http_401"
        page = await visitor.page("/")
        assert ">Paused<" in page
        assert "Renew the token" in page

    show(scenario, tmp_path)


def test_alarms_are_told_and_acknowledged(tmp_path: Path) -> None:
    """An alarm stands on top with its remedy and in the navigation's count, until an operator takes note of it."""

    async def scenario(api: Operated, visitor: Visitor) -> None:
        api.gateway.alarms.raise_("quarantine_expired", "api", "<3 hits> of source api")
        page = await visitor.page("/")
        assert "Hits that could not be read were deleted" in page
        assert "&lt;3 hits&gt;" in page
        assert 'aria-label="1 alarm">1<' in page
        name = re.search(r'name="alarm" value="([^"]+)"', page)
        assert name is not None
        answer = await visitor.send("/overview/acknowledge", alarm=name[1])
        assert answer.status_code == 303
        page = await visitor.page("/")
        assert "Hits that could not be read were deleted" not in page
        assert "The alarm is acknowledged" in page
        assert api.gateway.audit.last()[0].what == "acknowledge"
        await visitor.send("/overview/acknowledge", alarm="none")
        assert "That alarm is over already." in await visitor.page("/")

    show(scenario, tmp_path)


def test_a_viewer_has_no_button(tmp_path: Path) -> None:
    """A viewer sees alarms and nothing to press but the logout."""

    async def scenario(api: Operated, visitor: Visitor) -> None:
        api.gateway.alarms.raise_("quarantine_expired", "api", "3 hits")
        page = await visitor.page("/")
        assert "Hits that could not be read were deleted" in page
        assert set(re.findall(r'action="([^"]+)"', page)) == {"/logout"}

    show(scenario, tmp_path, "view-password")


def test_a_store_that_cannot_be_read_spoils_only_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without roll-ups the page says so and shows everything else."""

    async def scenario(api: Operated, visitor: Visitor) -> None:
        async def busy(*_: Any, **__: Any) -> Any:
            raise Unavailable("busy", "The store is busy.")

        await api.hit("e1")
        monkeypatch.setattr(api.gateway.outbox, "history", busy)
        page = await visitor.page("/")
        assert "The store cannot be read now." in page
        assert stats(page)["Events in"] == "1"

    show(scenario, tmp_path)
