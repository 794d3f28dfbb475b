"""
Lists and segments of people, mirrored into audiences, one to one.

::

    source ─ pages ─ mirror (profile id, SHA-256) ─ difference ─ chunks ─ sink
             scan     audiences.db                  guards       ledger

A pass may end anywhere, by a kill or an error: what was read and what the sink was told is on disk, and the next pass
goes on from there. :class:`Audiences` is all that others use.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from gateway.audience import AudienceSink, AudienceSource, Group
from gateway.audiences.connecting import Connecting
from gateway.audiences.leaving import Leaving
from gateway.audiences.records import Connected, Meter, Outcome, Phase, Progress, Settings, State, Status
from gateway.audiences.schedule import Schedule
from gateway.audiences.sides import AskBarred, Sides
from gateway.audiences.store import Store
from gateway.audiences.sync import Order, Sync

__all__ = [
    "AskBarred",
    "Audiences",
    "Connected",
    "Meter",
    "Outcome",
    "Phase",
    "Progress",
    "Settings",
    "State",
    "Status",
]


def _unmetered(what: str, connection: int, number: int) -> None:
    """Count nothing."""


class Audiences:
    """
    The engine: connections between lists and audiences, and the passes that keep them in step.

    ``barred`` is asked for SHA-256 hashes (hex) and returns those of people who opted out or were erased. ``sleep`` is
    awaited between tries and passes. Every method raises :class:`AudienceError` with a remedy, and
    :class:`gateway.errors.Unavailable` when the file cannot be written.
    """

    def __init__(
        self,
        store_path: Path,
        sources: Mapping[str, AudienceSource],
        sinks: Mapping[str, AudienceSink],
        settings: Settings,
        clock: Callable[[], float],
        barred: AskBarred,
        *,
        meter: Meter = _unmetered,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = Store(store_path, clock)
        self._sides = Sides(sources, sinks, settings, barred, sleep)
        self._connecting = Connecting(self._store, self._sides)
        self._sync = Sync(self._store, self._sides, settings, clock, meter, ticks)
        self._leaving = Leaving(self._store, self._sides)
        self._schedule = Schedule(self._store, self._sync, self._leaving, settings, clock, sleep)

    async def open(self) -> Self:
        """
        Open ``audiences.db``, creating or migrating it.

        Raises:
            StoreError: It is in use by another process, damaged, or of a newer program.
        """
        await asyncio.to_thread(self._store.open)
        return self

    async def close(self) -> None:
        """Finish the commit under way and give the file back; passes must have ended or been cancelled."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def connections(self) -> list[Status]:
        """Return every connection, the oldest first."""
        return [row.status(running=row.id in self._sync.running) for row in await self._store.connections()]

    async def connect(
        self,
        source: str,
        kind: str,
        group: str,
        sink: str,
        account: str = "",
        audience: str | None = None,
        create: str | None = None,
        *,
        remove: bool = True,
        dry_run: bool = False,
    ) -> Connected:
        """
        Connect a list or segment (``kind``, "" for either; ``group`` is its id or name) to an audience.

        Give ``audience``, the id or name of an existing one (nobody in it is touched), or ``create``, the name of a new
        one, which the first pass creates. ``account`` "" is the only one there is. With ``remove`` false nobody is
        ever removed.
        """
        return await self._connecting.connect(
            source, kind, group, sink, account, audience, create, remove=remove, dry_run=dry_run
        )

    async def disconnect(self, connection_id: int, *, keep: bool = True) -> None:
        """
        End a connection; with ``keep`` false the people whom it added are removed from the audience first.

        An error leaves the connection in state ``leaving``: call again, or let the schedule go on.
        """
        async with self._sync.alone(connection_id):
            await self._leaving.leave(connection_id, keep=keep)

    async def sync(
        self,
        connection_id: int | None = None,
        *,
        full: bool = False,
        dry_run: bool = False,
        confirm: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> list[Outcome]:
        """
        Run a pass of one connection, or of each that is not running.

        ``full``: read the whole list, else only who joined (where the source tells). ``dry_run``: tell the sink
        nothing. ``confirm``: remove although a guard has stopped it. Errors of a side end up in the outcome's state
        and message; only an unknown or running connection raises.
        """
        rows = await self._store.connections()
        if connection_id is not None:
            rows = [await self._store.connection(connection_id)]
            self._sync.refuse_running(connection_id)
        waiting = [row.id for row in rows if row.id not in self._sync.running and not row.leaving]
        order = Order(full=full, dry_run=dry_run, confirm=confirm)
        gate = asyncio.Semaphore(self._sync.settings.parallel)

        async def one(number: int) -> Outcome | None:
            async with gate:
                if connection_id is None and number in self._sync.running:
                    return None
                return await self._sync.run(number, order, progress)

        outcomes = await asyncio.gather(*map(one, waiting))
        return [outcome for outcome in outcomes if outcome is not None]

    async def create_lookalike(self, connection_id: int, name: str, country: str, percent: int) -> Group:
        """Create an audience of people like those of a connection's: ``percent`` (1 to 10) of a country's users."""
        return await self._connecting.create_lookalike(connection_id, name, country, percent)

    async def bar(self, hashes: Sequence[str]) -> int:
        """Have these people (SHA-256, hex) removed from every audience by the next pass; returns how many there are."""
        return await self._store.bar(hashes)

    async def run(self, stop: asyncio.Event) -> None:
        """Run passes when they are due, until ``stop``; then passes under way are cancelled (they resume)."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._schedule.run(stop)
