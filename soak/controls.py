"""Phase C: the same checks on a gateway with a planted bug must find it, or they show nothing."""

import asyncio
import contextlib
import random
import tempfile
import time
from pathlib import Path

from soak.bounds import CONSERVATION, broken, judge
from soak.figures import figures
from soak.kills import Kills, Pace, kill_again
from soak.report import Control
from soak.steady import Steady
from soak.world import World
from tests.harness import launcher

_KILLS = 4
_LONGEST_S = 40.0
_DRAIN_S = 40.0


#: A kill leaves what the system holds in memory: tests/test_sync.py shows this one by looking at the system calls.
_BEYOND = frozenset({"synchronous_off"})


def plants() -> list[str]:
    """Return the names that the launcher knows, of bugs that a kill can show."""
    return sorted(launcher.PLANTS.keys() - _BEYOND)


async def control(name: str, engine: str, seed: int, stop: asyncio.Event, kills: int = _KILLS) -> Control:
    """Plant one bug, kill the gateway a few times, and say what the account found."""
    with tempfile.TemporaryDirectory(prefix="tag-gateway-soak-") as folder:
        plant = {"HARNESS_PLANT": name}
        world = World(Path(folder), engine, random.Random(seed), stop, plant)
        found, pace = Kills(), Pace(spell_s=(0.3, 1.0))
        async with world:
            until = time.monotonic() + _LONGEST_S
            # a gateway that does not even come back is judged by what is left of it
            with contextlib.suppress(TimeoutError, AssertionError):
                await kill_again(world, found, kills, until, lambda: None, pace)
            # what some bugs answer before they write it
            await asyncio.sleep(1.0)
            balance = await world.settle(_DRAIN_S)
        verdicts = judge(figures(world, balance, found, Steady(), world.samples), CONSERVATION)
    trouble = {one.bound: one.found for one in broken(verdicts)}
    return Control(plant=name, is_caught=bool(trouble), found=trouble)
