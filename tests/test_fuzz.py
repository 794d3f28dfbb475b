"""
Fuzzing: whatever is sent to either listener, the gateway answers in the documented form and in time, repeats nothing of
it, and keeps exactly what it said it had accepted.

``make test`` sends the same inputs each time; ``GATEWAY_SOAK=1`` a million, from a seed that is printed
(``GATEWAY_FUZZ_SEED`` repeats one).
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import Rejected, coerce, ingress, verify
from gateway.ingress import Ingress
from gateway.outbox import Admission
from gateway.outbox.sqlite import SqliteOutbox
from gateway.plugins.browser_tag import payload
from tests.harness import fuzz_inputs, fuzz_operator, fuzz_strategies
from tests.harness.fuzz import CANARY, PIXELS, SOURCES, Input, Judge, World, load_corpus, rss_mb
from tests.harness.processes import say

CORPUS = Path(__file__).parent / "fuzz_corpus"
IS_SOAK = os.environ.get("GATEWAY_SOAK") == "1"
SEED = int(os.environ.get("GATEWAY_FUZZ_SEED", random.randrange(2**32) if IS_SOAK else 20_261_122))
MUTATIONS = 1_000_000 if IS_SOAK else 4_000
#: For one answer, of the processor's time.
LIMIT_S = 1.0
#: The process may grow by so much, and by a little for each event that waits.
GROWTH_MB, WAITING_MB = 20.0, 0.002
#: So many inputs are under way at once, as they would be: their events share a commit.
TOGETHER = 12
_HEAVY = 100_000
PROFILE = settings(
    max_examples=2_000 if IS_SOAK else 30, derandomize=not IS_SOAK, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a gateway in this process."""
    with World(tmp_path) as found:
        yield found


def run(world: World, judge: Judge, inputs: Iterable[Input]) -> None:
    """Send everything, small inputs together and large ones alone."""
    waiting: list[Input] = []
    for given_input in inputs:
        if len(given_input.body) > _HEAVY:
            judge.look(given_input, *world.send(given_input))
            continue
        waiting.append(given_input)
        if len(waiting) == TOGETHER:
            flush(world, judge, waiting)
    flush(world, judge, waiting)


def flush(world: World, judge: Judge, waiting: list[Input]) -> None:
    for sent, answer in zip(waiting, world.send(*waiting), strict=True):
        judge.look(sent, answer)
    waiting.clear()


def finish(world: World, judge: Judge, what: str) -> None:
    """Judge the log and the store, and say the numbers."""
    judge.read_log(world.lines())
    kept = world.kept()
    if judge.accepted != kept:
        judge.problems.append(f"{judge.accepted} accepted, {kept} kept")
    say(
        f"fuzz, {what}: {judge.inputs} inputs, statuses {dict(sorted(judge.statuses.items()))}, {kept} events kept, "
        f"slowest {judge.slowest[0]:.3f} s ({judge.slowest[1]}), {rss_mb():.0f} MB"
    )


def test_mandatory_seeds(world: World) -> None:
    """Each known trouble-maker at each source: as a body, as a value of a sound event, as query, header and path."""
    judge = Judge(LIMIT_S)
    run(world, judge, fuzz_inputs.mandatory())
    finish(world, judge, "mandatory seeds")
    assert judge.inputs > 5_000
    judge.verdict()


def test_mandatory_seeds_at_the_operators_api(world: World) -> None:
    """The same trouble-makers at every path of the operator's API, and captures that are none."""
    judge = Judge(LIMIT_S)
    run(world, judge, fuzz_operator.operator_calls())
    finish(world, judge, "operator's API")
    assert judge.inputs > 4_000
    judge.verdict()


def test_mutations(world: World) -> None:
    """Almost valid events, webhooks, hits and variables, at the source that they are for, signed where it must be."""
    judge = Judge(LIMIT_S)
    mutator = fuzz_inputs.Mutator(SEED)
    run(world, judge, (mutator.next() for _ in range(500)))
    before = rss_mb()
    while judge.inputs < MUTATIONS:
        run(world, judge, (mutator.next() for _ in range(min(10_000, MUTATIONS - judge.inputs))))
        judge.read_log(world.lines())
        judge.verdict()
    grown = rss_mb() - before
    finish(world, judge, f"mutations of seed {SEED} (GATEWAY_FUZZ_SEED), {grown:+.1f} MB")
    judge.verdict()
    assert judge.accepted > judge.inputs / 20, "too little is nearly valid to tell anything"
    assert grown <= GROWTH_MB + WAITING_MB * judge.accepted


@pytest.mark.parametrize("source", SOURCES)
def test_hypothesis(world: World, source: str) -> None:
    """Bytes, any JSON, and what is almost an event; a failure is shrunk."""
    judge = Judge(LIMIT_S)
    strategy = fuzz_strategies.posts(source)
    if source in PIXELS:
        strategy = strategy | fuzz_strategies.gets(source)

    @PROFILE
    @given(st.lists(strategy, min_size=1, max_size=4))
    def each(inputs: list[Input]) -> None:
        for sent in inputs:
            found = judge.look(sent, *world.send(sent))
            assert not found, f"{found} {sent.shown()}"

    each()
    finish(world, judge, f"hypothesis at {source}")
    judge.verdict()


def test_hypothesis_at_the_operators_api(world: World) -> None:
    """Any body at every path that takes one."""
    judge = Judge(LIMIT_S)
    strategy = st.one_of(*map(fuzz_operator.calls, fuzz_operator.OPERATOR))

    @PROFILE
    @given(st.lists(strategy, min_size=1, max_size=6))
    def each(inputs: list[Input]) -> None:
        for sent in inputs:
            found = judge.look(sent, *world.send(sent))
            assert not found, f"{found} {sent.shown()}"

    each()
    finish(world, judge, "hypothesis at the operator's API")
    judge.verdict()


@pytest.mark.parametrize("once", load_corpus(CORPUS), ids=lambda one: one.label)
def test_what_once_failed(world: World, once: Input) -> None:
    """Each input that once failed, kept as a file with its reason."""
    judge = Judge(LIMIT_S)
    judge.look(once, *world.send(once))
    finish(world, judge, once.label)
    judge.verdict()


def planted_int() -> Callable[[Any], Any]:
    return lambda value: int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def planted_text() -> Callable[..., Any]:
    def text(value: Any, limit: int = 1_000) -> str | None:
        if isinstance(value, str):
            value.encode()
            return value.strip()[:limit] or None
        return None

    return text


def planted_secret() -> Callable[..., Any]:
    def matches(given: str | bytes, secrets: Iterable[Any]) -> bool:
        text = given if isinstance(given, str) else given.decode()
        return any(text == secret.value for secret in secrets)

    return matches


def planted_echo() -> Callable[..., Any]:
    def json_body(given: bytes) -> Any:
        raise Rejected("malformed_json", f"Cannot read {given[:2_000].decode('latin-1')}.")

    return json_body


def planted_headers() -> Callable[..., Any]:
    def headers(scope: Any) -> dict[str, str]:
        return {name.decode("ascii").lower(): value.decode("ascii") for name, value in scope["headers"]}

    return headers


PLANTS: dict[str, tuple[Any, str, Callable[[], Any], str]] = {
    "int(text) of an endless number": (coerce, "integer", planted_int, "status 503"),
    "a text that cannot be encoded": (coerce, "text", planted_text, "status 503"),
    "a credential that must be UTF-8": (verify, "matches", planted_secret, "status 503"),
    "headers that must be ASCII": (ingress, "_headers", planted_headers, "status 503"),
    "an error that repeats the body": (payload, "json_body", planted_echo, "the payload in the answer"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of what ``make test`` sends finds it, for the right reason."""
    holder, attribute, made, symptom = PLANTS[name]
    monkeypatch.setattr(holder, attribute, made())
    judge = Judge(LIMIT_S)
    mutator = fuzz_inputs.Mutator(SEED)
    run(world, judge, (*fuzz_inputs.spoilt_headers(), *(mutator.next() for _ in range(300))))
    assert any(symptom in problem for problem in judge.problems), f"not found: {name}"


def test_a_lost_event_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event that is answered and not kept: the count of the store gives it away."""
    admit = SqliteOutbox.admit
    state = {"calls": 0}

    async def losing(self: SqliteOutbox, units: Any, *rest: Any) -> list[Admission]:
        state["calls"] += 1
        if state["calls"] == 5:
            return [Admission(fate="accepted", unit="0") for _ in units]
        return await admit(self, units, *rest)

    monkeypatch.setattr(SqliteOutbox, "admit", losing)
    judge = Judge(LIMIT_S)
    mutator = fuzz_inputs.Mutator(SEED)
    run(world, judge, (mutator.next() for _ in range(200)))
    finish(world, judge, "a planted loss")
    assert any("accepted," in problem for problem in judge.problems)


def test_a_forged_log_line_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that holds the path, or that a path can split: the log gives it away."""
    answer = Ingress.__call__

    async def telling(self: Ingress, scope: Any, receive: Any, send: Any) -> None:
        world.log.write(f"GET {scope['path']}\n")
        await answer(self, scope, receive, send)

    monkeypatch.setattr(Ingress, "__call__", telling)
    judge = Judge(LIMIT_S)
    for path in fuzz_inputs.PATHS:
        sent = Input(label="path", method="GET", target=path)
        judge.look(sent, *world.send(sent))
    judge.read_log(world.lines())
    assert any("not JSON" in problem and CANARY in problem for problem in judge.problems)
