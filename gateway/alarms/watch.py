"""The watch: looks for what is wrong every few seconds, and once an hour at what sources brought."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine

from gateway.alarms import Alarms
from gateway.alarms.states import States, Watched
from gateway.alarms.volumes import LOOK_BACK, WHATS, Off, Quiet, Volumes
from gateway.alarms.webhook import Webhook
from gateway.errors import GatewayError
from gateway.interfaces import HttpClient

_log = logging.getLogger("gateway.alarms")
EVERY_S = 15.0
HOUR_S = 3_600
#: The last counts of an hour are written a little after it.
_LATE_S = 30.0
#: Hours that are read in one go.
_SLICE = 48
#: After a failure of the watch itself, which is a bug.
_AGAIN_S = 60.0


class Watch:
    """
    Watches one gateway.

    Args:
        gateway: What is looked at.
        alarms: Where it is raised.
        http: By it the receiver of ``[alerts]`` is told.
    """

    def __init__(self, gateway: Watched, alarms: Alarms, http: HttpClient) -> None:
        self._gateway = gateway
        self._alarms = alarms
        self._states = States(gateway)
        self._volumes = Volumes()
        self._read_to: int | None = None
        self._looking = asyncio.Lock()
        self._hinted, self._changed = asyncio.Event(), asyncio.Event()
        alarms.subscribe(self._changed.set, self._hinted.set)
        self.webhook = Webhook(http, gateway.clock, alarms, lambda: gateway.parts.alerts)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Look, and tell, from now on; harmless twice."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._lasting(self._watch)),
                asyncio.create_task(self._lasting(self._tell)),
            ]

    async def stop(self) -> None:
        """End both, and save what is up; harmless twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            await self.save()

    async def fresh(self) -> None:
        """Look now if nobody does by the clock: for a command without a running server."""
        if not self._tasks:
            await self.look()

    async def look(self) -> None:
        """Look once, at everything."""
        async with self._looking:
            try:
                for kind, found in (await self._states.look()).items():
                    self._alarms.settle(kind, found)
                await self._look_at_volumes()
                self._alarms.looked()
            except GatewayError as error:
                # the store is stopping or in trouble: the last is found again, by ready()
                _log.warning("alarms_not_looked", extra={"detail": type(error).__name__})
                if (problem := await self._gateway.ready()) is not None and self._gateway.outbox.trouble is None:
                    self._alarms.settle("store_unwritable", {"-": problem})

    async def save(self) -> None:
        """Write down what is up and what was told, if that changed."""
        content = self._alarms.journal()
        if content is not None:
            await asyncio.to_thread(self._alarms.write, content)

    # -- tasks

    async def _lasting(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Go on after a bug, which costs the alarms a minute and nothing else anything."""
        while True:
            (failure,) = await asyncio.gather(work(), return_exceptions=True)
            if isinstance(failure, BaseException):
                _log.error("alarms_failed", exc_info=failure, extra={"again_in_s": _AGAIN_S})
                await asyncio.sleep(_AGAIN_S)

    async def _watch(self) -> None:
        self._hinted.clear()
        await self.look()
        await self.save()
        await _either(self._hinted)

    async def _tell(self) -> None:
        self._changed.clear()
        await self.webhook.tick()
        await _either(self._changed)

    # -- volumes

    async def _look_at_volumes(self) -> None:
        now = self._gateway.clock()
        last = int(now - _LATE_S) // HOUR_S - 1
        if self._read_to == last:
            return
        first = last - LOOK_BACK
        if self._read_to is not None and first <= self._read_to < last:
            first = self._read_to + 1
        for start in range(first, last + 1, _SLICE):
            end = min(start + _SLICE - 1, last)
            rolled = await self._gateway.outbox.history(start * HOUR_S, (end + 1) * HOUR_S, by="hour", whats=WHATS)
            self._volumes.take(start, end, rolled)
        self._volumes.forget(last - LOOK_BACK)
        self._read_to = last
        self._alarms.settle("silent_source", self._silent(last))
        self._alarms.settle("ratio_off", self._off(last))

    def _silent(self, last: int) -> dict[str, str]:
        started = int(self._gateway.started_at) // HOUR_S
        found = {name: self._volumes.quiet(name, last, started) for name in self._gateway.parts.routes}
        return {name: _quiet_words(name, quiet) for name, quiet in found.items() if quiet is not None}

    def _off(self, last: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for site, (public, server) in self._sides().items():
            flows = self._volumes.events_of(public) & self._volumes.events_of(server)
            off: dict[str, list[str]] = {}
            # checkouts first: they are what counts
            for destination, event in sorted(flows, key=lambda flow: (flow[1] != "checkout", flow)):
                one = self._volumes.off(public, server, destination, event, last)
                if one is not None:
                    off.setdefault(destination, []).append(_off_words(event, one))
            found |= {f"{site}/{destination}": " ".join(words) for destination, words in off.items()}
        return found

    def _sides(self) -> dict[str, tuple[set[str], set[str]]]:
        """Return the public and the server sources of each site that has both."""
        sites: dict[str, tuple[set[str], set[str]]] = {}
        for name, route in self._gateway.parts.routes.items():
            sites.setdefault(route.source.site, (set(), set()))[route.source.is_server].add(name)
        return {site: sides for site, sides in sites.items() if all(sides)}


async def _either(changed: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), EVERY_S)


def _quiet_words(source: str, quiet: Quiet) -> str:
    came = f"{quiet.came:,} of '{source}'" if quiet.came else f"none of '{source}'"
    lately = "the last full hour" if quiet.hours == 1 else f"the last {quiet.hours} full hours"
    return f"Events in {lately}: {came}; {quiet.usual:,} are usual at this time of the week."


def _off_words(event: str, off: Off) -> str:
    return (
        f"{event}: {off.now[0]:,} copies from pages and {off.now[1]:,} from servers in the last 24 hours; "
        f"in the 7 days before it were {off.before[0]:,.0f} and {off.before[1]:,.0f} a day."
    )
