"""One gateway, one vendor, the load on them, and what is known of all of it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from soak.account import Account, Balance
from soak.clients import Load
from soak.nuisance import Nuisance
from soak.operations import Operations, dead_letters
from soak.traffic import configuration
from soak.watch import Log, Sample, sample
from soak.weather import Spell, VendorProcess, Weather
from tests.harness.processes import GatewayProcess

T = TypeVar("T")
CLIENTS = 12
#: A paused lane tries again every 30 s, one that backs off within a minute; then the backlog goes.
DRAIN_S = 180.0
_SAMPLE_S = 1.0


class World:
    """
    Starts both processes, and ends them.

    Args:
        stop: Set when the run is to end early.
        plant: Variables for :mod:`tests.harness.launcher`, none: the gateway as it is.

    Attributes:
        is_down: The gateway is being ended or started: it may refuse or not listen.
    """

    def __init__(
        self, folder: Path, engine: str, rng: random.Random, stop: asyncio.Event, plant: Mapping[str, str] | None = None
    ) -> None:
        self.rng = rng
        self.stop = stop
        self.vendor = VendorProcess(folder)
        config = configuration(engine).replace("{sandbox}", f"{self.vendor.url}/v5")
        self.gateway = GatewayProcess(folder, config, plant)
        self.account = Account(self.vendor.ledger)
        self.is_down = False
        self._calm_at = 0.0
        port = self.gateway.port
        self.load = Load(port, CLIENTS, rng, self.account, lambda: self.is_down or time.monotonic() < self._calm_at)
        self.weather = Weather(self.vendor, rng, asyncio.to_thread)
        self.nuisance = Nuisance(port, rng, self.account, self.load)
        self.operations = Operations(self.gateway, rng, asyncio.to_thread, lambda: not self.is_down)
        self.log = Log(self.gateway.log)
        self.samples: list[Sample] = []
        self.spells: Counter[str] = Counter()
        self._beside: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(asyncio.to_thread(self.vendor.start), asyncio.to_thread(self.gateway.start))
        except BaseException:
            self._end()
            raise
        await self.weather.fair()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        async with self.weather.lock:
            self._end()

    def _end(self) -> None:
        self.nuisance.close()
        self.gateway.kill()
        self.vendor.kill()

    @property
    def is_calm(self) -> bool:
        """Whether no fault of the vendor is on, or was a moment ago: no call can be cut off by a stop."""
        return self.weather.now is None and not self.vendor.has_ended()

    def down(self) -> None:
        """Say that the gateway is about to end."""
        self.is_down = True

    def up(self) -> None:
        """Say that it serves again; refusals that are under way are excused for a moment."""
        self._calm_at = time.monotonic() + 1.0
        self.is_down = False

    async def rest(self, seconds: float) -> bool:
        """Wait, at the longest so long; returns whether the run goes on."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def beside(self, act: Callable[[], Any], least_s: float, most_s: float) -> None:
        """Do something again and again beside the phase, until the world ends."""

        async def again() -> None:
            while await self.rest(self.rng.uniform(least_s, most_s)):
                await act()

        self._beside.append(asyncio.create_task(again()))

    async def calm(self) -> None:
        """End what is done beside the phase, and every fault."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        self._beside.clear()
        await self.weather.end()

    async def spell(self, spell: Spell, seconds: float) -> None:
        """Let one fault of the vendor last so long."""
        self.spells[spell.name] += 1
        try:
            await asyncio.shield(self.weather.begin(spell))
            await self.rest(seconds)
        finally:
            await asyncio.shield(self.weather.end())

    async def look(self) -> None:
        """Sample the process; read ledger and log."""
        found = sample(self.gateway)
        if found is not None:
            self.samples.append(found)
        await asyncio.to_thread(self.account.look)
        await asyncio.to_thread(self.log.look)

    def watch(self) -> None:
        """Look every second from now on."""
        self.beside(self.look, _SAMPLE_S, _SAMPLE_S)

    async def settle(self, deadline_s: float = DRAIN_S) -> Balance:
        """Start what has ended, wait until nothing waits, and return the balance. The load must have stopped."""
        await self.calm()
        if self.gateway.has_ended():
            await asyncio.to_thread(self.gateway.start)
        self.up()
        deadline = time.monotonic() + deadline_s
        queued = await asyncio.to_thread(self._queued)
        while queued and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            queued = await asyncio.to_thread(self._queued)
        dead = await asyncio.to_thread(lambda: list(dead_letters(self.gateway)))
        await self.look()
        return await asyncio.to_thread(self.account.settle, dead, queued)

    def _queued(self) -> int:
        try:
            return self.gateway.queued()
        except httpx.TransportError:
            return -1
