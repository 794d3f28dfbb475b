"""The outbox against a model of it: random operations, restarts and time, and never a difference."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.event import SealedEvent
from gateway.outbox import DeadFilter, Lane, Lease, Mark, Settlement, Unit
from gateway.outbox.sqlite import SqliteOutbox

LANE = Lane(destination="pinterest", kind="live")
START = 1_795_305_600.0
ID_WINDOW, KEY_WINDOW = 1_000, 10_000


class OutboxMachine(RuleBasedStateMachine):
    """
    Admits, claims, settles, replays, discards, restarts and moves the clock.

    The model: each group of events that share a mark is one conversion with one state; a mark is known while its
    conversion waits or is dead, and until its time is over once it was delivered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-model-"))
        self.loop = asyncio.new_event_loop()
        self.now = START
        self.serial = 0
        self.leases: list[Lease] = []
        #: Conversion number → "waiting", "leased", "dead", "delivered".
        self.states: dict[int, str] = {}
        #: Mark → (conversion, when its time is over).
        self.marks: dict[str, tuple[int, float]] = {}
        #: The store's unit → conversion.
        self.units: dict[str, int] = {}

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def open(self) -> None:
        self.outbox = self.reopen()

    def reopen(self) -> SqliteOutbox:
        async def make() -> SqliteOutbox:
            return SqliteOutbox(
                self.folder / "store.db",
                clock=lambda: self.now,
                linger_s=0.0,
                business_key_s=KEY_WINDOW,
                dead_keep_s=1e9,
            )

        outbox: SqliteOutbox = self.run(make())
        return outbox

    def known(self, mark: str) -> int | None:
        """Return the conversion that a mark stands for now."""
        if mark not in self.marks:
            return None
        conversion, expires = self.marks[mark]
        return conversion if self.states[conversion] != "delivered" or expires > self.now else None

    @rule(event_id=st.integers(0, 6), key=st.one_of(st.none(), st.integers(0, 3)))
    def admit(self, event_id: int, key: int | None) -> None:
        marks = {f"id {event_id}": ID_WINDOW} | ({} if key is None else {f"key {key}": KEY_WINDOW})
        event = SealedEvent(
            event_id=f"e{event_id}", event_name="checkout", event_time=int(self.now), accepted_at=self.now,
            source="s", site="s", born="server",
        )  # fmt: skip
        unit = Unit(
            lane=LANE,
            event=event,
            marks=tuple(
                Mark(digest=self.outbox.digest(mark), lifetime_s=window, business=mark.startswith("key"))
                for mark, window in marks.items()
            ),
        )
        admission = self.run(self.outbox.admit([unit]))[0]
        met = {conversion for mark in marks if (conversion := self.known(mark)) is not None}
        delivered = sorted(one for one in met if self.states[one] == "delivered")
        live = sorted(one for one in met if self.states[one] != "delivered")
        if not met:
            assert admission.fate == "accepted"
            self.serial += 1
            self.states[self.serial] = "waiting"
            self.units[admission.unit] = self.serial
            target = self.serial
        elif delivered:
            assert admission.fate == "duplicate"
            target = delivered[0]
            for one in live:
                self.absorb(one, target)
        else:
            dead = any(self.states[one] == "dead" for one in live)
            assert admission.fate == ("merged" if dead or len(live) > 1 else "duplicate")
            target = self.units[admission.unit]
            assert target in live
            for one in live:
                if one != target:
                    self.absorb(one, target)
            if self.states[target] == "dead":
                self.states[target] = "waiting"
        for mark, window in marks.items():
            if self.known(mark) != target:
                self.marks[mark] = (target, self.now + window)

    def absorb(self, one: int, target: int) -> None:
        """One conversion turned out to be another: its marks follow, and nothing of it is sent any more."""
        for mark, (conversion, expires) in list(self.marks.items()):
            if conversion == one:
                self.marks[mark] = (target, expires)
        self.units = {unit: number for unit, number in self.units.items() if number != one}
        del self.states[one]

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        lease = self.run(self.outbox.claim(LANE, limit, self.now))
        waiting = [one for one, state in self.states.items() if state == "waiting"]
        assert (lease is None) == (not waiting)
        if lease is not None:
            assert len(lease.units) == min(limit, len(waiting))
            for claimed in lease.units:
                assert self.states[self.units[claimed.unit]] == "waiting"
                self.states[self.units[claimed.unit]] = "leased"
            self.leases.append(lease)

    @rule(end=st.sampled_from(["delivered", "dead", "dropped", "retry"]))
    def settle(self, end: Any) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(0)
        self.run(self.outbox.settle(lease, [Settlement(unit=one.unit, end=end, reason="x") for one in lease.units]))
        for claimed in lease.units:
            conversion = self.units.get(claimed.unit)
            if conversion is None:
                continue  # absorbed while it was out
            if end == "dropped":
                self.marks = {mark: known for mark, known in self.marks.items() if known[0] != conversion}
                del self.states[conversion]
            else:
                self.states[conversion] = {"retry": "waiting"}.get(end, end)

    @rule()
    def discard(self) -> None:
        dead = [one for one, state in self.states.items() if state == "dead"]
        assert self.run(self.outbox.discard(DeadFilter())) == len(dead)
        for one in dead:
            self.marks = {mark: known for mark, known in self.marks.items() if known[0] != one}
            del self.states[one]

    @rule()
    def replay(self) -> None:
        dead = [one for one, state in self.states.items() if state == "dead"]
        assert self.run(self.outbox.replay(DeadFilter())).queued == len(dead)
        for one in dead:
            self.states[one] = "waiting"

    @rule(seconds=st.sampled_from([1, ID_WINDOW, KEY_WINDOW]))
    def wait(self, seconds: int) -> None:
        if not self.leases:  # a lease that is out would be lost
            self.now += seconds

    @rule()
    def restart(self) -> None:
        self.run(self.outbox.close())
        self.leases.clear()
        for one, state in self.states.items():
            if state == "leased":
                self.states[one] = "waiting"
        self.outbox = self.reopen()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "outbox"):
            return
        waiting = sum(state == "waiting" for state in self.states.values())
        assert self.outbox.waiting(LANE) == waiting

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.run(self.outbox.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestOutboxModel = OutboxMachine.TestCase
TestOutboxModel.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
