"""
``python -m benchmarks [--full] [inprocess|counting|servers|outbox|drain …]``.

Prints one line a figure: median (lowest to highest), reference, target. Absolute figures are this machine's; judge the
ratios. Never fails: a goal that is not reached says "missed". BENCH_SECONDS and BENCH_ROUNDS set how long and how
often, BENCH_FOLDER where the stores are. ``--full`` adds ten million keys and a million queued events: about five
minutes and 3 GB of disk more.
"""

import argparse
import logging
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import counting, drain, inprocess, outbox, servers
from benchmarks.figures import Figure
from benchmarks.machine import IS_LINUX, ROUNDS, SECONDS

PARTS: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "inprocess": lambda _: inprocess.run(),
    "counting": lambda _: counting.run(),
    "servers": lambda _: servers.run(),
    "outbox": lambda full: outbox.run(full),
    "drain": lambda full: drain.run(full),
}
#: These read /proc.
_LINUX_ONLY = frozenset({"servers", "outbox", "drain"})


def main() -> None:
    """Run the chosen parts, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure; print ratios and goals.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; none: all")
    parser.add_argument("--full", action="store_true", help="also ten million keys and a million queued events")
    chosen = parser.parse_args()
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}: choose from {', '.join(PARTS)}.")
    logging.getLogger("gateway").setLevel(logging.ERROR)
    cpus = os.cpu_count() or 1
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {cpus} CPUs, "
        f"{'server and loader on a core each' if cpus > 1 else 'not pinned: one core'}; "
        f"{ROUNDS} rounds of {SECONDS:g} s: median (lowest to highest)"
    )
    missed = 0
    started = time.monotonic()
    for part in chosen.parts or PARTS:
        if part in _LINUX_ONLY and not IS_LINUX:
            print(f"{part}: skipped, it needs Linux")
            continue
        begun = time.monotonic()
        try:
            for figure in PARTS[part](chosen.full):
                print(figure, flush=True)
                missed += not figure.is_met
        except (RuntimeError, OSError, ValueError, sqlite3.Error) as error:
            print(f"{part}: could not be measured: {error}")
            missed += 1
        print(f"  ({part}: {time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{missed or 'no'} goal{'' if missed == 1 else 's'} missed; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
    sys.exit(0)
