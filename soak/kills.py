"""Phase A: ``kill -9`` and SIGTERM at random moments, on one store, under load and faults."""

import asyncio
import subprocess
import time
from collections.abc import Callable

from gateway.event import Struct
from soak.account import leftover
from soak.traffic import GRACEFUL_S
from soak.world import World

#: One end in so many is by SIGTERM.
_STOPS = 0.1
#: The file is checked this often; a check takes longer with the file.
_CHECK_EVERY = 10
_ACCEPTS_S = 30.0
_MARGIN_S = 20.0


class Kills:
    """
    What the phase found so far.

    Attributes:
        recovered_s: From the start of the new process to the first accepted hit. ``unsound``: checks of the file that
            found damage. ``slow_stops``, ``bad_exits``: of SIGTERM. ``cut_calls``: events that a stop left in flight
            although the vendor was well.
    """

    def __init__(self) -> None:
        self.kills = 0
        self.stops = 0
        self.checks = 0
        self.unsound = 0
        self.recovered_s: list[float] = []
        self.stop_s: list[float] = []
        self.slow_stops = 0
        self.bad_exits = 0
        self.cut_calls = 0
        self.met_in_flight = 0


class Pace(Struct, frozen=True, kw_only=True):
    """
    Seconds between two ends, and those of faults: how long they last, and how long it is until the next.

    ``acts_s`` are those between two of an operator's actions.
    """

    up_s: tuple[float, float] = (0.9, 2.1)
    spell_s: tuple[float, float] = (0.3, 3.0)
    gap_s: tuple[float, float] = (0.5, 4.0)
    acts_s: tuple[float, float] = (0.5, 2.5)


async def kill_again(
    world: World, found: Kills, kills: int, until: float, progress: Callable[[], None], pace: Pace
) -> None:
    """End the gateway so many times by ``kill -9``, at the longest until a moment (monotonic); stops come on top."""
    rng = world.rng

    async def trouble() -> None:
        spell = world.weather.choose()
        await world.spell(spell, rng.uniform(*pace.spell_s))

    world.watch()
    world.beside(trouble, *pace.gap_s)
    world.beside(world.nuisance.play, 0.1, 0.6)
    world.beside(world.operations.act, *pace.acts_s)
    world.load.rate, world.load.pause_s = None, 0.01
    world.load.start()
    try:
        await world.load.accepting(0.0, _ACCEPTS_S)
        done = found.kills + kills
        while found.kills < done and time.monotonic() < until and await world.rest(rng.uniform(*pace.up_s)):
            await _end_once(world, found, by_signal=rng.random() < _STOPS)
            progress()
    finally:
        await world.load.stop()


async def _end_once(world: World, found: Kills, *, by_signal: bool) -> None:
    was_calm = world.is_calm
    world.down()
    if by_signal:
        found.stops += 1
        await _stop(world, found)
    else:
        found.kills += 1
        await asyncio.to_thread(world.gateway.kill)
    check = (found.kills + found.stops) % _CHECK_EVERY == 1
    left = await asyncio.to_thread(leftover, world.gateway.store, check=check)
    found.checks += check
    found.unsound += not left.is_sound
    if not by_signal:
        found.met_in_flight += bool(left.in_flight)
        world.account.in_flight(left.in_flight)
    elif was_calm and world.is_calm:
        found.cut_calls += len(left.in_flight)
    else:
        world.account.in_flight(left.in_flight)
    started = time.monotonic()
    await asyncio.to_thread(world.gateway.start)
    world.up()
    await world.load.accepting(started, _ACCEPTS_S)
    found.recovered_s.append(world.load.last_accepted_at - started)


async def _stop(world: World, found: Kills) -> None:
    try:
        code, seconds = await asyncio.to_thread(world.gateway.terminate, GRACEFUL_S + _MARGIN_S)
    except subprocess.TimeoutExpired:
        found.slow_stops += 1
        await asyncio.to_thread(world.gateway.kill)
        return
    found.stop_s.append(seconds)
    found.bad_exits += code != 0
    found.slow_stops += seconds > GRACEFUL_S + 2.0
