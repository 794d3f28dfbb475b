"""Health: the figures equal a hand count on a mix of 10,000 events, and a weak one is told what to do."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gateway import cli
from gateway.event import PAGE_EVENTS, STANDARD_NAMES
from gateway.history import Rolled
from gateway.hit import Secret
from gateway.operator import operator_app
from gateway.operator.advice import health_of
from gateway.operator.health import ENOUGH, LOWER_FUNNEL, Health, Judged, Place
from gateway.operator.periods import period_of
from tests.harness.inprocess import BEARER, SECRET, Clock, World, world
from tests.harness.operator_site import Visitor

NOW = 1_790_000_000.0
NAMES = ("page_visit", "page_visit", "page_visit", "search", "add_to_cart", "lead", "signup", "checkout", "our_event")
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
CONFIG: dict[str, Any] = {
    "operator": {"password": "the operator's password"},
    "sites": {"shop": {"hold_s": 30.0}, "till": {}},
    "sources": {
        "page": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
        "shop": {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET]},
        "till": {"adapter": "browser_tag", "site": "till", "secrets": [SECRET]},
    },
    "destinations": {"pinterest": {"ad_account_id": "549755885175"}},
}
#: How often a mix has each of these, in percent: a good enough one by address, a weak one by e-mail.
ODDS = {
    "email": 6, "external_id": 30, "mobile_ad_id": 2, "first_name": 20, "last_name": 20, "phone": 10, "gender": 5,
    "birth_date": 4, "city": 12, "state": 12, "postal_code": 9, "country": 25,
}  # fmt: skip
VALUES = {
    "first_name": "Ada", "last_name": "Byron", "phone": "+1 217 555 0100", "gender": "f", "birth_date": "1979-12-10",
    "city": "Springfield", "state": "IL", "postal_code": "62701", "country": "US",
}  # fmt: skip
COUNTED = {
    "email": "em", "external_id": "external_id", "mobile_ad_id": "hashed_maids", "phone": "ph", "gender": "ge",
    "birth_date": "db", "city": "ct", "state": "st", "postal_code": "zp", "country": "country",
}  # fmt: skip
Count = Counter[tuple[str, str, str]]


class Mix:
    """
    Generates hits, and counts by hand what of them must be found: ``count`` by (source, event, what).

    Knows nothing of the gateway but its rules: an event needs an e-mail, a mobile ad id, or address and browser; an id
    counts once; refused marketing and test events do not count; halves of one checkout are one event of the page.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count: Count = Counter()
        self.sent = 0
        self.serial = 0

    def chance(self, percent: float) -> bool:
        """Throw the dice."""
        return self.random.random() * 100 < percent

    def event(self, source: str, *, has_agent: bool) -> dict[str, Any]:
        """Return one event, and count it."""
        self.serial += 1
        name = self.random.choice(NAMES)
        event = {"event_name": name, "event_id": f"id-{self.serial}", "event_time": int(NOW) - 5, "user": self.user()}
        has_ip = has_agent
        if source != "page":
            has_ip = has_agent = self.chance(88)
            if has_agent:
                event["client"] = {"ip": "81.2.69.142", "user_agent": AGENT}
        if self.chance(15):
            event["click_id"] = f"dj0yJnU9{self.serial}"
        if self.chance(20):
            event |= {"value": "12.50", "currency": "USD"}
        if source == "page" and self.chance(30):
            event["tag"] = True
        fate = self.random.random()
        if fate < 0.02:
            event["consent"] = {"marketing": False}
        elif fate < 0.04 and source != "page":
            event["test"] = True
        else:
            self.take(source, event, has_ip=has_ip)
        return event

    def user(self) -> dict[str, str]:
        """Return somebody."""
        found = {field: VALUES.get(field, "") for field, odds in ODDS.items() if self.chance(odds)}
        own = {
            "email": f"n{self.serial}@people.example",
            "external_id": f"customer-{self.serial}",
            "mobile_ad_id": f"{self.serial:08x}-1111-4222-8333-444455556666",
        }
        return {field: value or own[field] for field, value in found.items()}

    def take(self, source: str, event: dict[str, Any], *, has_ip: bool) -> None:
        """Count one conversion."""
        name = event["event_name"] if event["event_name"] in STANDARD_NAMES else "custom"
        user = event["user"]
        is_sent = bool(has_ip or "email" in user or "mobile_ad_id" in user)
        # a lone checkout of two sources is taken in and held before it is found to be nobody's
        if event.get("tag") and (is_sent or name == "checkout"):
            self.add(source, name, "tag_seen")
        if not is_sent:
            return
        whats = ["delivered", *(COUNTED[field] for field in user if field in COUNTED)]
        whats += ["ip_ua"] * has_ip + ["click_id"] * ("click_id" in event) + ["value"] * ("value" in event)
        whats += ["fn_ln"] * (user.keys() >= {"first_name", "last_name"})
        whats += ["em_or_maid"] * bool(user.keys() & {"email", "mobile_ad_id"}) + ["tag_met"] * bool(event.get("tag"))
        for what in whats:
            self.add(source, name, what)

    def add(self, source: str, event: str, what: str) -> None:
        """Count."""
        self.count[source, event, what] += 1

    def of(self, what: str, sources: Iterable[str] = ("page", "shop", "till"), *, lower: bool = False) -> int:
        """Add the hand count up."""
        return sum(
            number
            for (source, name, one), number in self.count.items()
            if one == what and source in sources and (not lower or name in LOWER_FUNNEL)
        )

    async def send(self, running: World, source: str, events: list[dict[str, Any]], *, has_agent: bool = True) -> None:
        """Send one hit."""
        headers = BEARER if source != "page" else {"Origin": "https://shop.example"}
        if source == "page" and has_agent:
            headers = {**headers, "User-Agent": AGENT}
        status, answer = await running.running.post(source, events, headers, peer="81.2.69.144")
        assert status == 200, answer
        assert answer["rejected"] == 0
        self.sent += len(events)


async def send_mix(running: World, mix: Mix, total: int) -> None:
    """Send so many events, copies and halves among them, and have them all delivered."""
    again: list[tuple[str, dict[str, Any]]] = []
    while mix.sent < total - 1_000:
        source = mix.random.choice(("page", "page", "shop", "till"))
        has_agent = mix.chance(93)
        events = [mix.event(source, has_agent=has_agent) for _ in range(250)]
        await mix.send(running, source, events, has_agent=has_agent)
        again += [(source, one) for one in events if mix.chance(8) and has_agent]
    halves = [mix_half(mix, number) for number in range(200)]
    await mix.send(running, "page", [page for page, _ in halves])
    await mix.send(running, "shop", [shop for _, shop in halves])
    running.step(31)  # lone checkouts have waited for their other half
    await running.drain()
    while mix.sent < total:  # copies of what was delivered long ago, or refused as the first was
        some = again[:100]
        again = again[100:] or again
        source = some[0][0]
        await mix.send(running, source, [one for other, one in some if other == source][: total - mix.sent])
    running.step(31)
    await running.drain()


def mix_half(mix: Mix, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the page's and the server's half of one checkout, and count it once, with the signals of both."""
    common = {"event_name": "checkout", "event_id": f"order-{number}", "event_time": int(NOW) - 5}
    page = {**common, "click_id": f"dj0yJnU9half{number}", "tag": True, "user": {}}
    shop = {**common, "user": {"external_id": f"half-{number}"}, "value": "20.00", "currency": "USD"}
    mix.take("page", {**page, **shop, "user": shop["user"]}, has_ip=True)
    return page, shop


def check(judged: dict[str, Any], mix: Mix, sources: tuple[str, ...]) -> None:
    """Compare every figure of a verdict with the hand count."""
    assert judged["events"] == mix.of("delivered", sources)
    assert judged["lower_funnel"] == mix.of("delivered", sources, lower=True)
    found = {one["name"]: (one["have"], one["of"]) for one in judged["criteria"]}
    assert found == {
        "ip_ua": (mix.of("ip_ua", sources), mix.of("delivered", sources)),
        "identity": (mix.of("em_or_maid", sources, lower=True), mix.of("delivered", sources, lower=True)),
        "external_id": (mix.of("external_id", sources), mix.of("delivered", sources)),
        "overlap": (mix.of("tag_met", sources), mix.of("tag_seen", sources)),
    }
    signals = {one["name"]: one["have"] for one in judged["signals"]}
    for name in (*COUNTED.values(), "ip_ua", "click_id", "fn_ln", "value"):
        assert signals[name] == mix.of(name, sources), name


def test_figures_equal_a_hand_count_of_ten_thousand(tmp_path: Path) -> None:
    """Through the whole gateway: every share by source and event is what a count by hand says; page and API agree."""

    async def scenario() -> None:
        mix = Mix(6)
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            await send_mix(running, mix, 10_000)
            assert mix.sent == 10_000
            report = await running.api("GET", "/api/health?period=24h")
            (vitals,) = report["destinations"]
            health = vitals["health"]
            assert len(running.sandbox.record.ids()) == mix.of("delivered") == health["total"]["events"]
            check(health["total"], mix, ("page", "shop", "till"))
            assert [one["source"] for one in health["sources"]] == ["page", "shop", "till"]
            for one in health["sources"]:
                check(one, mix, (one["source"],))
            for one in health["parts"]:
                key = one["source"], one["event"]
                assert one["events"] == mix.count[(*key, "delivered")]
                assert {signal["name"]: signal["have"] for signal in one["signals"]}["em"] == mix.count[(*key, "em")]
            assert health["total"]["status"] == "weak"
            assert {one["name"]: one["met"] for one in health["total"]["criteria"]}["identity"] is False
            told = health["total"]["advice"]
            await _page_agrees(running, health, told)
        assert mix.of("tag_seen") > mix.of("tag_met") > 1_000  # the mix has what it must

    asyncio.run(scenario())


async def _page_agrees(running: World, health: dict[str, Any], told: list[dict[str, Any]]) -> None:
    app = operator_app(running.gateway, Secret(value="the operator's password"))
    async with Visitor(app) as visitor:
        await visitor.login("the operator's password")
        text = await visitor.page("/health?period=24h")
    assert f"{health['total']['events']:,} delivered events" in text
    for one in health["total"]["criteria"]:
        assert f"{one['have']:,} of {one['of']:,}" in text
        assert f"{one['percent']:.1f} %" in text
    assert "Weak" in text
    for one in told:
        assert one["text"].replace("'", "&#39;") in text
    assert "<script>" not in text


def test_a_clean_start_says_that_it_cannot_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints the same report; without events it says how many are needed."""
    (tmp_path / "gateway.toml").write_text(
        '[sources.api]\nadapter = "browser_tag"\nsecrets = ["0123456789abcdef"]\ndestinations = ["pinterest"]\n'
        '[destinations.pinterest]\ntype = "pinterest"\nad_account_id = "1"\ntoken = "t"\n'
        'base_url = "http://127.0.0.1:9/v5"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    result = CliRunner().invoke(cli.cli, ["health", "--period", "28d", "--json"])
    assert result.exit_code == 0, result.output
    report = msgspec.json.decode(result.stdout)
    assert report["period"]["name"] == "last 28 days"
    (vitals,) = report["destinations"]
    assert vitals["health"]["total"]["status"] == "few"
    assert "no connection" in vitals["problem"]
    result = CliRunner().invoke(cli.cli, ["health"])
    assert "0 delivered events are too few to judge: 50 are needed." in result.stdout
    wrong = CliRunner().invoke(cli.cli, ["health", "--destination", "other"])
    assert wrong.exit_code != 0


# -- the verdict and its words, on figures made by hand


def rolled(source: str, event: str, **counts: int) -> list[Rolled]:
    """Return roll-ups; names other than delivered, tag_seen and tag_met are signals."""
    own = ("delivered", "tag_seen", "tag_met")
    return [
        Rolled(0, source, "pinterest", event, *((name, "") if name in own else ("signal", name)), number)
        for name, number in counts.items()
    ]


PLACES = {
    "shop": Place(adapter="shopify", is_server=True),
    "tag": Place(adapter="browser_tag", is_server=False),
    "mine": Place(adapter="acme", is_server=True),
}


def health(*rows: list[Rolled], match_rate: float | None = None) -> Health:
    """Return the verdict on one destination."""
    (found,) = health_of([one for some in rows for one in some], PLACES, {"pinterest": match_rate})
    return found


def advice_on(judged: Judged, criterion: str) -> Any:
    """Return the advice on one criterion."""
    (found,) = [one for one in judged.advice if one.criterion == criterion]
    return found


SOUND = rolled("tag", "checkout", delivered=1000, ip_ua=900, em_or_maid=100, em=100, external_id=100)


def test_the_thresholds_are_met_exactly() -> None:
    """90, 10, 10 and 90 percent suffice; without a tag no overlap is asked for."""
    found = health(SOUND).total
    assert (found.status, found.option, found.advice) == ("good", 1, ())
    assert {one.name: one.met for one in found.criteria} == {
        "ip_ua": True, "identity": True, "external_id": True, "overlap": None,
    }  # fmt: skip
    assert health(SOUND, rolled("tag", "checkout", tag_seen=100, tag_met=90)).total.status == "good"


@pytest.mark.parametrize(
    ("change", "criterion", "missing"),
    [
        ({"ip_ua": -1}, "ip_ua", 1),
        ({"em_or_maid": -1}, "identity", 1),
        ({"external_id": -50}, "external_id", 50),
        ({"tag_seen": 100, "tag_met": 89}, "overlap", 1),
    ],
)
def test_one_too_few_is_weak_and_says_how_many(change: dict[str, int], criterion: str, missing: int) -> None:
    """Each criterion alone makes it weak, and the advice has the exact number that mends it."""
    found = health(SOUND, rolled("tag", "checkout", **change)).total
    assert found.status == "weak"
    told = advice_on(found, criterion)
    assert told.missing == missing
    counts = {"tag_seen": "tag_met"}.get(next(iter(change)), next(iter(change)))
    mended = health(SOUND, rolled("tag", "checkout", **change), rolled("tag", "checkout", **{counts: missing})).total
    assert mended.status == "good"
    if missing > 1:
        short = rolled("tag", "checkout", **{counts: missing - 1})
        assert health(SOUND, rolled("tag", "checkout", **change), short).total.status == "weak"


def test_the_words_of_a_weak_one() -> None:
    """Exact numbers, where the most is lacking first, what to do there, and where it is described."""
    found = health(
        rolled("shop", "checkout", delivered=5_200, ip_ua=5_000, em_or_maid=312, em=312, external_id=4_000),
        rolled("tag", "lead", delivered=2_600, ip_ua=2_600, em_or_maid=156, em=156),
        rolled("tag", "page_visit", delivered=9_000, ip_ua=9_000, em_or_maid=0),
    ).total
    assert found.status == "weak"
    assert found.why == "Too low: e-mail or mobile ad id."
    told = advice_on(found, "identity")
    assert told.text == (
        "+312 checkout events with an e-mail address (or mobile ad id) from the source 'shop' "
        "(4,888 of its checkout events lack it) lift e-mail or mobile ad id from 6.0 % to 10.0 % of lower-funnel "
        "events (468 of 7,800 have it, 10 % are needed)."
    )
    (step,) = told.steps
    assert (step.source, step.adapter, step.doc) == ("shop", "shopify", "docs/shopify.md#by-an-app")
    assert "protected customer data" in step.text
    assert "match_rate" in advice_on(found, "match_rate").text


def test_advice_spreads_over_sources_when_one_is_not_enough() -> None:
    """What one source cannot give is asked of the next; together it is what is missing."""
    found = health(
        rolled("mine", "checkout", delivered=60, ip_ua=60, external_id=60),
        rolled("tag", "page_visit", delivered=940, ip_ua=100, external_id=940),
    ).total
    told = advice_on(found, "ip_ua")
    assert told.missing == 740
    spread = health(
        rolled("mine", "lead", delivered=500, external_id=500),
        rolled("tag", "lead", delivered=500, external_id=500),
    ).total
    told = advice_on(spread, "ip_ua")
    assert told.missing == 900
    assert told.text.startswith("+500 lead events with IP address and user agent from the source 'mine'")
    assert "and +400 lead events with IP address and user agent from the source 'tag'" in told.text
    assert [step.source for step in told.steps] == ["mine", "tag"]
    assert told.steps[0].text == "See the documents of the adapter 'acme'."
    assert told.steps[1].doc == "docs/operations.md#https-in-front"


def test_a_match_rate_is_the_second_way() -> None:
    """60 percent suffices with the overlap, not below, and not without the overlap."""
    weak = rolled("tag", "checkout", delivered=1000, ip_ua=100)
    assert (health(weak, match_rate=0.6).total.status, health(weak, match_rate=0.6).total.option) == ("good", 2)
    assert health(weak, match_rate=0.59).total.status == "weak"
    lone = rolled("tag", "checkout", tag_seen=100, tag_met=89)
    assert health(weak, lone, match_rate=0.9).total.status == "weak"
    assert all(one.criterion != "match_rate" for one in health(weak, match_rate=0.59).total.advice)


def test_too_few_are_not_judged() -> None:
    """One event short of enough says so, however bad; at enough it is judged."""
    assert health(rolled("tag", "lead", delivered=ENOUGH - 1)).total.status == "few"
    assert health(rolled("tag", "lead", delivered=ENOUGH)).total.status == "weak"
    assert health().total.why == "0 delivered events are too few to judge: 50 are needed."


def test_visits_need_no_identity_but_all_else() -> None:
    """A source of page visits alone is not asked for e-mails; that they were not judged is said."""
    found = health(rolled("tag", "page_visit", delivered=100, ip_ua=90, external_id=10))
    assert found.total.status == "good"
    assert "not judged" in found.total.why
    assert next(one for one in found.total.criteria if one.name == "identity").met is None


def test_a_share_is_never_rounded_up() -> None:
    """89.96 percent is not shown as the 90 that it is not."""
    found = health(rolled("tag", "lead", delivered=10_000, ip_ua=8_996)).total
    assert next(one.percent for one in found.criteria if one.name == "ip_ua") == 89.9


def test_the_lower_funnel_is_of_standard_names() -> None:
    """Every name of it is one that Pinterest knows, and none is mere looking."""
    assert LOWER_FUNNEL < STANDARD_NAMES
    assert not LOWER_FUNNEL & PAGE_EVENTS
    assert {"checkout", "add_to_cart", "lead", "signup"} <= LOWER_FUNNEL


def test_every_step_leads_to_a_heading() -> None:
    """What advice points to is there."""
    from gateway.operator import advice

    root = Path(__file__).parents[1]
    docs = {doc for _, doc in [*advice._STEPS.values(), advice._OVERLAP_STEP]}
    for doc in docs:
        path, _, anchor = doc.partition("#")
        headings = [line.lstrip("# ").lower() for line in (root / path).read_text().splitlines() if line[:1] == "#"]
        found = {"".join(c for c in line if c.isalnum() or c in " -").replace(" ", "-") for line in headings}
        assert not anchor or anchor in found, doc


def test_a_period_has_a_name() -> None:
    """An unknown one names the known."""
    assert period_of(None, NOW).key == "7d"
    assert period_of("24h", NOW).since == NOW - 86_400
    with pytest.raises(ValueError, match="24h, 7d, 28d"):
        period_of("1y", NOW)
