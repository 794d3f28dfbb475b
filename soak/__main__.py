"""``python -m soak``: see ``docs/reliability.md``. Linux only."""

import argparse
import asyncio
import random
import sys
from pathlib import Path

from soak.report import JSON_NAME, PAGE_NAME
from soak.run import Plan, run
from soak.steady import Rhythm

_QUICK_MINUTES, _QUICK_KILLS = 2.0, 20


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="python -m soak", description="Kill, disturb and load a gateway; report.")
    parser.add_argument("--minutes", type=float, help="of kills and steady load together (30)")
    parser.add_argument("--kills", type=int, help="at most, in eight tenths of the time (300)")
    parser.add_argument("--seed", type=int, help="of everything random; printed (a random one)")
    parser.add_argument("--engine", choices=("hypercorn", "uvicorn"), default="hypercorn")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="inputs of the fuzz phase (0: none)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where the report goes (.)")
    parser.add_argument("--no-controls", action="store_true", help="plant no bugs")
    parser.add_argument("--quick", action="store_true", help="two minutes, 20 kills")
    return parser.parse_args(arguments)


def plan_of(chosen: argparse.Namespace) -> Plan:
    """Return what is to be done."""
    quick = chosen.quick
    return Plan(
        minutes=chosen.minutes if chosen.minutes is not None else _QUICK_MINUTES if quick else 30.0,
        kills=chosen.kills if chosen.kills is not None else _QUICK_KILLS if quick else 300,
        seed=chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000),
        engine=chosen.engine, fuzz=chosen.fuzz, out=chosen.out, plants=() if chosen.no_controls else None,
        rhythm=Rhythm(gap_s=(3.0, 8.0), spell_s=(1.0, 3.0), measure_s=4.0) if quick else Rhythm(),
    )  # fmt: skip


def main() -> int:
    """Run; returns 1 when a bound is broken, 130 when the run was ended early and none is."""
    if sys.platform != "linux":
        sys.exit("python -m soak needs Linux: it reads /proc.")
    plan = plan_of(parsed())
    print(f"soak: {plan.minutes:g} minutes, {plan.kills} kills, seed {plan.seed}, engine {plan.engine}", flush=True)
    done = asyncio.run(run(plan))
    data, page = plan.out / JSON_NAME, plan.out / PAGE_NAME
    for one in done.bounds:
        if not one.is_held:
            print(f"BROKEN  {one.bound}: {one.found:g} {one.unit}, at most {one.limit:g}")
    print(f"{'good' if done.is_good else 'NOT GOOD'}{'' if done.is_complete else ', incomplete'}: {data}, {page}")
    if not done.is_good:
        return 1
    return 0 if done.is_complete else 130


if __name__ == "__main__":
    sys.exit(main())
