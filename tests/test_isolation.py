"""A stranger's adapter that raises, hangs or floods costs its own hits only."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from gateway.errors import Rejected, Unavailable
from gateway.isolation import HUNG_LIMIT, Guard

SHORT_S = 0.02


class Hanging:
    """Calls that do not return before :meth:`release`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        assert self._event.wait(20)
        return "late"

    def release(self) -> None:
        self._event.set()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Release every hanging call at the end, and see that no thread outlives the test."""
    made = Hanging()
    yield made
    made.release()
    deadline = time.monotonic() + 10
    for thread in threading.enumerate():
        if thread.name.startswith("plugin"):
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive()


def guarded(scenario: Callable[[Guard, list[str]], Coroutine[Any, Any, None]], deadline_s: float = 5.0) -> None:
    """Run a scenario with a guard and the names of the failures it counted."""

    async def main() -> None:
        failures: list[str] = []
        guard = Guard(failures.append, deadline_s)
        try:
            await scenario(guard, failures)
        finally:
            guard.close()

    asyncio.run(main())


def raising() -> str:
    raise KeyError("jo@example.com")


def rejecting() -> str:
    raise Rejected("unauthorized", "No.", status=401)


def test_inline_turns_a_bug_into_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    """Our own adapter's bug is a 503 with its name, counted, and logged without the exception's text."""
    failures: list[str] = []
    guard = Guard(failures.append)
    with caplog.at_level(logging.ERROR), pytest.raises(Unavailable) as caught:
        guard.inline("acme", raising)
    guard.close()
    assert (caught.value.reason, caught.value.retry_after_s) == ("plugin_failed", 30)
    assert "'acme'" in caught.value.message
    assert failures == ["acme"]
    (record,) = caplog.records
    assert (record.plugin, record.error) == ("acme", "KeyError")  # type: ignore[attr-defined]
    assert "test_isolation.py:" in record.where  # type: ignore[attr-defined]
    assert "jo@example.com" not in caught.value.message + record.getMessage() + str(vars(record))


def test_rejected_passes_both_ways() -> None:
    """What a plugin says of a hit is no failure of the plugin."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        with pytest.raises(Rejected):
            guard.inline("acme", rejecting)
        with pytest.raises(Rejected):
            await guard.threaded("acme", rejecting)
        assert guard.inline("acme", lambda: 7) == await guard.threaded("acme", lambda: 7) == 7
        assert failures == []

    guarded(scenario)


def test_a_strangers_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A raising stranger is a 503 with its name; the exception's text stays out of answer and log."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        with pytest.raises(Unavailable) as caught:
            await guard.threaded("acme", raising)
        assert caught.value.reason == "plugin_failed"
        assert "jo@" not in caught.value.message
        assert failures == ["acme"]

    guarded(scenario)
    assert "jo@" not in caplog.text


def test_a_hanging_call_is_given_up(hanging: Hanging) -> None:
    """The hit is answered at the deadline, while the thread still hangs and others go on."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        with pytest.raises(Unavailable):
            await guard.threaded("acme", hanging)
        assert failures == ["acme"]
        assert await guard.threaded("other", lambda: "well") == "well"
        assert guard.switched_off == set()
        hanging.release()

    guarded(scenario, SHORT_S)


def test_hung_too_often_in_a_row(hanging: Hanging, caplog: pytest.LogCaptureFixture) -> None:
    """Five hung calls in a row switch the plugin off, loudly, and it is not called again; others work."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        for _ in range(HUNG_LIMIT):
            assert "acme" not in guard.switched_off
            with pytest.raises(Unavailable):
                await guard.threaded("acme", hanging)
        assert guard.switched_off == {"acme"}
        with pytest.raises(Unavailable, match="switched off") as caught:
            await guard.threaded("acme", hanging)
        assert caught.value.reason == "plugin_failed"
        assert hanging.calls == HUNG_LIMIT
        assert await guard.threaded("other", lambda: 1) == 1
        hanging.release()

    guarded(scenario, SHORT_S)
    assert [record.getMessage() for record in caplog.records].count("plugin_switched_off") == 1


@pytest.mark.parametrize("between", [lambda: 1, rejecting, raising], ids=["answer", "rejection", "bug"])
def test_a_call_that_returns_ends_the_row(hanging: Hanging, between: Callable[[], object]) -> None:
    """Only hung calls in a row count: one that returned in any way starts the count anew."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        for _ in range(HUNG_LIMIT - 1):
            with pytest.raises(Unavailable):
                await guard.threaded("acme", hanging)
        hanging.release()
        with contextlib.suppress(Rejected, Unavailable):
            await guard.threaded("acme", between)
        again = Hanging()
        with pytest.raises(Unavailable):
            await guard.threaded("acme", again)
        again.release()
        assert guard.switched_off == set()

    guarded(scenario, 0.1)


def test_all_threads_taken(hanging: Hanging) -> None:
    """When every thread hangs a further call is refused at once, not queued; freed threads are used again."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        tasks = [asyncio.create_task(guard.threaded(f"plugin{number}", hanging)) for number in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="threads"):
            await guard.threaded("other", lambda: 1)
        hanging.release()
        assert await asyncio.gather(*tasks) == ["late"] * 8
        assert await guard.threaded("other", lambda: 1) == 1

    guarded(scenario)


def test_many_at_once() -> None:
    """A burst of quick calls loses no thread to a miscount."""

    async def scenario(guard: Guard, failures: list[str]) -> None:
        for _ in range(60):
            assert await asyncio.gather(*(guard.threaded("acme", lambda: 1) for _ in range(4))) == [1] * 4
        assert failures == []

    guarded(scenario)
