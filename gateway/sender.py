"""
Lanes: one for each destination, so that a vendor in trouble hurts only itself.

A lane claims a batch, sends it, settles each event by the answer. A batch that is refused as a whole without a usable
list is bisected. After a failure the lane backs off (exponential, full jitter, the vendor's ``Retry-After`` honoured)
and then probes with one call at a time; after 401 or 403 it pauses, keeps everything, and probes until the credentials
work.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.errors import Unavailable
from gateway.event import Struct
from gateway.interfaces import Batch, Delivered, Destination, Observer, Paused, Refused, Result, Retry, Unclear, Verdict
from gateway.isolation import is_verdict
from gateway.outbox import Claimed, Kind, Lane, Lease, Outbox, Settlement
from gateway.outcome import Settled
from gateway.steady import Steady
from gateway.tally import LATE_S, Tally

_log = logging.getLogger("gateway.sender")
KINDS: tuple[Kind, ...] = ("live", "offline", "test")
#: Back-off of a lane after n failures: a random time up to min(_BASE_S * 2^n, _CAP_S).
_BASE_S, _CAP_S = 1.0, 60.0
RETRY_AFTER_CAP_S = 900.0  # a vendor's own wish is honoured up to here
#: How often a paused lane tries whether its credentials work again, and with how many events.
_PROBE_S, _PROBE_EVENTS = 30.0, 1
_CALL_S = 120.0  # shorter than a lease, longer than any destination's own limit
_LEASE_MARGIN_S = 60.0  # a bisection stops so long before its lease is lost


class LaneState(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a lane is doing; ``until`` is when it tries again (Unix s)."""

    destination: str
    state: Literal["running", "backing_off", "paused"]
    reason: str | None = None
    until: float | None = None
    in_flight: int = 0


class DestinationLane:
    """
    Delivers the units of one destination.

    Args:
        steady: Delays and leases are measured by its store's time, ages judged by its other one, so that a clock that
            jumps neither stalls a retry nor ends one early. ``retry_life_s``: how long a unit is tried before it is
            ``dead(expired)``.
        settled: Called with each ended unit.
        rng: Source of jitter.
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        steady: Steady,
        retry_life_s: float,
        settled: Callable[[Settled], None],
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self._destination = destination
        self._outbox = outbox
        self._clock = steady.now
        self._judging = steady.guarded
        self._retry_life_s = retry_life_s
        self._settled = settled
        self._tally = tally
        self._rng = rng
        options = destination.options
        self._batch_size: int = getattr(options, "batch_size", 1000)
        self._linger_s: float = getattr(options, "linger_s", 1.0)
        self._in_flight: int = getattr(options, "in_flight", 4)
        self._late: str = getattr(options, "late", "send")
        self._failures = 0
        self._blocked_until = 0.0
        self._reason: str | None = None
        self._paused = False
        self._calls: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stopping = False

    @property
    def state(self) -> LaneState:
        """What the lane is doing now."""
        state: Literal["running", "backing_off", "paused"] = "running"
        if self._paused:
            state = "paused"
        elif self._failures:
            state = "backing_off"
        until = self._blocked_until if state != "running" else None
        name = self._destination.name
        return LaneState(destination=name, state=state, reason=self._reason, until=until, in_flight=len(self._calls))

    def poke(self) -> None:
        """Tell the lane that there may be work."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until :meth:`stop_claiming`."""
        while not self._stopping:
            self._changed.clear()
            try:
                await self._step()
            except Unavailable:  # the store cannot be written now; what waits is not lost
                await self._pause(1.0)

    async def _step(self) -> None:
        if not self._has_work() or self._is_full():
            await self._pause(None)
        elif (blocked := self._blocked_until - self._clock()) > 0:
            await self._pause(blocked, wake=False)
        elif not await self._claim():
            await self._pause(await self._until_due())

    def _is_stopping(self) -> bool:
        return self._stopping

    def stop_claiming(self) -> None:
        """Let :meth:`run` end."""
        self._stopping = True
        self._changed.set()

    async def finish(self, timeout_s: float) -> None:
        """Wait for the calls under way; what is cut off is attempted again at the next start."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=timeout_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _has_work(self) -> bool:
        return any(self._waiting(kind) > 0 for kind in KINDS)

    def _waiting(self, kind: Kind) -> int:
        return self._outbox.waiting(Lane(destination=self._destination.name, kind=kind))

    def _is_full(self) -> bool:
        return len(self._calls) >= (1 if self._failures or self._paused else self._in_flight)

    async def _pause(self, seconds: float | None, *, wake: bool = True) -> None:
        """Wait for a change, at the longest so many seconds; a back-off (``wake`` false) ends early only for a stop."""
        if seconds is not None:
            seconds = max(0.01, min(seconds, 5.0))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        if not wake and not self._stopping and seconds is not None:
            left = min(self._blocked_until - self._clock(), 0.2)
            if left > 0:
                await asyncio.sleep(left)

    async def _until_due(self) -> float:
        due = [await self._outbox.next_due(Lane(destination=self._destination.name, kind=kind)) for kind in KINDS]
        known = [moment for moment in due if moment is not None]
        return min(known) - self._clock() if known else 5.0

    async def _claim(self) -> bool:
        """Linger for a fuller batch, then claim and send one of each kind; False when nothing was due."""
        if sum(self._waiting(kind) for kind in KINDS) < self._batch_size and not self._failures:
            await self._linger()
        limit = _PROBE_EVENTS if self._paused else self._batch_size
        found = False
        for kind in KINDS:
            lane = Lane(destination=self._destination.name, kind=kind)
            if self._stopping or self._is_full() or self._outbox.waiting(lane) <= 0:
                continue
            lease = await self._outbox.claim(lane, limit, self._clock())
            if lease is None:
                continue
            found = True
            if self._is_stopping():  # by now: the claim took its time
                await self._outbox.settle(lease, [])
            else:
                call = asyncio.create_task(self._deliver(lease), name=f"deliver-{self._destination.name}")
                self._calls.add(call)
                call.add_done_callback(self._finished)
        return found

    async def _linger(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._linger_s
        while not self._stopping and sum(self._waiting(kind) for kind in KINDS) < self._batch_size:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _finished(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._changed.set()
        if not call.cancelled() and call.exception() is not None:
            _log.error(
                "delivery_failed",
                extra={"destination": self._destination.name, "error": type(call.exception()).__name__},
            )

    async def _deliver(self, lease: Lease) -> None:
        now = self._judging()
        settlements: list[Settlement] = []
        ready: list[Claimed] = []
        for unit in lease.units:
            final = self._decide(unit, lease.lane, now)
            if final is None:
                ready.append(unit)
            else:
                settlements.append(final)
        if ready:
            settlements += await self._send(lease, ready)
        await self._settle(lease, settlements)

    def _decide(self, unit: Claimed, lane: Lane, now: float) -> Settlement | None:
        """Look at the unit for the last time before it is sent."""
        reason = "unsigned" if unit.event.unsigned else self._destination.refuse(unit.event, now)
        if reason is not None:
            # one that was attempted may have arrived: its marks must stay
            end: Literal["dead", "dropped"] = "dead" if unit.attempts else "dropped"
            return Settlement(unit=unit.unit, end=end, reason=reason)
        if self._retry_life_s and now - unit.accepted_at > self._retry_life_s:
            return Settlement(unit=unit.unit, end="dead", reason="expired")
        if self._late == "dead" and lane.kind == "live" and now - unit.event.event_time > LATE_S:
            return Settlement(unit=unit.unit, end="dead", reason="late")
        return None

    async def _send(self, lease: Lease, units: Sequence[Claimed]) -> list[Settlement]:
        kind = lease.lane.kind
        batch = Batch(events=tuple(unit.event for unit in units), test=kind == "test", offline=kind == "offline")
        verdict = await self._call(batch)
        if isinstance(verdict, Retry):
            self._back_off(verdict)
            return [
                Settlement(unit=unit.unit, end="retry", reason=verdict.reason, ambiguous=verdict.ambiguous)
                for unit in units
            ]
        if isinstance(verdict, Paused):
            self._pause_lane(verdict)
            return [Settlement(unit=unit.unit, end="retry", reason=verdict.reason) for unit in units]
        if isinstance(verdict, Unclear):
            self._recover()
            return await self._bisect(lease, units, verdict)
        self._recover()
        return [self._by_result(unit, result) for unit, result in zip(units, verdict, strict=True)]

    async def _bisect(self, lease: Lease, units: Sequence[Claimed], verdict: Unclear) -> list[Settlement]:
        """Find the event at fault; offline events are not sent again, the vendor could not tell the copies apart."""
        if lease.lane.kind == "offline":
            reason = f"unclear: {verdict.reason}"
            # some of them may have been processed: who replays them must know
            return [Settlement(unit=unit.unit, end="dead", reason=reason, ambiguous=True) for unit in units]
        if len(units) == 1:
            return [Settlement(unit=units[0].unit, end="dead", reason=verdict.reason)]
        if self._clock() > lease.deadline - _LEASE_MARGIN_S or self._failures or self._paused:
            return [Settlement(unit=unit.unit, end="retry", reason=verdict.reason) for unit in units]
        middle = len(units) // 2
        settled: list[Settlement] = []
        for half in (units[:middle], units[middle:]):
            if not self._is_stopping():  # what is delivered by now is settled, the rest goes back as it was
                settled += await self._send(lease, half)
        return settled

    async def _call(self, batch: Batch) -> Verdict:
        name = self._destination.name
        try:
            async with asyncio.timeout(_CALL_S):
                verdict = await self._destination.send(batch)
            if not is_verdict(verdict, len(batch.events)):
                raise TypeError("something else than a verdict on its batch")
        except BaseException as error:  # a plugin may fail in any way: a SystemExit of its would end the gateway
            if isinstance(error, GeneratorExit) or ((task := asyncio.current_task()) and task.cancelling()):
                raise
            self._tally.plugin_failures[(name,)] += 1
            _log.exception("plugin_failed", extra={"plugin": name, "error": type(error).__name__})
            verdict = Retry(reason="plugin_failed", ambiguous=True)
        result = "answered" if isinstance(verdict, Sequence) else type(verdict).__name__.lower()
        reason = "" if isinstance(verdict, Sequence) else verdict.reason
        self._tally.calls[(name, result)] += 1
        level = logging.INFO if isinstance(verdict, Sequence) else logging.WARNING
        _log.log(
            level, "batch", extra={"destination": name, "events": len(batch.events), "result": result, "reason": reason}
        )
        return verdict

    def _by_result(self, unit: Claimed, result: Result) -> Settlement:
        if isinstance(result, Delivered):
            return Settlement(unit=unit.unit, end="delivered", warning=result.warning)
        if isinstance(result, Refused):
            return Settlement(unit=unit.unit, end="dead", reason=result.reason)
        wait = result.after_s if result.after_s is not None else self._jitter(unit.attempts)
        due = self._clock() + min(wait, RETRY_AFTER_CAP_S)
        return Settlement(unit=unit.unit, end="retry", reason=result.reason, due=due, ambiguous=result.ambiguous)

    def _jitter(self, failures: int) -> float:
        return self._rng.uniform(0.0, min(_CAP_S, _BASE_S * 2.0 ** min(failures, 16)))

    def _back_off(self, verdict: Retry) -> None:
        wait = self._jitter(self._failures)
        if verdict.after_s is not None:
            wait = min(max(verdict.after_s, 0.0), RETRY_AFTER_CAP_S) + self._rng.uniform(0.0, 1.0)
        self._failures += 1
        self._reason = verdict.reason
        self._blocked_until = max(self._blocked_until, self._clock() + wait)

    def _pause_lane(self, verdict: Paused) -> None:
        if not self._paused:
            self._tally.alarms[("lane_paused", self._destination.name)] += 1
            _log.error(
                "lane_paused",
                extra={
                    "destination": self._destination.name,
                    "reason": verdict.reason,
                    "remedy": "Nothing is lost. Check this destination's token and account; it resumes by itself.",
                },
            )
        self._paused = True
        self._reason = verdict.reason
        self._blocked_until = self._clock() + _PROBE_S

    def _recover(self) -> None:
        if self._paused or self._failures:
            _log.warning("lane_recovered", extra={"destination": self._destination.name})
        self._failures, self._blocked_until, self._paused, self._reason = 0, 0.0, False, None

    async def _settle(self, lease: Lease, settlements: Sequence[Settlement]) -> None:
        """
        Write the result; while the store cannot be written the lease is kept, or delivered events would go out again.
        """
        while True:
            try:
                ended = await self._outbox.settle(lease, settlements)
                break
            except Unavailable:
                if self._clock() > lease.deadline:
                    raise
                await asyncio.sleep(0.5)
        for one in ended:
            self._settled(one)


class Sender:
    """All lanes of one process; ``observers`` hear of each ended unit, and cost only themselves."""

    def __init__(
        self,
        destinations: Sequence[Destination],
        outbox: Outbox,
        retry_life_s: float,
        observers: Sequence[Observer],
        tally: Tally,
        rng: random.Random | None = None,
    ) -> None:
        self._observers = observers
        self._tally = tally
        rng = rng or random.SystemRandom()
        self.lanes = [
            DestinationLane(destination, outbox, outbox.steady, retry_life_s, self.settled, tally, rng)
            for destination in destinations
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._forget = outbox.subscribe(self.poke)

    def start(self) -> None:
        """Start a task for each lane."""
        self._tasks = [asyncio.create_task(lane.run(), name=f"lane-{lane.state.destination}") for lane in self.lanes]

    def poke(self) -> None:
        """Tell every lane that there may be work."""
        for lane in self.lanes:
            lane.poke()

    def settled(self, settled: Settled) -> None:
        """Count an ended unit and tell observers."""
        self._tally.settled(settled)
        for observer in self._observers:
            try:
                observer.settled(settled)
            except BaseException as error:  # a plugin may fail in any way
                self._tally.plugin_failures[(observer.name,)] += 1
                _log.error("plugin_failed", extra={"plugin": observer.name, "error": type(error).__name__})

    async def stop(self, timeout_s: float) -> None:
        """Stop all lanes together: first no more claims, then no more calls."""
        for lane in self.lanes:
            lane.stop_claiming()
        self._forget()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if self._tasks:
            # a claim under way is given back: cancelled, its units would count as attempted
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lane.finish(max(0.0, deadline - loop.time())) for lane in self.lanes))
