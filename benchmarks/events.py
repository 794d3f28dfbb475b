"""Sealed events as the pipeline makes them, in any number."""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.hits import SECRET, body, configure
from gateway.event import SealedEvent
from gateway.hit import Hit
from gateway.outbox import Mark, Unit
from gateway.outbox.records import DIGEST_SIZE
from gateway.outbox.sqlite import SqliteOutbox
from gateway.runtime import Gateway

_LIFETIME_S = 172_800
#: So many units go into one commit.
_SLICE = 1_000


def sealed_event() -> SealedEvent:
    """Return the benchmark's hit after the seal."""
    return _unit().event


def _unit() -> Unit:
    async def prepare() -> Unit:
        with tempfile.TemporaryDirectory(prefix="tag-gateway-bench-") as folder:
            gateway = Gateway(configure(folder))
            route = gateway.parts.routes["api"]
            hit = Hit(
                source=route.source, method="POST", body=body(), received_at=time.time(),
                headers={"authorization": f"Bearer {SECRET}", "content-type": "application/json"},
            )  # fmt: skip
            (draft,) = await gateway.pipeline.prepare(route, hit)
            await gateway.outbox.close()
            (_, unit, _), *_ = draft.units
            return unit

    return asyncio.run(prepare())


def _units(first: Unit, count: int) -> Iterator[Sequence[Unit]]:
    """Yield slices of units with ids, people and keys of their own, as if they had just come."""
    for start in range(0, count, _SLICE):
        numbers = range(start, min(start + _SLICE, count))
        yield [_copy(first, number) for number in numbers]


def _copy(unit: Unit, number: int) -> Unit:
    person = hashlib.sha256(b"%d" % number).hexdigest()
    event = msgspec.structs.replace(
        unit.event, event_id=f"{unit.event.event_id}-{number}", user={**unit.event.user, "em": (person,)}
    )
    subjects = tuple(os.urandom(DIGEST_SIZE) for _ in unit.subjects)
    marks = tuple(Mark(digest=os.urandom(DIGEST_SIZE), lifetime_s=_LIFETIME_S) for _ in unit.marks)
    return msgspec.structs.replace(unit, event=event, marks=marks, subjects=subjects)


def queue(path: Path, count: int) -> None:
    """Put so many events into a store that no gateway has open."""
    first = _unit()

    async def admit() -> None:
        outbox = SqliteOutbox(path, linger_s=0.0)
        try:
            for part in _units(first, count):
                await outbox.admit(part)
        finally:
            await outbox.close()

    asyncio.run(admit())
