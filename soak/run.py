"""One run from the first kill to the report."""

import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.event import Struct
from soak import controls, fuzzing, report
from soak.bounds import bounds_of, broken, judge
from soak.figures import Figures, figures
from soak.kills import Kills, Pace, kill_again
from soak.machine import commit, machine
from soak.report import Control, Report
from soak.steady import Rhythm, Steady, soak
from soak.watch import Sample
from soak.world import World

#: The kills take this share of the time at the most, the steady phase the rest.
_SHARE = 0.8
#: The account is settled so often during the kills.
_SETTLE_KILLS = 100
#: So few are settled with the rest of the run.
_FEW_KILLS = 10
_SAY_S = 30.0


class Plan(Struct, frozen=True, kw_only=True):
    """
    What to do; ``plants`` None: all that there are. ``plant`` is a bug in the gateway of the run itself;
    kills take ``share`` of the time at the most. ``folder`` keeps store and logs; None: a new one, removed after a good
    run.
    """

    minutes: float
    kills: int
    seed: int
    engine: str
    fuzz: int
    out: Path
    plants: tuple[str, ...] | None = None
    pace: Pace = Pace()
    rhythm: Rhythm = Rhythm()
    plant: str | None = None
    share: float = _SHARE
    folder: Path | None = None


def short(error: BaseException) -> str:
    """Return what broke a phase off, without the log that a dead process left: that one is kept beside the store."""
    return (str(error).partition(":")[0] or type(error).__name__)[:80]


class Progress:
    """Lines on the terminal: one that is written over, or one every half minute where there is no terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = 0.0
        self._width = 0

    def say(self, line: str, *, ends: bool = True) -> None:
        """Say where the run is; ``ends`` false: the next line may replace it."""
        now = time.monotonic()
        is_terminal = sys.stdout.isatty()
        if not ends and not is_terminal and now - self._said < _SAY_S:
            return
        self._said = now
        minutes, seconds = divmod(int(now - self._began), 60)
        text = f"{minutes:3d}:{seconds:02d}  {line}"
        padded = text.ljust(self._width)
        self._width = 0 if ends or not is_terminal else len(text)
        sys.stdout.write(f"\r{padded}" if is_terminal else text)
        sys.stdout.write("\n" if ends or not is_terminal else "")
        sys.stdout.flush()


class Run:
    """What one run did so far."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan = plan
        self.progress = progress
        self.kills = Kills()
        self.steady = Steady()
        self.first: list[Sample] = []
        self.controls: list[Control] = []
        self.fuzzed = fuzzing.Fuzzed()
        self.lost = 0
        self.stop = asyncio.Event()
        self.began = time.monotonic()
        self.problem: str | None = None

    async def run(self) -> Report:
        """Do all phases; what is cut short is still judged and reported."""
        folder = self.plan.folder or Path(tempfile.mkdtemp(prefix="tag-gateway-soak-"))
        found = await self._main(folder)
        duration_s = time.monotonic() - self.began
        # what follows starts other processes: should it break, the long part is already written
        report.write(msgspec.structs.replace(self._report(found, duration_s), is_complete=False), self.plan.out)
        await self._controls()
        await self._fuzz()
        done = self._report(found, duration_s)
        report.write(done, self.plan.out)
        if self.plan.folder is not None:
            return done
        if done.is_good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self.progress.say(f"the logs and the store are kept in {folder}")
        return done

    async def _main(self, folder: Path) -> Figures:
        plan = self.plan
        plant = {"HARNESS_PLANT": plan.plant} if plan.plant else None
        world = World(folder, plan.engine, random.Random(plan.seed), self.stop, plant)
        self.first = world.samples
        async with world:
            try:
                await self._kill(world)
                if not self.stop.is_set():
                    self.progress.say(f"steady: {plan.rhythm.measure_s:g} s to measure, then a third of it")
                    end = self.began + plan.minutes * 60
                    await soak(world, self.steady, end, lambda: self._steady_line(world), plan.rhythm)
            except (AssertionError, TimeoutError) as error:
                self.problem = short(error)
                self.progress.say(f"broken off: {self.problem}")
                await world.load.stop()
            balance = await world.settle()
        self.lost = balance.lost
        found = figures(world, balance, self.kills, self.steady, self.first)
        self.progress.say(
            f"settled: {found.accepted} accepted, {found.delivered} delivered, {found.dead} dead, {found.lost} lost,"
            f" {found.corrupt} corrupt, {found.phantom} phantom, {found.duplicated_out} twice"
        )
        return found

    async def _kill(self, world: World) -> None:
        plan, kills = self.plan, self.kills
        until = self.began + plan.minutes * 60 * plan.share
        self.progress.say(f"kills: {plan.kills}, with faults of the vendor and of clients meanwhile")

        def line() -> None:
            self.progress.say(
                f"kills {kills.kills}/{plan.kills}, stops {kills.stops},"
                f" accepted copies {world.account.outcomes['accepted']}, lost so far {self.lost}",
                ends=False,
            )

        while kills.kills < plan.kills and time.monotonic() < until and not self.stop.is_set():
            count = min(_SETTLE_KILLS, plan.kills - kills.kills)
            await kill_again(world, kills, count, until, line, plan.pace)
            if plan.kills < _FEW_KILLS:
                return
            balance = await world.settle()
            self.lost = balance.lost
            self.progress.say(
                f"after {kills.kills} kills: {balance.accepted} accepted, {balance.delivered} delivered,"
                f" {balance.lost} lost, {balance.duplicated_out} twice"
            )

    def _steady_line(self, world: World) -> None:
        now = world.weather.now
        memory = f"{self.steady.samples[-1].rss_mb:.0f} MB" if self.steady.samples else "?"
        self.progress.say(
            f"steady at {self.steady.rate:.0f}/s, faults {sum(map(len, self.steady.recovered_s.values()))},"
            f" memory {memory}, accepted copies {world.account.outcomes['accepted']}, lost so far {self.lost}"
            + (f", now: {now}" if now else ""),
            ends=False,
        )

    async def _controls(self) -> None:
        names = controls.plants() if self.plan.plants is None else self.plan.plants
        for number, name in enumerate(names):
            if self.stop.is_set():
                return
            try:
                done = await controls.control(name, self.plan.engine, self.plan.seed + number, self.stop)
            except (AssertionError, TimeoutError) as error:
                self.progress.say(f"planted {name}: could not be run: {short(error)}")
                done = Control(plant=name, is_caught=False, found={})
            self.controls.append(done)
            found = ", ".join(f"{what}: {count:g}" for what, count in done.found.items())
            self.progress.say(
                f"planted {name}: {'caught' if done.is_caught else 'MISSED'} ({found or 'nothing found'})"
            )

    async def _fuzz(self) -> None:
        if self.plan.fuzz and not self.stop.is_set():
            self.progress.say(f"fuzz: {self.plan.fuzz} inputs")
            plan, found = self.plan, self.fuzzed
            try:
                await asyncio.to_thread(fuzzing.fuzz_gateway, found, plan.fuzz, plan.seed, self.stop.is_set)
            except (AssertionError, OSError) as error:
                found.failures.append(f"broken off: {short(error)}")
            self.progress.say(f"fuzzed {self.fuzzed.inputs} inputs, {len(self.fuzzed.failures)} failed")

    def _report(self, found: Figures, duration_s: float) -> Report:
        missed = sum(not one.is_caught for one in self.controls)
        details = {**found.details, **({"broken off": [self.problem]} if self.problem else {})}
        if self.fuzzed.failures:
            details["fuzz"] = self.fuzzed.failures[:10]
        whole = Figures(
            **{field: getattr(found, field) for field in found.__struct_fields__}
            | {
                "plants_missed": missed, "fuzz_inputs": self.fuzzed.inputs,
                "fuzz_failures": len(self.fuzzed.failures), "fuzz_statuses": self.fuzzed.statuses, "details": details,
            }
        )  # fmt: skip
        verdicts = judge(whole, bounds_of(self.plan.minutes))
        name, dirty = commit()
        return Report(
            is_complete=not self.stop.is_set() and self.problem is None,
            is_good=not broken(verdicts) and self.problem is None,
            commit=name, dirty=dirty, date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), seed=self.plan.seed,
            duration_s=round(duration_s, 1), machine=machine(self.plan.engine), figures=whole,
            loss_per_kill_upper=report.upper_bound(whole.lost, whole.kills), bounds=verdicts, controls=self.controls,
        )  # fmt: skip


async def run(plan: Plan, progress: Callable[[], Progress] = Progress) -> Report:
    """Run; Ctrl-C and SIGTERM end it early, with the report of what was done."""
    one = Run(plan, progress())
    loop = asyncio.get_running_loop()
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, one.stop.set)
    try:
        return await one.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
