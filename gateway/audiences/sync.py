"""One pass: read the source, compare, tell the sink."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec

from gateway.audience import AudienceError, AudienceSink, AudienceSource, Group
from gateway.audiences import guards, ledger, scan
from gateway.audiences.delivery import Delivery
from gateway.audiences.records import Meter, Outcome, Phase, Progress, Settings, State
from gateway.audiences.scan import Scan
from gateway.audiences.sides import Sides
from gateway.audiences.store import Row, Store
from gateway.errors import GatewayError
from gateway.event import Struct

log = logging.getLogger(__name__)


class Order(Struct, frozen=True, kw_only=True):
    """How a pass is to be run; ``full`` None: whatever is due."""

    full: bool | None = None
    dry_run: bool = False
    confirm: bool = False


class Sync:
    """Runs passes, one at a time for each connection."""

    def __init__(
        self,
        store: Store,
        sides: Sides,
        settings: Settings,
        clock: Callable[[], float],
        meter: Meter,
        ticks: Callable[[], float],
    ) -> None:
        self.store = store
        self.sides = sides
        self.settings = settings
        self.clock = clock
        self.meter = meter
        self._ticks = ticks
        #: The connections whose pass is under way.
        self.running: set[int] = set()

    @contextlib.asynccontextmanager
    async def alone(self, number: int) -> AsyncIterator[None]:
        """Hold a connection; raises AudienceError when it is in use."""
        self.refuse_running(number)
        self.running.add(number)
        try:
            yield
        finally:
            self.running.discard(number)

    def refuse_running(self, number: int) -> None:
        """Raise AudienceError when the connection is in use."""
        if number in self.running:
            raise AudienceError(
                f"Connection {number} is being synced at this moment: wait until its status says otherwise.",
                retry_after_s=30,
            )

    async def run(self, number: int, order: Order, progress: Callable[[Progress], None] | None = None) -> Outcome:
        """Run one pass to its end, good or bad; raises only when the connection is in use or the store fails."""
        async with self.alone(number):
            began = self._ticks()
            one = Pass(self, await self.store.connection(number), order, progress or (lambda _: None))
            (problem,) = await asyncio.gather(one.run(), return_exceptions=True)
            if isinstance(problem, GatewayError) and not isinstance(problem, AudienceError):
                raise problem
            if problem is not None and not isinstance(problem, Exception):
                raise problem
            outcome = await one.end(problem, self._ticks() - began)
        self._tell(outcome)
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        number = outcome.connection
        counted = {
            "passes": 1,
            "errors": int(outcome.state in ("attention", "waiting")),
            "held": int(outcome.state == "held"),
            **{name: getattr(outcome, name) for name in ("read", "added", "removed", "failed")},
        }
        for what, by in counted.items():
            if by:
                self.meter(what, number, by)
        extra = {
            name: getattr(outcome, name) for name in outcome.__struct_fields__ if name not in ("message", "ended_at")
        }
        log.info("audience pass ended", extra=extra)


class Pass:
    """One pass of one connection; :meth:`end` keeps what came of it, however it went."""

    def __init__(self, sync: Sync, row: Row, order: Order, progress: Callable[[Progress], None]) -> None:
        self._sync = sync
        self._store = sync.store
        self._sides = sync.sides
        self._settings = sync.settings
        self._row = row
        self._order = order
        # a dry run may say what confirm would do; it must not make a doubtful scan the truth
        self._believe = order.confirm and not order.dry_run
        self._progress = progress
        self._kind: Literal["full", "quick", "none"] = "none"
        self._scan: Scan | None = None
        self._delivery: Delivery | None = None
        self._to_add = self._to_remove = 0
        self._state: State = "ok"
        self._message = ""
        self._wait_s = 0.0
        self._shown = row.shown

    async def run(self) -> None:
        """Do it all; raises AudienceError where a side did not do its part."""
        row = self._row
        source, sink = self._sides.source(row.source), self._sides.sink(row.sink)
        group = await self._group(source)
        await self._read(source, group)
        delivery = Delivery(self._store, self._sides, sink, row, self._tell)
        self._delivery = delivery
        removals = await self._compare()
        if self._order.dry_run:
            return
        await delivery.add(self._to_add)
        await self._create(delivery)
        if removals:
            await delivery.remove(removals)
        if self._state != "held" and (row.allowed or self._order.confirm):
            await self._store.update(row.id, allowed=0)
        await self._look(sink, delivery)

    async def _group(self, source: AudienceSource) -> Group:
        row = self._row
        group = await self._sides.call(lambda: source.group(row.kind, row.group))
        self._shown = msgspec.structs.replace(self._shown, group_state=group.state, members=group.size)
        if group.name and group.name != row.group_name:
            await self._store.update(row.id, group_name=group.name)
        return group

    async def _read(self, source: AudienceSource, group: Group) -> None:
        row = self._row
        reader = self._scan = Scan(
            self._store, self._sides, self._settings, self._sync.clock, source, group, row.id, self._progress
        )
        read_already = row.scanning == scan.SWEEPING or (
            row.scanning == scan.READ and not self._order.full and (self._believe or not row.hold)
        )
        self._kind = "full" if read_already else self._choose(source, group)
        if self._kind == "quick":
            await reader.quick()
            await self._store.update(row.id, quick_at=self._sync.clock())
        elif self._kind == "full":
            if not read_already:
                await reader.full()
                group = await self._group(source)
            await self._sweep(reader, group)

    def _choose(self, source: AudienceSource, group: Group) -> Literal["full", "quick", "none"]:
        row, order = self._row, self._order
        if row.scanning == scan.OPEN or row.since is None:
            return "full"
        quick: Literal["quick", "none"] = "quick" if source.tells_who_joined else "none"
        if order.full is None:
            due = row.full_at is None or self._sync.clock() >= row.full_at + self._settings.full_every_s
        else:
            due = order.full or quick == "none"
        if due and guards.not_ready(group) and not self._believe:
            self._hold(guards.not_ready(group))
            return quick
        return "full" if due else quick

    async def _sweep(self, reader: Scan, group: Group) -> None:
        """Take out who left, unless a guard does not believe the scan."""
        row = await self._store.connection(self._row.id)
        now = self._sync.clock()
        since = max(row.since or 0.0, row.scan_began)
        unready = early = ""
        if row.scanning == scan.READ and not self._believe:
            unready = guards.not_ready(group)
            early = guards.ended_early(self._settings, group, row.seen)
        if unready or early:
            await self._store.update(
                row.id, hold=unready or early, since=since, full_at=row.full_at if unready else now
            )
            self._hold(unready or early)
            return
        await self._store.update(row.id, scanning=scan.SWEEPING)
        await reader.sweep()
        await self._store.update(row.id, scanning=scan.CLOSED, hold="", since=since, full_at=now)
        self._row = msgspec.structs.replace(self._row, hold="")

    def _hold(self, message: str) -> None:
        self._state, self._message = "held", message

    async def _compare(self) -> int:
        """Count what is to be done; returns how many removals may be."""
        number = self._row.id
        if self._row.hold and self._kind != "full":
            self._hold(self._row.hold)
        self._to_add = await self._store.due(number, "add")
        self._tell("compare", 0, None)
        if not self._row.remove:
            return 0
        self._to_remove = await self._store.due(number, "remove")
        if self._order.confirm and not self._order.dry_run:
            await self._store.update(number, allowed=self._to_remove)
        elif self._to_remove:
            allowed = self._to_remove if self._order.confirm else self._row.allowed
            kept = await self._store.do(lambda db: ledger.kept(db, number))
            stopped = guards.too_many(self._settings, self._to_remove, kept, allowed)
            if stopped:
                self._hold(stopped)
                return 0
        return self._to_remove

    async def _create(self, delivery: Delivery) -> None:
        if delivery.feed is None:
            self._state = "creating"
            self._message = "The audience is created with its first member: the list has none yet that may be added."
            return
        try:
            await delivery.create_audience()
        except AudienceError as error:
            if error.retry_after_s is None:
                raise
            self._state, self._message, self._wait_s = "creating", str(error), error.retry_after_s

    async def _look(self, sink: AudienceSink, delivery: Delivery) -> None:
        """Ask how the audience is, when it may have changed."""
        audience = delivery.audience
        changed = delivery.added or delivery.removed or self._kind == "full" or self._shown.audience_state != "ready"
        if audience is None or not changed:
            return
        now = await self._sides.call(lambda: sink.group(self._row.account, audience))
        self._shown = msgspec.structs.replace(self._shown, audience_state=now.state, audience_size=now.size)

    def _tell(self, phase: Phase, done: int, total: int | None) -> None:
        self._progress(Progress(connection=self._row.id, phase=phase, done=done, total=total))

    async def end(self, problem: Exception | None, duration_s: float) -> Outcome:
        """Keep and return what came of the pass."""
        if isinstance(problem, AudienceError) and problem.retry_after_s is not None:
            self._state, self._message, self._wait_s = "waiting", str(problem), problem.retry_after_s
        elif isinstance(problem, AudienceError):
            self._state, self._message = "attention", str(problem)
        elif problem is not None:
            log.error("audience plugin failed", exc_info=problem, extra={"connection": self._row.id})
            self._state = "attention"
            self._message = (
                f"The plugin of {self._row.source} or {self._row.sink} failed ({type(problem).__name__}): see the log, "
                "then update it or tell its author."
            )
        delivery, now = self._delivery, self._sync.clock()
        outcome = Outcome(
            connection=self._row.id, kind=self._kind, state=self._state, message=self._message,
            read=self._scan.read if self._scan else 0, to_add=self._to_add, to_remove=self._to_remove,
            added=delivery.added if delivery else 0, removed=delivery.removed if delivery else 0,
            failed=delivery.failed if delivery else 0,
            dry_run=self._order.dry_run, ended_at=now, duration_s=duration_s,
        )  # fmt: skip
        skipped = await self._store.left_out(self._row.id)
        if self._order.dry_run:
            shown = msgspec.structs.replace(self._shown, skipped=skipped)
            await self._store.update(self._row.id, shown=shown)
            return outcome
        shown = msgspec.structs.replace(self._shown, skipped=skipped, last=outcome)
        await self._store.update(
            self._row.id,
            state=self._state,
            message=self._message,
            next_at=now + max(self._wait_s, self._settings.quick_every_s),
            shown=shown,
        )
        return outcome
