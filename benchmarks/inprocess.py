"""CPU of one durable event in process, without a server, against a minimal Starlette endpoint in the same run."""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bare import bare_app
from benchmarks.figures import Figure
from benchmarks.hits import SECRET, batch, body, configure
from benchmarks.machine import MEASURED, folder, pinned
from gateway.commands.serve import new_event_loop
from gateway.ingress import public_app
from gateway.logs import HitLog
from gateway.runtime import Gateway

_HITS = 2_000
_ROUNDS = 10
#: The goal of 80 µs where it was set: the minimal endpoint took 14.1 µs there, so an event may take 6.7 of it in all.
_TARGET_RATIO = (80 + 14.1) / 14.1
_CONCURRENCY = 64
_BATCH = 20
_HEADERS = [
    (b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"authorization", f"Bearer {SECRET}".encode()),
]  # fmt: skip
Row = tuple[float, float, float]


class Sink:
    """A stream that takes lines and keeps none."""

    def write(self, text: str) -> int:
        """Take the text."""
        return len(text)

    def flush(self) -> None:
        """Do nothing."""


async def _post(app: Any, content: bytes) -> int:
    status = 0
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/in/api", "raw_path": b"/in/api", "query_string": b"", "root_path": "", "headers": _HEADERS,
        "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    await app(scope, receive, send)
    return status


async def measure(app: Any, bodies: Sequence[bytes], concurrency: int) -> float:
    """Return CPU µs a request of the whole process, all threads."""
    pending = iter(bodies)

    async def worker() -> None:
        for content in pending:
            status = await _post(app, content)
            if status != 200:
                raise RuntimeError(f"the app answered {status}")

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return (time.process_time() - started) / len(bodies) * 1e6


def run(rounds: int = _ROUNDS, hits: int = _HITS) -> Iterator[Figure]:
    """Measure paired rounds; nothing is delivered meanwhile."""
    with folder() as place, pinned(MEASURED), asyncio.Runner(loop_factory=new_event_loop) as runner:
        rows = runner.run(_rows(place, rounds, hits))
    yield Figure(
        name="in process: own CPU of a durable event", values=[single - bare for bare, single, _ in rows], unit=" µs",
        target=80, at_most=True, reference=f"{_CONCURRENCY} at once, beyond the minimal endpoint",
    )  # fmt: skip
    yield Figure(
        name="in process: durable event ÷ minimal endpoint", values=[single / bare for bare, single, _ in rows],
        target=_TARGET_RATIO, at_most=True, reference=f"{_median(rows, 1):.0f} µs against {_median(rows, 0):.0f} µs",
    )  # fmt: skip
    yield Figure(
        name=f"in process: an event in batches of {_BATCH} ÷ minimal endpoint",
        values=[batched / bare for bare, _, batched in rows], reference=f"{_median(rows, 2):.0f} µs",
    )  # fmt: skip


def _median(rows: Sequence[Row], column: int) -> float:
    return sorted(row[column] for row in rows)[len(rows) // 2]


async def _rows(place: Path, rounds: int, hits: int) -> list[Row]:
    gateway = Gateway(configure(str(place)), hit_log=HitLog(Sink()))  # type: ignore[arg-type]
    app = public_app(gateway.ingress, gateway.ready)
    bare = bare_app()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    for warmed in (app, bare):
        await measure(warmed, [body() for _ in range(1_000)], _CONCURRENCY)
    rows: list[Row] = []
    for _ in range(rounds):
        bodies = [body() for _ in range(hits)]
        reference = await measure(bare, bodies, _CONCURRENCY)
        single = await measure(app, bodies, _CONCURRENCY)
        batched = await measure(app, [batch(_BATCH) for _ in range(hits // _BATCH)], 8) / _BATCH
        rows.append((reference, single, batched))
    await gateway.outbox.close()
    return rows


if __name__ == "__main__":
    for figure in run():
        print(figure, flush=True)
