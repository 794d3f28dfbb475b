"""Rate limits: kept by configuration, learnt from answers, on a clock that only waiting moves."""

import asyncio
import gc

import pytest

from gateway import AudienceError, Limit, Pace, shared_pace
from gateway.pacing import FIRST_PAUSE_S, LAST_PAUSE_S, MAX_BLOCK_S, retry_after_s
from tests.harness.vendors import Time


def run(pace: Pace, time: Time, count: int) -> list[float]:
    """Make calls as fast as allowed; returns when each went out, from the start."""
    start = time.now

    async def go() -> list[float]:
        times = []
        for _ in range(count):
            await pace.turn(1e9)
            times.append(time.now - start)
        return times

    return asyncio.run(go())


def test_no_window_ever_holds_more_than_its_calls() -> None:
    """In any second and any minute, wherever they begin, there are no more calls than allowed, nor many fewer."""
    time = Time()
    times = run(time.pace(Limit(calls=5, seconds=1.0), Limit(calls=20, seconds=60.0)), time, 65)
    for most, seconds in ((5, 1.0), (20, 60.0)):
        for first, last in zip(times, times[most:], strict=False):
            assert last - first >= seconds - 1e-6
    assert times[19] < 4
    assert times[64] < 185


def test_connections_of_an_account_share_the_limit() -> None:
    """Two callers at once make together no more calls than one may."""
    time = Time()
    pace = time.pace(Limit(calls=10, seconds=60.0))
    times: list[float] = []

    async def one() -> None:
        for _ in range(10):
            await pace.turn(1e9)
            times.append(time.now)

    async def both() -> None:
        await asyncio.gather(one(), one())

    asyncio.run(both())
    assert len(times) == 20
    assert sorted(times)[10] - min(times) >= 60


def test_the_same_account_gives_the_same_pace_while_it_is_used() -> None:
    """The name decides; when nobody holds it any more, the next one is new."""
    first = shared_pace("test:a", lambda: Pace(Limit(calls=1, seconds=1.0)))
    assert shared_pace("test:a", Pace) is first
    assert shared_pace("test:b", Pace) is not first
    del first
    gc.collect()
    made: list[Pace] = []

    def make() -> Pace:
        made.append(Pace())
        return made[-1]

    assert shared_pace("test:a", make) is made[0]


def test_a_wait_that_is_too_long_is_told_and_costs_nothing() -> None:
    """Beyond the bound the caller hears for how long, at once, and the call is not counted."""
    time = Time()
    pace = time.pace(Limit(calls=1, seconds=86_400.0))
    run(pace, time, 1)
    with pytest.raises(AudienceError, match="goes on by itself") as caught:
        asyncio.run(pace.turn(60.0))
    assert caught.value.retry_after_s == pytest.approx(86_400)
    assert time.slept == 0
    time.now += 86_400
    assert pace.wait_s() == 0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Sun, 22 Nov 2026 00:00:09 GMT"}, 9),
        ({"retry-after": "999999"}, MAX_BLOCK_S),
        ({"retry-after": "soon"}, FIRST_PAUSE_S),
        ({}, FIRST_PAUSE_S),
    ],
)
def test_a_refusal_blocks_everybody(headers: dict[str, str], wait: float) -> None:
    """After 429 nobody calls until the time that it names, in seconds or as a date; a pause where it names none."""
    time = Time()
    pace = time.pace()
    pace.learn(429, headers)
    assert pace.wait_s() == pytest.approx(wait)


def test_the_pause_doubles_until_a_call_succeeds() -> None:
    """Refusals in a row without a time wait 1, 2, 4 … 60 s; a success starts over."""
    time = Time()
    pace = time.pace()
    waits = []
    for _ in range(8):
        pace.learn(429, {})
        waits.append(pace.wait_s())
        time.now += pace.wait_s()
    assert waits == [1, 2, 4, 8, 16, 32, LAST_PAUSE_S, LAST_PAUSE_S]
    pace.learn(200, {})
    pace.learn(429, {})
    assert pace.wait_s() == FIRST_PAUSE_S


@pytest.mark.parametrize("prefix", ["ratelimit", "x-ratelimit", "x-userendpoint-ratelimit"])
@pytest.mark.parametrize("reset", [30, 1_795_305_600 + 30])
def test_none_remaining_waits_for_the_reset(prefix: str, reset: int) -> None:
    """The last allowed answer says when the window ends, in seconds or as a moment."""
    time = Time()
    pace = time.pace()
    pace.learn(200, {f"{prefix}-remaining": "1", f"{prefix}-reset": str(reset)})
    assert pace.wait_s() == 0
    pace.learn(200, {f"{prefix}-remaining": "0", f"{prefix}-reset": str(reset)})
    assert pace.wait_s() == pytest.approx(30)


def test_a_smaller_limit_of_the_vendor_is_kept_and_a_larger_one_is_not_taken() -> None:
    """The configured share is the most; an account that is allowed less gets less, in the minute, never in the day."""
    time = Time()
    pace = time.pace(Limit(calls=10, seconds=60.0), Limit(calls=5, seconds=1.0), Limit(calls=1000, seconds=86_400.0))
    pace.learn(200, {"ratelimit-limit": "750, 750;w=60"})
    assert run(pace, time, 11)[10] >= 60
    pace.learn(200, {"ratelimit-limit": "2"})
    time.now += 60
    times = run(pace, time, 3)
    assert times[1] == 0
    assert times[2] >= 60


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e9", "\u0661", "x" * 100, "1 2 3"])
def test_a_bad_retry_after_is_nothing(text: str) -> None:
    """Nothing unreadable is obeyed."""
    assert retry_after_s({"retry-after": text}, 0.0) is None


def test_a_minus_one_of_a_vendor_does_not_block() -> None:
    """Unreadable headers of limits change nothing."""
    time = Time()
    pace = time.pace(Limit(calls=2, seconds=60.0))
    pace.learn(200, {"ratelimit-remaining": "-1", "ratelimit-reset": "x", "ratelimit-limit": "0"})
    assert pace.wait_s() == 0
    assert run(pace, time, 2) == [0, 0]
