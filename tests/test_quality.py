"""Pinterest's event quality score: asked for, bounded, kept; the stand-in gives it as the official description says."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Context, Quality, Secret, Unreachable
from gateway.interfaces import Destination
from gateway.isolation import Guard
from gateway.plugins.pinterest import Pinterest
from gateway.plugins.pinterest.options import PinterestOptions
from gateway.quality import FRESH_S, QualityBook
from gateway.sandbox import PinterestSandbox, SandboxConfig
from tests.harness import described, exchanges
from tests.harness.described import Recorder
from tests.harness.inprocess import Clock
from tests.harness.vendors import BASE, Scripted, answer

ACCOUNT = "549755885175"
NOW = 1_790_000_000.0
SENDS_ONLY = "conversion-token"


def options(**given: Any) -> PinterestOptions:
    """Return a destination's options."""
    given.setdefault("token", Secret(value="sandbox-token"))
    return PinterestOptions(ad_account_id=ACCOUNT, base_url=f"{BASE}/v5", **given)


def destination(http: Any, **given: Any) -> Pinterest:
    """Return a destination that asks this client."""
    return Pinterest("pinterest", options(**given), Context(http=http, clock=lambda: NOW))


def score(**components: Any) -> dict[str, Any]:
    """Return one score as the API gives it."""
    return {
        "overall_status": "FAIR", "ingestion_source": "CONVERSIONS_API", "source_platform": "WEB",
        "lookback_period": "14d", "quality_components": components,
    }  # fmt: skip


def event(number: int, **user: Any) -> dict[str, Any]:
    """Return one event as the API takes it."""
    data = {"client_ip_address": "203.0.113.9", "client_user_agent": "Mozilla/5.0", **user}
    return {
        "event_name": "checkout", "action_source": "web", "event_time": int(NOW) - 60, "event_id": f"e{number}",
        "user_data": data,
    }  # fmt: skip


def sandbox() -> tuple[PinterestSandbox, exchanges.Exchanges]:
    """Return a stand-in with four events of which one has an e-mail, and what watches it."""
    config = SandboxConfig(tokens=("sandbox-token", SENDS_ONLY), conversion_tokens=frozenset({SENDS_ONLY}))
    box, watch = PinterestSandbox(config, clock=lambda: NOW), exchanges.Exchanges()
    box.log.watch = watch

    async def fill() -> None:
        transport = httpx.ASGITransport(box.app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            body = {"data": [event(1, em=["a" * 64]), event(2), event(3), event(4)]}
            headers = {"Authorization": "Bearer sandbox-token"}
            sent = await client.post(f"/v5/ad_accounts/{ACCOUNT}/events", json=body, headers=headers)
            assert sent.status_code == 200

    asyncio.run(fill())
    return box, watch


def asked(box: PinterestSandbox, lookback: str = "14d", **given: Any) -> tuple[Quality, Recorder]:
    """Ask a stand-in."""
    from gateway.http import Client

    client = Client(transport=httpx.ASGITransport(box.app))
    wire = Recorder(client)

    async def scenario() -> Quality:
        try:
            return await destination(wire, **given).quality(lookback)
        finally:
            await client.close()

    return asyncio.run(scenario()), wire


def test_the_score_is_read_and_both_sides_keep_to_the_description() -> None:
    """Coverage is that of the four events sent; question and answer are what the official description allows."""
    box, watch = sandbox()
    quality, wire = asked(box)
    assert quality.problem is None
    (found,) = quality.scores
    assert (found.platform, found.ingestion, found.lookback, found.status) == ("WEB", "CONVERSIONS_API", "14d", "FAIR")
    coverage = {one.name: one.coverage for one in found.components}
    assert coverage["hashed_email"] == 25.0
    assert coverage["ip_address"] == coverage["user_agent"] == coverage["external_event_id"] == 100.0
    assert coverage["advertiser_external_id"] == 0.0
    (missing,) = [one for one in found.components if one.name == "advertiser_external_id"]
    assert missing.issues == ("Few events with external_id: external_id is in 0 % of events.",)
    assert watch.problems == []
    if described.is_known():
        assert watch.described == 1
        assert described.all_problems("pinterest", wire.requests) == []


def test_the_other_lookback_has_its_own_period() -> None:
    """Of a day; an unknown one is refused before anything is asked."""
    box, _ = sandbox()
    quality, _ = asked(box, "1d")
    assert [one.lookback for one in quality.scores] == ["1d"]
    with pytest.raises(ValueError, match="1d, 14d"):
        asked(box, "7d")


def test_a_token_that_may_only_send_is_told_apart() -> None:
    """403 names the scope and the key to set, and no token; with a second token the score comes."""
    box, _ = sandbox()
    quality, _ = asked(box, token=Secret(value=SENDS_ONLY))
    assert quality.scores == ()
    assert quality.problem is not None
    assert "ads:read" in quality.problem
    assert "[destinations.pinterest] quality_token" in quality.problem
    assert SENDS_ONLY not in quality.problem
    second, wire = asked(box, token=Secret(value=SENDS_ONLY), quality_token=Secret(value="sandbox-token"))
    assert len(second.scores) == 1
    assert wire.requests[0].headers["authorization"] == "Bearer sandbox-token"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (answer(401), "ads:read, or has expired (401)"),
        (answer(404), "ad account 549755885175 (404)"),
        (answer(429), "rate limit"),
        (answer(503), "(503); it is asked for again later"),
        (answer(200, {"items": []}), "cannot be read"),
        (answer(200, [{"overall_status": "GOOD"}]), "cannot be read"),
        (Unreachable("no answer in 10 s", sent=True), "no answer in 10 s"),
    ],
)
def test_a_failure_is_a_sentence(given: Any, words: str) -> None:
    """Whatever comes back, nothing is raised, and the words say what is wrong."""
    http = Scripted(given)
    quality = asyncio.run(destination(http).quality("14d"))
    assert quality.scores == ()
    assert quality.problem is not None
    assert words in quality.problem


def test_an_answer_of_any_size_is_bounded() -> None:
    """So many scores and issues are kept, and texts are cut: they are Pinterest's, and shown."""
    issue = {"id": "1", "name": "n" * 1000, "reason": "r"}
    detail = {"coverage": 1.5, "overlap": 93.5, "issues": [issue] * 20}
    body = [score(external_event_id={"checkout": detail}, hashed_email=None)] * 200
    quality = asyncio.run(destination(Scripted(answer(200, body))).quality("14d"))
    assert len(quality.scores) == 50
    (one,) = quality.scores[0].components
    assert (one.overlap, len(one.issues), len(one.issues[0])) == (93.5, 5, 300)


class Asked:
    """Destinations that answer what they are given, and how often they were asked."""

    def __init__(self, *qualities: Quality | Exception | None) -> None:
        self.left = list(qualities)
        self.failed: list[str] = []
        self.clock = Clock(NOW)

    def book(self, folder: Path, wait: Callable[[], Any] | None = None) -> QualityBook:
        """Return a book on one destination."""
        outer = self

        class Scored(Pinterest):
            async def quality(self, lookback: str) -> Quality:
                assert lookback == "14d"
                if wait is not None:
                    await wait()
                found = outer.left.pop(0)
                if isinstance(found, Exception):
                    raise found
                assert found is not None
                return found

        one: Destination = Scored("pinterest", options(), Context(http=None, clock=self.clock))
        guard = Guard(self.failed.append)
        return QualityBook(folder / "quality.jsonl", self.clock, guard, lambda: {"pinterest": one})


def quality(coverage: float) -> Quality:
    """Return what a vendor says, with one component of two events."""
    body = [score(hashed_email={"checkout": {"coverage": coverage}, "lead": {"coverage": 0}})]
    return asyncio.run(destination(Scripted(answer(200, body))).quality("14d"))


def test_a_score_is_kept_for_hours_and_a_problem_for_less(tmp_path: Path) -> None:
    """Asked once in six hours; a failure is asked for again after one, and a plugin that raises is a sentence."""
    given = Asked(quality(10), Quality(problem="no"), ValueError("secret text"), quality(20))
    book = given.book(tmp_path)

    async def scenario() -> list[Any]:
        found = []
        for seconds in (0, FRESH_S - 1, 1, 3_599, 1, 3_600):
            given.clock.step(seconds)
            known = await book.known("pinterest")
            assert known is not None
            found.append(known.quality.problem or known.quality.scores[0].components[0].coverage)
        return found

    found = asyncio.run(scenario())
    assert found[:4] == [10, 10, "no", "no"]
    assert "plugin_failed" in found[4]
    assert "secret text" not in found[4]
    assert found[5] == 20
    assert given.failed == ["pinterest"]


def test_the_history_has_one_line_a_day_and_survives(tmp_path: Path) -> None:
    """The newest score of a day counts; another process reads the same; half a line of a crash is no line."""
    given = Asked(quality(10), quality(20), quality(30))
    book = given.book(tmp_path)

    async def scenario() -> None:
        for _ in range(3):
            await book.known("pinterest")
            given.clock.step(FRESH_S * 2)

    given.clock.now = 1_790_035_200.0 - 1_790_035_200.0 % 86_400 + 60  # a minute after midnight
    asyncio.run(scenario())
    expected = [(line.scores[0].components["hashed_email"]) for line in book.history("pinterest")]
    assert expected == [10.0, 15.0]  # the mean over two events; the second score took the first one's place
    with (tmp_path / "quality.jsonl").open("ab") as file:
        file.write(b'{"day":"20')
    again = given.book(tmp_path)
    assert again.history("pinterest") == book.history("pinterest")
    assert again.history("another") == []
    assert (tmp_path / "quality.jsonl").read_bytes().endswith(b"}\n")


def test_a_slow_vendor_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A page gets its answer in time; the score is there at the next look; it was asked for once."""

    async def scenario() -> None:
        gate = asyncio.Event()
        given = Asked(quality_now)
        book = given.book(tmp_path, gate.wait)
        first = await book.known("pinterest", 0.01)
        assert first is not None
        assert first.quality.problem is not None
        assert "has been asked" in first.quality.problem
        gate.set()
        second = await book.known("pinterest", 5.0)
        assert second is not None
        assert second.quality.scores
        await book.close()

    quality_now = quality(5)
    asyncio.run(scenario())


def test_a_destination_without_a_score_is_none(tmp_path: Path) -> None:
    """A type that keeps no score is not asked, nor is a name that is none."""
    from gateway.testing.doubles import RecordingDestination

    one = RecordingDestination("other", None, Context())
    book = QualityBook(tmp_path / "q", Clock(NOW), Guard(lambda _: None), lambda: {"other": one})
    assert asyncio.run(book.known("other")) is None
    assert asyncio.run(book.known("gone")) is None
    assert not (tmp_path / "q").exists()
