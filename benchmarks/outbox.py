"""
Rows a second of the outbox as its deduplication keys grow.

Keys are filled by SQL: random digests in rounds, each sorted and spread over the whole range, so that pages are as full
as with keys that came singly. Then each store has a process of its own, on the same core, and they are measured
alternately: 64 admissions under way, one event each, with a new random key. (The first store ends its rounds with more
than ten thousand keys, for it keeps what was admitted; so do the others.)
"""

import asyncio
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.events import sealed_event
from benchmarks.figures import Figure
from benchmarks.machine import (
    MEASURED,
    ROUNDS,
    SECONDS,
    Worker,
    answer,
    commands,
    cpu_s,
    folder,
    memory_mb,
    written_bytes,
)
from gateway.commands.serve import new_event_loop
from gateway.event import SealedEvent
from gateway.outbox import Lane, Mark, Unit
from gateway.outbox.records import DIGEST_SIZE
from gateway.outbox.sqlite import SqliteOutbox

FIRST = 10_000
MILLION = 1_000_000
_CONCURRENCY = 64
_WARM_S = 1.0
#: Keys of one round of the filling: so many, or a twentieth of all.
_FILL, _PARTS = 500_000, 20
_LIFETIME_S = 172_800


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Fill so many keys, then admit for so many seconds."""

    keys: int = 0
    seconds: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Admitted rows a second, CPU µs and bytes written a row, memory of the process, size of the file; MB are 10^6."""

    rate: float = 0.0
    cpu_us: float = 0.0
    row_bytes: float = 0.0
    memory_mb: float = 0.0
    file_mb: float = 0.0


def fill(path: Path, keys: int) -> None:
    """Add so many live keys of delivered units; durability does not matter here."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1048576")
    expires = int(time.time()) + _LIFETIME_S
    part = max(1, min(_FILL, keys // _PARTS))
    for start in range(1, keys + 1, part):
        count = min(part, keys + 1 - start)
        noise = os.urandom(DIGEST_SIZE * count)
        digests = sorted(noise[at : at + DIGEST_SIZE] for at in range(0, len(noise), DIGEST_SIZE))
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO mark VALUES (?, ?, ?, NULL)",
            ((digest, start + index, expires) for index, digest in enumerate(digests)),
        )
        connection.execute("COMMIT")
    # the numbers of those units are not given out again
    connection.execute("INSERT INTO sqlite_sequence VALUES ('unit', ?)", (keys,))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


async def admit(outbox: SqliteOutbox, event: SealedEvent, seconds: float) -> Result:
    """Admit events with new keys for so many seconds."""
    lane = Lane(destination="pinterest", kind="live")
    cpu, written, started = cpu_s(os.getpid()), written_bytes(os.getpid()), time.perf_counter()
    deadline = started + seconds
    rows = 0

    async def worker() -> None:
        nonlocal rows
        while time.perf_counter() < deadline:
            mark = Mark(digest=os.urandom(DIGEST_SIZE), lifetime_s=_LIFETIME_S)
            (admission,) = await outbox.admit([Unit(lane=lane, event=event, marks=(mark,))])
            if admission.fate != "accepted":
                raise RuntimeError(f"a new event was {admission.fate}")
            rows += 1

    await asyncio.gather(*(worker() for _ in range(_CONCURRENCY)))
    elapsed = time.perf_counter() - started
    pid = os.getpid()
    return Result(
        rate=rows / elapsed, cpu_us=(cpu_s(pid) - cpu) / rows * 1e6, row_bytes=(written_bytes(pid) - written) / rows,
        memory_mb=memory_mb(pid),
    )  # fmt: skip


def main(path: Path) -> None:
    """Carry out tasks until the input ends."""
    event = sealed_event()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:

        async def open_outbox() -> SqliteOutbox:
            return SqliteOutbox(path)

        outbox: SqliteOutbox | None = None
        for task in commands(Task):
            if task.keys:
                runner.run(_create(path))
                before = path.stat().st_size
                fill(path, task.keys)
                answer(Result(file_mb=(path.stat().st_size - before) / 1e6))
            else:
                outbox = outbox or runner.run(open_outbox())
                answer(runner.run(admit(outbox, event, task.seconds)))
        if outbox is not None:
            runner.run(outbox.close())


async def _create(path: Path) -> None:
    await SqliteOutbox(path).close()


def run(full: bool = False, rounds: int = ROUNDS, seconds: float = SECONDS) -> Iterator[Figure]:
    """Measure at ten thousand keys and one million, with ``full`` at ten million."""
    sizes = (FIRST, MILLION, 10 * MILLION) if full else (FIRST, MILLION)
    with folder() as place:
        disk: dict[int, float] = {}
        for size in sizes:
            disk[size] = _filled(place / f"{size}.db", size)
        workers: dict[int, Worker] = {}
        try:
            for size in sizes:
                workers[size] = Worker("benchmarks.outbox", str(place / f"{size}.db"), cpus=MEASURED)
                workers[size].ask(Task(seconds=_WARM_S), Result)
            found: dict[int, list[Result]] = {size: [] for size in sizes}
            for _ in range(rounds):
                for size, worker in workers.items():
                    found[size].append(worker.ask(Task(seconds=seconds), Result))
        finally:
            for worker in workers.values():
                worker.close()
    yield from _figures(sizes, found, disk)


def _filled(path: Path, keys: int) -> float:
    worker = Worker("benchmarks.outbox", str(path), cpus=MEASURED)
    try:
        return worker.ask(Task(keys=keys), Result, timeout_s=600.0).file_mb
    finally:
        worker.close()


def _figures(sizes: Sequence[int], found: dict[int, list[Result]], disk: dict[int, float]) -> Iterator[Figure]:
    first = found[FIRST]
    for size in sizes:
        results = found[size]
        name = f"outbox at {size:,} keys"
        yield Figure(
            name=f"{name}: rows/s", values=[result.rate for result in results],
            reference=f"{_median(results, 'cpu_us'):.0f} µs CPU and {_median(results, 'row_bytes') / 1e3:.1f} KB "
            f"written a row, {_median(results, 'memory_mb'):.0f} MB memory",
        )  # fmt: skip
        if size == FIRST:
            continue
        yield Figure(
            name=f"{name}: rows/s ÷ those at {FIRST:,}",
            values=[one.rate / reference.rate for one, reference in zip(results, first, strict=True)],
            target=0.4 if size == 10 * MILLION else None,
        )
        yield Figure(
            name=f"{name}: disk", values=[disk[size] / (size / MILLION)], unit=" MB per million keys", target=45,
            at_most=True,
        )  # fmt: skip


def _median(results: Sequence[Result], name: str) -> float:
    return float(statistics.median(getattr(result, name) for result in results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
