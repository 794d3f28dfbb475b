"""
A whole gateway inside a test: store, pipeline and lanes are real, the sandbox is its Pinterest; no socket is opened.

::

    async def scenario():
        config = {"sources": {"acme": {"adapter": "acme", "secrets": ["s3cret"]}}}
        async with running(config, tmp_path) as gateway:
            status, answer = await gateway.post("acme", {"event": "order"}, {"Authorization": "Bearer s3cret"})
            assert status == 200, answer
            (event,) = await gateway.delivered(1)
            assert event["event_name"] == "checkout"

    asyncio.run(scenario())
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec

from gateway import config as configuration
from gateway.config import Config
from gateway.hookspecs import hookimpl
from gateway.ingress import public_app
from gateway.interfaces import Context, HttpClient, Observer
from gateway.logs import HitLog
from gateway.outcome import Settled
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.testing.asgi import AppClient

#: How long :meth:`Running.delivered` waits, in seconds: far longer than a delivery takes on a busy machine.
DEADLINE_S = 20.0
_PINTEREST = {
    "type": "pinterest",
    "ad_account_id": "549755885175",
    "token": "sandbox-token",
    "base_url": "http://127.0.0.1/v5",
    "linger_s": 0.0,
}


class Ends(Observer):
    """Keeps every settled unit, and wakes who waits for one."""

    name: ClassVar[str] = "testing"

    def __init__(self) -> None:
        self.settled_units: list[Settled] = []
        self._changed = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()

    def settled(self, settled: Settled) -> None:
        """Keep it."""
        self.settled_units.append(settled)
        waker = asyncio.get_running_loop().create_task(self._wake())
        self._wakers.add(waker)
        waker.add_done_callback(self._wakers.discard)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, reached: Callable[[], bool], deadline_s: float) -> None:
        """Wait until ``reached``; it is asked again after each settled unit. Raises TimeoutError."""
        async with asyncio.timeout(deadline_s), self._changed:
            await self._changed.wait_for(reached)


class Running:
    """
    One running gateway, as :func:`running` gives it.

    ``gateway`` is the :class:`gateway.runtime.Gateway`, ``config`` what it was given, ``sandbox`` its Pinterest: script
    failures with ``sandbox.faults``.
    """

    def __init__(self, gateway: Gateway, sandbox: PinterestSandbox, config: Config, ends: Ends) -> None:
        self.gateway = gateway
        self.sandbox = sandbox
        self.config = config
        self._ends = ends
        self._app = public_app(gateway.ingress, gateway.ready)

    @property
    def settled(self) -> Sequence[Settled]:
        """Every unit that has ended so far, in order."""
        return tuple(self._ends.settled_units)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        peer: str = "198.51.100.7",
    ) -> tuple[int, Any]:
        """Send one request to the public app; returns status and decoded JSON, or the bytes of any other answer."""
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        answer = await AppClient(self._app, peer).request(
            method, f"http://127.0.0.1{path}", headers=headers, content=content
        )
        if answer.headers.get("content-type", "").startswith("application/json"):
            return answer.status, msgspec.json.decode(answer.body)
        return answer.status, answer.body

    async def post(
        self, source: str, body: Any, headers: Mapping[str, str] | None = None, *, peer: str = "198.51.100.7"
    ) -> tuple[int, Any]:
        """
        Send one hit to ``/in/{source}``; returns status and decoded answer.

        ``body`` is the exact bytes, or anything that JSON can hold; ``peer`` the address it comes from.
        """
        return await self.request("POST", f"/in/{source}", body, headers, peer=peer)

    async def delivered(self, count: int, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
        """
        Wait until at least ``count`` events are delivered and settled; returns all that the sandbox took, oldest first.

        Raises:
            AssertionError: They were not in time; the message says what became of the others.
        """

        def taken() -> int:
            return sum(unit.end == "delivered" for unit in self._ends.settled_units)

        await self._until(lambda: taken() >= count, f"{count} delivered", deadline_s)
        return [*self.sandbox.record.events(), *self.sandbox.tests.events()]

    async def ended(self, count: int, deadline_s: float = DEADLINE_S) -> Sequence[Settled]:
        """
        Wait until at least ``count`` units have ended in any way; returns them.

        Raises:
            AssertionError: They have not in time.
        """
        await self._until(lambda: len(self._ends.settled_units) >= count, f"{count} ended", deadline_s)
        return self.settled

    async def _until(self, reached: Callable[[], bool], wanted: str, deadline_s: float) -> None:
        try:
            await self._ends.until(reached, deadline_s)
        except TimeoutError:
            ends = [f"{unit.event_name} {unit.end} ({unit.reason})" for unit in self._ends.settled_units]
            refusals = list(self.sandbox.record.refusals)[-3:]
            raise AssertionError(
                f"{wanted}: not within {deadline_s:g} s. Ended: {ends or 'nothing'}. "
                f"The sandbox refused: {refusals or 'nothing'}."
            ) from None


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a test does not care about: the sandbox as destination ``pinterest``, a store in the folder."""
    whole = {name: dict(table) for name, table in config.items()}
    destinations = whole.setdefault("destinations", {})
    if not destinations:
        destinations["pinterest"] = {}
    for name, table in destinations.items():
        if table.get("type", "pinterest") == "pinterest":
            destinations[name] = {**_PINTEREST, **table}
    for name, table in whole.get("sources", {}).items():
        whole["sources"][name] = {"destinations": list(destinations), **table}
    whole.setdefault("store", {"url": "sqlite:///gateway.db"})
    return whole


@asynccontextmanager
async def running(
    config: Mapping[str, Any],
    folder: Path,
    *,
    plugins: Mapping[str, object] | None = None,
    clock: Callable[[], float] = time.time,
    sandbox: PinterestSandbox | None = None,
    http: HttpClient | None = None,
) -> AsyncIterator[Running]:
    """
    Start a gateway, and stop it at the end of the block.

    Args:
        config: The tables of ``gateway.toml``. Left out, ``[destinations.pinterest]`` is the sandbox, a source sends to
            every destination, and the store is ``gateway.db`` in the folder.
        folder: Where its files are; a second gateway in the same folder finds what the first one left.
        plugins: Plugins that are not installed: name → module or object with hooks. They run in threads.
        clock: Wall time, of the sandbox too. A frozen one also freezes retries and holds.
        sandbox: One with another configuration.
        http: The network, in place of the sandbox alone.
    """
    sandbox = sandbox or PinterestSandbox(clock=clock)
    checked = configuration.parse(complete(config), folder / "gateway.toml")
    ends = Ends()
    gateway = Gateway(
        checked,
        http=http or AppClient(sandbox.app),
        clock=clock,
        hit_log=HitLog(enabled=False),
        extra_plugins={**(plugins or {}), "testing": observing(ends)},
    )
    await gateway.start()
    try:
        yield Running(gateway, sandbox, checked, ends)
    finally:
        sandbox.faults.clear()
        await gateway.stop()
        sandbox.record.close()


def observing(observer: Observer) -> object:
    """Return a plugin that registers this observer."""

    @hookimpl
    def register_observers(context: Context) -> Sequence[Observer]:  # noqa: ARG001 - the hook's signature
        return [observer]

    return SimpleNamespace(register_observers=register_observers, __name__="gateway.testing.app")
