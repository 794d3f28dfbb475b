"""
Accepted hits a second of real servers, against the bare app on the same server, alternately in one run.

The gateway runs as ``tag-gateway serve`` with its store on disk and its hit log to /dev/null. Its destination is a
closed port, so that lanes back off: sending has a benchmark of its own (:mod:`benchmarks.drain`). What was answered as
accepted is counted in the store afterwards.
"""

import contextlib
import sqlite3
import statistics
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.hits import SECRET
from benchmarks.loader import Load, Report
from benchmarks.machine import LOADING, MEASURED, ROUNDS, SECONDS, Worker, end, folder, free_port, start, wait_for
from gateway.server import Engine

ENGINES: tuple[Engine, ...] = ("hypercorn", "uvicorn") if find_spec("uvicorn") else ("hypercorn",)
_TARGETS = {"hypercorn": 0.8, "uvicorn": 0.35}
BATCH = 20
_WARM_S = 1.0
#: Requests are prepared for the rate of the last run and so much more.
_SPARE = 1.5
_FIRST = 8_000


class Server:
    """One running server; ``accepted`` counts what it said it had accepted."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, loader: Worker, store: Path | None) -> None:
        self.process = process
        self.port = port
        self.store = store
        self.accepted = 0
        self.failed = 0
        self.rates = {1: float(_FIRST), BATCH: float(_FIRST)}
        self._loader = loader

    def load(self, seconds: float = SECONDS, size: int = 1, rate: float | None = None) -> Report:
        """Load it once; events of the store are counted by :meth:`check`."""
        wanted = (rate or self.rates[size] / size * _SPARE) * seconds
        load = Load(
            port=self.port, pid=self.process.pid, seconds=seconds, size=size, rate=rate, most=int(wanted) + 1_000
        )
        report = self._loader.ask(load, Report)
        self.accepted += report.accepted
        self.failed += report.failed
        if rate is None:
            self.rates[size] = report.rate
        return report

    def check(self) -> int:
        """Stop the server and return how many events were answered as accepted and are not in the store."""
        end(self.process)
        if self.store is None:
            return 0
        connection = sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)
        (stored,) = connection.execute("SELECT count(*) FROM unit").fetchone()
        connection.close()
        return max(0, self.accepted - int(stored))


def write_config(place: Path, port: int, engine: Engine, base_url: str) -> Path:
    """Write the configuration of a gateway with one server source, and return the file."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "gateway.toml"
    path.write_text(
        f"""\
[server]
bind = "127.0.0.1:{port}"
engine = "{engine}"
[sources.api]
adapter = "browser_tag"
secrets = ["{SECRET}"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "{base_url}"
"""
    )
    return path


def start_gateway(config: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start ``tag-gateway serve`` on a configuration and wait until it listens."""
    process = start(
        ["-c", "from gateway.cli import main; main()", "serve", "--config", str(config)], MEASURED,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(port, process)
    return process


@contextlib.contextmanager
def _running(loader: Worker, place: Path, *engines: Engine) -> Iterator[dict[tuple[str, str], Server]]:
    servers: dict[tuple[str, str], Server] = {}
    try:
        for engine in engines:
            port = free_port()
            process = start(["-m", "benchmarks.bare", engine, str(port)], MEASURED, stderr=subprocess.DEVNULL)
            servers["bare", engine] = Server(process, port, loader, None)
            wait_for(port, process)
            port = free_port()
            config = write_config(place / engine, port, engine, f"http://127.0.0.1:{free_port()}/v5")
            store = config.parent / "var" / "gateway.db"
            servers["gateway", engine] = Server(start_gateway(config, port), port, loader, store)
        yield servers
    finally:
        for server in servers.values():
            if server.process.poll() is None:
                end(server.process)


def run(rounds: int = ROUNDS, seconds: float = SECONDS) -> Iterator[Figure]:
    """Measure both engines and yield what was found."""
    loader = Worker("benchmarks.loader", cpus=LOADING)
    try:
        with folder() as place, _running(loader, place, *ENGINES) as servers:
            for server in servers.values():
                server.load(_WARM_S)
                server.load(_WARM_S, size=BATCH)
            singles: dict[tuple[str, str], list[Report]] = {key: [] for key in servers}
            for _ in range(rounds):
                for key, server in servers.items():
                    singles[key].append(server.load(seconds))
            for engine in ENGINES:
                yield from _saturated(engine, singles["bare", engine], singles["gateway", engine])
                half = statistics.median(report.rate for report in singles["gateway", engine]) / 2
                yield from _half(engine, servers, half, rounds, seconds)
                yield from _batches(engine, servers["gateway", engine], rounds, seconds)
            for (kind, name), server in servers.items():
                if kind == "gateway":
                    missing = server.check()
                    yield Figure(
                        name=f"{name}: answered as accepted, not in the store", values=[missing], unit=" events",
                        reference=f"of {server.accepted:,}; {server.failed:,} requests refused", target=0, at_most=True,
                    )  # fmt: skip
    finally:
        loader.close()


def _saturated(engine: Engine, bare: list[Report], ours: list[Report]) -> Iterator[Figure]:
    yield Figure(
        name=f"{engine}: accepted hits/s ÷ bare app",
        values=[one.rate / reference.rate for one, reference in zip(ours, bare, strict=True)],
        target=_TARGETS[engine],
        reference=f"{_median(ours, 'rate'):,.0f}/s against {_median(bare, 'rate'):,.0f}/s",
    )
    yield Figure(
        name=f"{engine}: server CPU over bare, saturated",
        values=[one.cpu_us - reference.cpu_us for one, reference in zip(ours, bare, strict=True)],
        unit=" µs/hit",
        reference=f"{_median(ours, 'cpu_us'):.0f} against {_median(bare, 'cpu_us'):.0f}"
        + (f"; the loader was busy {_median(bare, 'busy'):.0%} beside bare" if _median(bare, "busy") > 0.9 else ""),
    )


def _half(
    engine: Engine, servers: dict[tuple[str, str], Server], rate: float, rounds: int, seconds: float
) -> Iterator[Figure]:
    pairs = [
        (servers["bare", engine].load(seconds, rate=rate), servers["gateway", engine].load(seconds, rate=rate))
        for _ in range(max(1, rounds // 2))
    ]
    bare, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    yield Figure(
        name=f"{engine}: accept p99 over bare at half load",
        values=[one.p99_ms - reference.p99_ms for reference, one in pairs],
        unit=" ms", target=20, at_most=True,
        reference=f"{rate:,.0f}/s: p50 {_median(ours, 'p50_ms'):.1f}, p99 {_median(ours, 'p99_ms'):.1f} ms; "
        f"bare {_median(bare, 'p50_ms'):.1f}, {_median(bare, 'p99_ms'):.1f} ms",
    )  # fmt: skip


def _batches(engine: Engine, server: Server, rounds: int, seconds: float) -> Iterator[Figure]:
    pairs = [(server.load(seconds), server.load(seconds, size=BATCH)) for _ in range(max(1, rounds // 2))]
    batches = [batch for _, batch in pairs]
    yield Figure(
        name=f"{engine}: events/s in batches of {BATCH} ÷ single hits/s",
        values=[batch.rate / single.rate for single, batch in pairs],
        target=3 if engine == "hypercorn" else None,  # single hits are so cheap on uvicorn that batches gain less
        reference=f"{_median(batches, 'rate'):,.0f} events/s, {_median(batches, 'cpu_us'):.0f} µs/event",
    )


def _median(reports: list[Report], name: str) -> float:
    return float(statistics.median(getattr(report, name) for report in reports))


if __name__ == "__main__":
    for figure in run():
        print(figure, flush=True)
