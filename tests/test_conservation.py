"""Conservation: of a mix of everything each accepted id has exactly one fate, and all counters agree."""

import asyncio
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.harness import conformance
from tests.harness.load import Load, Told
from tests.harness.mix import (
    EVERYTHING,
    email_of,
    is_as_posted,
    kind_of,
    mixed_config,
    name_of,
    phone_of,
    poison_fault,
    sha,
    value_of,
)
from tests.harness.oracle import Balance, Held, Oracle, held, settle
from tests.harness.processes import Pair, say, until

SOAK = os.environ.get("GATEWAY_SOAK") == "1"
EVENTS = 100_000 if SOAK else 2_500
SEED = int(os.environ.get("GATEWAY_SEED", "20261122"))
_LINE = re.compile(r"gateway_events_total\{(?P<labels>[^}]*)\} (?P<count>[0-9.e+]+)")


def counted(metrics: str) -> Counter[str]:
    """Return ``gateway_events_total`` summed by fate, test events with the others."""
    found: Counter[str] = Counter()
    for line in _LINE.finditer(metrics):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line["labels"]))
        found[labels["fate"].removeprefix("test_")] += int(float(line["count"]))
    return found


def unaccounted(metrics: Counter[str], told: Counter[str]) -> int:
    """Return how many accepted units are neither delivered nor dead, nor ended as dropped or merged later on."""
    ended = metrics["dropped"] - told["dropped"] + metrics["merged"] - told["merged"]
    return metrics["accepted"] - metrics["delivered"] - metrics["dead"] - ended


async def run(folder: Path) -> tuple[Balance, Load, Counter[str], Held, dict[str, Any]]:
    """Send the mix, drain; returns the account, the load, the metrics and what the store holds."""
    with Pair(folder, mixed_config(batch_size=200)) as pair:
        oracle = Oracle(pair.sandbox, pair.gateway)
        pair.sandbox.stand(**poison_fault("e"))
        load = Load(pair.gateway.port, 12, random.Random(SEED), mix=EVERYTHING, limit=EVENTS)
        load.start()
        finishing = asyncio.create_task(load.finish())
        while not finishing.done():
            await asyncio.sleep(0.5)
            await asyncio.to_thread(oracle.look)
        await finishing
        await asyncio.to_thread(pair.gateway.drain, 60.0)
        balance = oracle.balance(load)
        counts = pair.sandbox.counts()

        def metrics() -> Counter[str]:
            return counted(pair.gateway.api("GET", "/metrics"))

        # what is settled is counted a moment after its commit
        told = Counter(copy.outcome for copies in load.told.values() for copy in copies)
        await asyncio.to_thread(until, lambda: unaccounted(metrics(), told) == 0, 5.0, "all is counted", 0.1)
        found = await asyncio.to_thread(metrics)
        assert conformance.problems_of_events(oracle.sample) == []
        return balance, load, found, held(pair.gateway.store), counts


def test_everything_has_exactly_one_fate(tmp_path: Path) -> None:
    """A seeded mix of every kind: the partition is exact by id, and metrics, store, vendor and clients agree."""
    balance, load, metrics, store, counts = asyncio.run(run(tmp_path))
    outcomes = Counter(copy.outcome for copies in load.told.values() for copy in copies)
    sent = Counter(kind_of(event_id) for event_id in load.submitted)
    say(f"seed {SEED}, copies {dict(outcomes)}, fates {balance.by_fate}, kinds {dict(sent)}, metrics {dict(metrics)}")
    assert set(sent) == set(EVERYTHING) - {"again"}, "a kind was never sent"
    assert load.problems == []
    assert balance.faults == {}
    assert balance.again == {}, "nothing was ambiguous"
    assert sum(balance.by_fate.values()) == balance.accepted
    assert {"delivered", "dead", "merged", "dropped"} <= balance.by_fate.keys()
    assert outcomes["unknown"] == 0
    # clients and metrics
    assert metrics["accepted"] == outcomes["accepted"]
    assert metrics["duplicate"] == outcomes["duplicate"]
    assert metrics["rejected"] == outcomes["rejected"] + outcomes["refused"] - sent["oversize"]
    # vendor, store and metrics
    assert counts["processed"] + counts["tests"]["processed"] == balance.delivered
    # taken by the vendor while a denial or another copy ended them: those are not counted as delivered
    in_flight = balance.delivered - metrics["delivered"]
    assert 0 <= in_flight <= sent["withdrawn"] + sent["chain"]
    assert metrics["dead"] == store.dead.total() == sent["poison"]
    assert (store.queued.total(), store.twice) == (0, frozenset())
    assert unaccounted(metrics, outcomes) == 0


# -- the oracle itself: each fault is found, and nothing but it


def say_told(outcome: str, at: float = 1.0, of: str | None = None) -> Told:
    """Return an answer."""
    return Told(outcome=outcome, asked_at=at, told_at=at + 0.5, of=of)


NOTHING = Held(queued=Counter(), dead=Counter(), twice=frozenset())
A, B, C = "e-p1a", "e-p1b", "e-v9"
TOLD = {
    A: [say_told("accepted")],
    B: [say_told("merged", 2.0, A)],
    C: [say_told("accepted"), say_told("duplicate", 3.0, C)],
}
CHAIN = {
    "e-c1a": [say_told("accepted")],
    "e-c1b": [say_told("accepted", 2.0)],
    "e-c1c": [say_told("merged", 3.0, "e-c1a")],
}


def test_the_oracle_finds_nothing_wrong_where_nothing_is() -> None:
    """Delivered, dead, queued, merged, duplicate and joined events are all accounted for, over a chain too."""
    balance = settle(TOLD, {A: 1, C: 1}, NOTHING)
    assert (balance.faults, balance.by_fate) == ({}, {"delivered": 2, "merged": 1})
    balance = settle(TOLD, {A: 1}, Held(queued=Counter(), dead=Counter([C]), twice=frozenset()))
    assert (balance.faults, balance.by_fate) == ({}, {"delivered": 1, "dead": 1, "merged": 1})
    balance = settle(CHAIN, {"e-c1a": 1}, NOTHING)
    assert (balance.faults, balance.by_fate) == ({}, {"delivered": 1, "merged": 2})
    steps = {A: [say_told("duplicate", 2.0, B)], B: [say_told("merged", 2.0, C)], C: [say_told("accepted")]}
    late = {**steps, A: [say_told("unknown"), *steps[A]]}
    assert settle(late, {C: 1}, NOTHING).lost == frozenset()


@pytest.mark.parametrize(
    ("fault", "told", "received", "store"),
    [
        ("lost", TOLD, {C: 1}, NOTHING),
        ("lost", CHAIN, {}, NOTHING),
        ("lost", {A: [say_told("accepted"), say_told("duplicate", 2.0, A)]}, {}, NOTHING),
        ("lost", {A: [say_told("unknown"), say_told("merged", 2.0, B)], B: [say_told("merged", 3.0, A)]}, {}, NOTHING),
        ("suppressed", {A: [say_told("duplicate", 2.0, A)]}, {A: 1}, NOTHING),
        ("suppressed", {A: [say_told("duplicate", 1.0, B)], B: [say_told("accepted", 9.0)]}, {B: 1}, NOTHING),
        ("phantom", TOLD, {A: 1, C: 1, "e-v77": 1}, NOTHING),
        ("phantom", {C: [say_told("dropped")]}, {C: 1}, NOTHING),
        ("disowned", {C: [Told(outcome="refused", asked_at=1.0, told_at=2.0, reason="503")]}, {C: 1}, NOTHING),
        ("leaked", {C: [say_told("accepted"), say_told("accepted", 2.0)]}, {C: 2}, NOTHING),
        ("leaked", TOLD, {A: 1, B: 1, C: 1}, NOTHING),
        ("overlapping", TOLD, {A: 1, C: 1}, Held(queued=Counter([C]), dead=Counter(), twice=frozenset())),
        ("overlapping", TOLD, {A: 1}, Held(queued=Counter([C]), dead=Counter([C]), twice=frozenset([C]))),
    ],
)  # fmt: skip
def test_the_oracle_finds_each_fault(
    fault: str, told: dict[str, list[Told]], received: dict[str, int], store: Held
) -> None:
    """A doctored account: the oracle names what is wrong with it."""
    assert fault in settle(told, received, store).faults


def test_the_oracle_compares_what_arrived() -> None:
    """A delivered event whose value, person or name is another's is corrupt; a merged phone number is not."""
    user = {"em": [sha(email_of(A))], "ph": [sha(phone_of(A).lstrip("+"))]}
    sound = {
        "event_id": A, "event_name": name_of(A), "action_source": "web",
        "user_data": user,
        "custom_data": {"value": value_of(A), "currency": "USD"},
    }  # fmt: skip
    assert is_as_posted(sound)
    assert not is_as_posted({**sound, "event_name": "lead"})
    assert not is_as_posted({**sound, "custom_data": {"value": "0.01", "currency": "USD"}})
    assert not is_as_posted({**sound, "user_data": {"em": [sha(email_of(C))]}})
    assert not is_as_posted({**sound, "user_data": {**user, "external_id": ["x"]}})
