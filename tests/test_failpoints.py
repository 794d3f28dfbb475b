"""The process ends, or a call fails, at every boundary of the store: nothing is lost, what was in flight may double."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway import sender
from gateway.errors import Unavailable
from gateway.event import SealedEvent
from gateway.outbox import DeadFilter, Lane, Mark, Settlement, Unit, memories, upkeep
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import Fault, PinterestSandbox
from gateway.testing import Running
from tests.harness.failpoints import EXIT_CODE, ONLY_EXIT, POINTS, Failpoints
from tests.harness.launcher import PLANTS
from tests.harness.load import Load
from tests.harness.mix import EVERYTHING, email_of, kind_of, mixed_config, poison_fault
from tests.harness.mixed import Inside, balance, inside, sandbox_for
from tests.harness.oracle import Balance, Oracle, held, snapshot
from tests.harness.processes import ROOT, Pair, say, until
from tests.harness.zygote import ForkedGateway, Zygote

ROUNDS = 20 if os.environ.get("GATEWAY_SOAK") == "1" else 1
SEED = int(os.environ.get("GATEWAY_SEED", "20261122"))
#: Points that need more than load: an operator, a restart, a stop, an older store (see test_migration.py).
BY_OPERATOR = ("replay", "erase.remembered", "erase")
#: Points that load passes again and again.
OFTEN = frozenset(name for name in POINTS if name.partition(".")[0] in ("insert", "admit", "reply", "claim", "send"))
#: See test_migration.py.
MIGRATION = frozenset(name for name in POINTS if name.startswith("migrate"))
EXITS = [name for name in POINTS if name not in MIGRATION]
RAISES = [name for name in EXITS if name not in ONLY_EXIT and name not in ("recover", "close")]
BATCH, IN_FLIGHT = 50, 4
OLD_LETTERS = 1_200
MONTH_S = 30 * 86_400


def test_the_product_has_no_switch_for_them() -> None:
    """Nothing of the harness is in the product: no name of it, no variable that it reads."""
    words = ("failpoint", "harness", "plant_")
    files = [path for folder in ("gateway", "adapters") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(path) for path in files if any(word in path.read_text().lower() for word in words)] == []


async def old_letters(store: Path) -> None:
    """Leave dead letters in a new store whose time is over, several slices of them."""
    then = time.time() - MONTH_S
    outbox = SqliteOutbox(store, clock=lambda: then, linger_s=0.0)
    lane = Lane(destination="pinterest", kind="live")
    units = [
        Unit(
            lane=lane,
            event=SealedEvent(
                event_id=f"ancient-{number}", event_name="lead", event_time=int(then), accepted_at=then,
                source="api", site="shop", born="server",
            ),
            marks=(Mark(digest=outbox.digest(f"ancient-{number}"), lifetime_s=100 * MONTH_S),),
        )
        for number in range(OLD_LETTERS)
    ]  # fmt: skip
    await outbox.admit(units)
    lease = await outbox.claim(lane, OLD_LETTERS, then)
    assert lease is not None
    await outbox.settle(lease, [Settlement(unit=one.unit, end="dead", reason="old") for one in lease.units])
    await outbox.close()


def poisoned(store: Path) -> list[str]:
    """Return the dead letters that the vendor refused."""
    return [event_id for event_id in held(store).dead if kind_of(event_id) == "poison"]


class Series:
    """One sandbox, one store, one load; the gateway ends at one point after the other."""

    def __init__(self, pair: Pair, load: Load, oracle: Oracle, told: Path) -> None:
        assert isinstance(pair.gateway, ForkedGateway)
        self.gateway = pair.gateway
        self.load = load
        self.oracle = oracle
        self.told = told
        self.in_flight: set[str] = set()
        self.sound = True
        self.codes: dict[str, int] = {}
        self.erased: set[str] = set()

    async def end_at(self, name: str, nth: int) -> None:
        """Start with a point armed, do what reaches it, and look at what the end left."""
        gateway = self.gateway
        gateway.environ.update({"HARNESS_FAILPOINT": f"{name}:exit:{nth}", "HARNESS_REACHED": str(self.told)})
        if name == "recover":
            await self._end_in_recovery()
            return
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(self._provoke, name)
        self.codes[name] = await asyncio.to_thread(gateway.wait, 20.0)
        await self._look()

    async def _end_in_recovery(self) -> None:
        gateway = self.gateway
        gateway.environ["HARNESS_FAILPOINT"] = "claim.after_commit:exit:3"
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.wait, 20.0)
        await self._look()
        gateway.environ["HARNESS_FAILPOINT"] = "recover:exit:1"
        with pytest.raises(AssertionError, match="the gateway ended"):
            await asyncio.to_thread(gateway.start)
        self.codes["recover"] = await asyncio.to_thread(gateway.wait, 5.0)
        await self._look()

    async def _look(self) -> None:
        found = await asyncio.to_thread(snapshot, self.gateway.store)
        self.in_flight |= found.in_flight
        self.sound = self.sound and found.is_sound
        await asyncio.to_thread(self.oracle.look)

    def _provoke(self, name: str) -> None:
        """Do what load alone does not: the call is cut off when the process ends in it."""
        gateway = self.gateway
        if name == "close":
            gateway.send_signal(15)
        if name not in BY_OPERATOR:
            return
        until(lambda: gateway.has_ended() or len(poisoned(gateway.store)) > 3, 10.0, "some letters")
        path, body = "/api/dead/replay", {}
        if name.startswith("erase"):
            self.erased.add(victim := min(poisoned(gateway.store)))
            path, body = "/api/erase", {"email": email_of(victim)}
        try:
            gateway.api("POST", path, body)
        except Exception:  # noqa: BLE001 - it ends while it answers
            return


async def series(folder: Path, zygote: Zygote, points: Iterable[str], rng: random.Random) -> tuple[Series, Balance]:
    """End a loaded gateway at each point, start it again, drain, and settle the account."""
    config = mixed_config(batch_size=BATCH, linger_s=0.02, more=f"in_flight = {IN_FLIGHT}")
    pair = Pair(folder, config)
    config = config.replace("{sandbox}", f"{pair.sandbox.url}/v5")
    pair.gateway = ForkedGateway(folder, config, zygote, {"HARNESS_CAP_S": "0.5"})
    await old_letters(pair.gateway.store)
    pair.sandbox.start()
    try:
        pair.sandbox.stand(**poison_fault("e") | {"delay_s": 0.01})
        load = Load(pair.gateway.port, 6, rng, 0.005, mix={**EVERYTHING, "poison": 8})
        found = Series(pair, load, Oracle(pair.sandbox, pair.gateway), folder / "reached")
        load.start()
        try:
            for name in points:
                await found.end_at(name, rng.randint(1, 4) if name in OFTEN else 1)
        finally:
            found.gateway.environ["HARNESS_FAILPOINT"] = ""
            await asyncio.to_thread(pair.gateway.start)
            await load.accepting(load.last_accepted_at, 20.0)
            await load.stop()
        for event_id in found.erased:
            await asyncio.to_thread(pair.gateway.api, "POST", "/api/erase", {"email": email_of(event_id)})
        await asyncio.to_thread(pair.gateway.drain)
        return found, found.oracle.balance(load, gone=frozenset(found.erased))
    finally:
        pair.__exit__(None, None, None)


def test_the_process_ends_at_every_boundary(tmp_path: Path) -> None:
    """An exit at each point under load: nothing lost, corrupt, invented or leaked; what was in flight alone twice."""
    rng = random.Random(SEED)
    points = [name for _ in range(ROUNDS) for name in rng.sample(EXITS, len(EXITS))]
    with Zygote() as zygote:
        found, account = asyncio.run(series(tmp_path, zygote, points, rng))
    reached = found.told.read_text().split()
    say(
        f"seed {SEED}, exits {len(points)}, accepted {account.accepted}, fates {account.by_fate}, "
        f"twice {len(account.again)}, in flight {len(found.in_flight)}, unanswered {found.load.unanswered}"
    )
    assert {line.partition(":")[0] for line in reached} >= set(EXITS), "a point was never reached"
    assert found.codes == dict.fromkeys(EXITS, EXIT_CODE), "it ended elsewhere"
    assert found.load.problems == []
    assert account.faults == {}
    assert sum(account.by_fate.values()) == account.accepted
    assert account.again.keys() <= found.in_flight
    assert account.accepted > 5 * len(points)
    assert found.sound
    left = held(tmp_path / "gateway.db")
    assert not [event_id for event_id in left.dead if event_id.startswith("ancient") or event_id in found.erased]


def test_every_point_has_its_test() -> None:
    """Each point is ended at and failed at, here or in test_migration.py, or it is said why not."""
    assert {*EXITS, *MIGRATION} == set(POINTS)
    assert {*RAISES, *ONLY_EXIT, *MIGRATION, "recover", "close"} == set(POINTS)
    assert len(POINTS) >= 12


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs take moments, and what upkeep does now and then it does often."""
    monkeypatch.setattr(sender, "_CAP_S", 0.05)
    monkeypatch.setattr(memories, "_ROUND_S", 0.1)
    monkeypatch.setattr(upkeep, "_PASSIVE_ROWS", 50)
    monkeypatch.setattr(upkeep, "_SLICE_EVERY_S", 0.1)


async def _settle_down(found: Running, load: Load) -> None:
    """Send so many more events, and wait until nothing waits."""
    load.start()
    await load.finish()
    outbox = found.gateway.outbox
    assert isinstance(outbox, SqliteOutbox)

    async def left() -> int:
        return sum(lane.waiting + lane.leased for lane in (await outbox.counts()).lanes)

    async with asyncio.timeout(20):
        while await left():
            found.gateway.sender.poke()
            await asyncio.sleep(0.02)


class Retrying(Inside):
    """A client that sends again what was answered 503, as every sender of hits does."""

    async def post(self, body: bytes, source: str = "api", length: int | None = None) -> tuple[int, Any] | None:
        """Send until the answer is another one."""
        while (answer := await super().post(body, source, length)) and answer[0] == 503:
            self.refusals = getattr(self, "refusals", 0) + 1
            await asyncio.sleep(0.01)
        return answer


def test_a_failing_call_at_every_boundary(tmp_path: Path, short_waits: None) -> None:
    """A failure at each point, once, under load: hits are refused with 503 and sent again, and nothing is lost."""
    rng = random.Random(SEED)
    box = sandbox_for()

    async def main() -> tuple[Balance, Failpoints]:
        with Failpoints().installed() as points:
            await old_letters(tmp_path / "gateway.db")
            async with inside(tmp_path, box) as found:
                load = Load(0, 3, rng, mix={**EVERYTHING, "poison": 10}, connect=lambda: Retrying(lambda: found))
                for name in [name for _ in range(ROUNDS) for name in rng.sample(RAISES, len(RAISES))]:
                    points.arm(name, "raise")
                    load._limit = load._sent + 60
                    load.start()
                    await load.finish()
                    await _provoke_inside(found, name)
                    async with asyncio.timeout(20):
                        while name in points._armed:
                            load._limit = load._sent + 20
                            load.start()
                            await load.finish()
                    await _settle_down(found, load)
                assert load.problems == []
            async with inside(tmp_path, box) as found:
                await _settle_down(found, load)
        return balance(box, tmp_path, load), points

    account, points = asyncio.run(main())
    say(f"seed {SEED}, failures {len(points.fired)}, accepted {account.accepted}, fates {account.by_fate}")
    assert set(points.fired) == set(RAISES)
    assert account.faults == {}
    # a batch arrived although its plugin failed after it was sent
    assert account.copies <= 3 * BATCH * IN_FLIGHT * ROUNDS
    assert sum(account.by_fate.values()) == account.accepted


async def _provoke_inside(found: Running, name: str) -> None:
    outbox = found.gateway.outbox
    if name == "replay":
        with pytest.raises(Unavailable):
            await outbox.replay(DeadFilter())
    if name.startswith("erase"):
        # nobody's: what an erasure of somebody does is looked at elsewhere
        call = outbox.erase([outbox.digest("nobody at all")], requested_at=found.gateway.clock())
        with pytest.raises(Exception, match=r"planted|cannot be written"):
            await call


def plain_lane() -> dict[str, float]:
    """Return a mix that a plant shows in at once."""
    return {"plain": 6, "again": 2, "pair": 2}


#: Plant → what the account calls it.
FINDS = {
    "mark_without_row": "lost", "settle_before_send": "lost", "dedupe_in_memory_only": "leaked",
    "forget_leases": "again",
}  # fmt: skip


@pytest.mark.parametrize("plant", FINDS)
def test_the_oracle_finds_planted_faults(
    tmp_path: Path, plant: str, monkeypatch: pytest.MonkeyPatch, short_waits: None
) -> None:
    """Faults that lose or double events, planted in the product: the account names each."""
    box = PinterestSandbox()

    async def main(planted: bool) -> dict[str, Any]:
        folder = tmp_path / str(planted)
        folder.mkdir()
        load = Load(0, 3, random.Random(SEED), mix=plain_lane(), connect=lambda: Inside(lambda: found))
        box.faults.stand(Fault(kind="delay", delay_s=0.03))
        for _ in range(2):
            async with inside(folder, box, hold_s=0.0, batch_size=10) as found:
                if plant == "settle_before_send":
                    box.faults.queue(*[Fault(kind="status", status=503)] * 2)
                load._limit = load._sent + 150
                load.start()
                await load.finish()
                if load._mixer is not None:
                    load._mixer._later.clear()
                await asyncio.sleep(0.1)
                if not planted:
                    await _settle_down(found, load)
        account = balance(box, folder, load)
        box.reset()
        box.faults.clear()
        return {**account.faults, **({"again": account.again} if account.again else {})}

    assert asyncio.run(main(planted=False)) == {}
    PLANTS[plant](monkeypatch.setattr)
    found = asyncio.run(main(planted=True))
    say(f"{plant}: { ({name: len(ids) for name, ids in found.items()}) }")
    assert FINDS[plant] in found


def test_a_launcher_refuses_an_unknown_point(tmp_path: Path) -> None:
    """A misspelt point ends the launcher, so that no test passes because nothing was planted."""
    environ = {**os.environ, "HARNESS_FAILPOINT": "nowhere:exit:1"}
    done = subprocess.run(
        [sys.executable, "-c", "from tests.harness import failpoints; failpoints.from_environment()"],
        env=environ, cwd=ROOT, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"KeyError" in done.stderr
