"""Phase B: the same process for the rest of the time, at a third of what it takes, with a fault now and then."""

import array
import asyncio
import statistics
import time
from collections.abc import Callable

import httpx

from gateway.event import Struct
from soak.watch import Sample, sample
from soak.world import World

_SHARE = 0.3
_MEASURE_S = 8.0
_LOOK_S = 0.5
#: What the server needs to notice that its clients have gone.
_LEFT_S = 1.0
#: So many waiting events are what a lane has under way, not a backlog.
_BACKLOG = 300
#: A paused lane looks every 30 s whether its credentials work again.
_RECOVER_S = 150.0


class Steady:
    """What the phase found so far; ``recovered_s`` is from the end of a fault to no backlog."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.capacity = 0.0
        self.rate = 0.0
        self.latencies_ms: array.array[float] = array.array("f")
        self.recovered_s: dict[str, list[float]] = {}
        self.not_recovered: list[str] = []
        self.samples: list[Sample] = []
        self.slowest_s = 0.0
        #: Open files of the process while no client is there.
        self.fds_before = 0
        self.fds_after = 0


class Rhythm(Struct, frozen=True, kw_only=True):
    """Seconds: between two faults, how long one lasts, and for how long the capacity is measured."""

    gap_s: tuple[float, float] = (20.0, 60.0)
    spell_s: tuple[float, float] = (2.0, 12.0)
    measure_s: float = _MEASURE_S


async def soak(world: World, found: Steady, until: float, progress: Callable[[], None], rhythm: Rhythm) -> None:
    """Run until a moment (monotonic)."""
    began = time.monotonic()
    load = world.load
    found.fds_before = await _open_files(world)
    load.rate, load.pause_s = None, 0.0
    load.start()
    try:
        before = sum(load.answers.values())
        await world.rest(rhythm.measure_s)
        found.capacity = (sum(load.answers.values()) - before) / (time.monotonic() - began)
        found.rate = load.rate = max(1.0, found.capacity * _SHARE)
        await world.rest(1.0)
        load.slowest_s, load.latencies = 0.0, found.latencies_ms
        world.samples = found.samples
        world.watch()
        world.beside(world.nuisance.play, 0.5, 2.0)
        world.beside(world.operations.act, 2.0, 8.0)
        await _faults(world, found, until, progress, rhythm)
    finally:
        found.slowest_s, load.latencies = load.slowest_s, None
        await load.stop()
        found.seconds = time.monotonic() - began
        found.fds_after = await _open_files(world)


async def _open_files(world: World) -> int:
    """Return how many files are open when every client has gone."""
    await world.calm()
    world.nuisance.close()
    await asyncio.sleep(_LEFT_S)
    now = sample(world.gateway)
    return now.fds if now else 0


async def _faults(world: World, found: Steady, until: float, progress: Callable[[], None], rhythm: Rhythm) -> None:
    rng = world.rng
    while (left := until - time.monotonic()) > 0:
        if not await world.rest(min(left, rng.uniform(*rhythm.gap_s))):
            return
        progress()
        if time.monotonic() >= until:
            return
        spell = world.weather.choose()
        await world.spell(spell, rng.uniform(*rhythm.spell_s))
        await _recover(world, found, spell.name)
        progress()


async def _recover(world: World, found: Steady, name: str) -> None:
    began = time.monotonic()
    while not world.stop.is_set():
        try:
            queued = await asyncio.to_thread(world.gateway.queued)
        except httpx.HTTPError:
            queued = _BACKLOG + 1
        seconds = time.monotonic() - began
        if queued <= _BACKLOG:
            found.recovered_s.setdefault(name, []).append(seconds)
            return
        if seconds > _RECOVER_S:
            found.not_recovered.append(name)
            return
        await world.rest(_LOOK_S)


def quantile_ms(latencies: "array.array[float]", share: int) -> float:
    """Return a percentile of answers' times, 0 when there are none."""
    return statistics.quantiles(latencies, n=100)[share - 1] if len(latencies) > 1 else 0.0
