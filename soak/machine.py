"""On what a run was made: no host name, no paths."""

import os
import platform
import sqlite3
import subprocess
from pathlib import Path

from gateway.event import Struct

_ROOT = Path(__file__).resolve().parent.parent


class Machine(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Cores that this process may use, memory in GB (10^9 bytes), versions."""

    cores: int
    memory_gb: float
    system: str
    python: str
    sqlite: str
    engine: str


def machine(engine: str) -> Machine:
    """Look."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=len(os.sched_getaffinity(0)), memory_gb=round(memory / 1e9, 1),
        system=f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        python=platform.python_version(), sqlite=sqlite3.sqlite_version, engine=engine,
    )  # fmt: skip


def commit() -> tuple[str, bool | None]:
    """Return the commit of the tree and whether it differs from it; "unknown" and None outside of git."""
    try:
        found = _git("rev-parse", "HEAD").strip()
        # the report itself may be what was written last
        changed = [line for line in _git("status", "--porcelain").splitlines() if "reliability" not in line]
    except (OSError, subprocess.CalledProcessError):
        return "unknown", None
    return found, bool(changed)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    return done.stdout
