"""Memory, descriptors, files and log of a running gateway, sampled. Linux only: it reads ``/proc``."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gateway.event import Struct
from tests.harness.processes import GatewayProcess

_HOUR_S = 3_600.0
_BLOCK = 1 << 22


class Sample(Struct, frozen=True, kw_only=True):
    """One look; MB are 2^20 bytes."""

    at: float
    rss_mb: float
    fds: int
    wal_mb: float
    db_mb: float


def _mb(path: Path) -> float:
    try:
        return path.stat().st_size / 1_048_576
    except FileNotFoundError:
        return 0.0


def sample(gateway: GatewayProcess) -> Sample | None:
    """Look once; None while no process runs."""
    if gateway.has_ended():
        return None
    try:
        return Sample(
            at=time.monotonic(), rss_mb=gateway.rss_mb(), fds=len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())),
            wal_mb=_mb(gateway.store.with_name(gateway.store.name + "-wal")), db_mb=_mb(gateway.store),
        )  # fmt: skip
    except (OSError, AssertionError):
        return None


def slope_per_h(samples: Sequence[Sample]) -> float:
    """Return by how many MB an hour memory grew, by least squares over the second half; 0 for too few samples."""
    later = samples[len(samples) // 2 :]
    if len(later) < 3:
        return 0.0
    return statistics.linear_regression([one.at for one in later], [one.rss_mb for one in later]).slope * _HOUR_S


def growth(values: Sequence[float]) -> float:
    """Return by how much the median of the last quarter is above that of the second one."""
    quarter = len(values) // 4
    if quarter == 0:
        return 0.0
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


class Log:
    """Counts errors in the gateway's log, and lines that are no JSON: what a traceback would be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.errors: Counter[str] = Counter()
        self.strange = 0

    def look(self) -> None:
        """Read what was written since the last look."""
        with self._path.open("rb") as log:
            while True:
                log.seek(self._read)
                block = log.read(_BLOCK)
                whole = block[: block.rfind(b"\n") + 1]
                if not whole:
                    return
                self._read += len(whole)
                for line in whole.splitlines():
                    self._note(line)

    def _note(self, line: bytes) -> None:
        if line.startswith(b'{"') and b'"level":"error"' not in line and b'"level":"critical"' not in line:
            return
        try:
            found = json.loads(line)
        except ValueError:
            # the last line of a killed process may be cut
            self.strange += line.startswith(b"Traceback")
            return
        exception = f" ({found['exception']})" if "exception" in found else ""
        self.errors[f"{found.get('event')}{exception}"] += 1
