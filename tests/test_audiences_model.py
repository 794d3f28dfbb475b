"""
A model of audiences: whatever happens, after the last pass the audience holds exactly whom it should.

Joins, leaves, changed addresses, suppression, opting out, faults before and after a call had its effect, and kills
between any two steps. The model keeps what the source says; the sink must come to hold that and what it held before.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.audience import AudienceError
from gateway.audiences import Outcome, Settings
from tests.harness.audiences import Kill, World, sha

BEFORE = [f"before{number}@shop.example" for number in range(3)]
Change = tuple[str, str, str, Literal["suppressed", "unsubscribed"] | None]
Trouble = tuple[str, str, int, Literal["before", "after"], float | None]
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "change", "leave"]),
        st.sampled_from([f"p{number}" for number in range(12)]),
        # fewer addresses than profiles: some are shared; different writings of one address are one
        st.sampled_from([f"{name}{number}@shop.example" for number in range(8) for name in ("n", " N")]),
        st.sampled_from([None, None, None, "suppressed", "unsubscribed"]),
    ),
    min_size=3,
    max_size=12,
)
troubles: st.SearchStrategy[Trouble] = st.tuples(
    st.sampled_from(["fault", "kill", "commit", "none"]),
    st.sampled_from(["add", "remove", "page", "add", "remove", "create_feed", "create_audience", "group"]),
    st.integers(0, 25),
    st.sampled_from(["before", "after"]),
    st.sampled_from([None, 0.0, 30.0, 9999.0]),
)
orders = st.fixed_dictionaries(
    {"full": st.booleans(), "dry_run": st.sampled_from([False, False, True]), "confirm": st.booleans()}
)


class AudienceMachine(RuleBasedStateMachine):
    """One connection, to an existing audience or a new one."""

    def __init__(self) -> None:
        super().__init__()
        commit_every = 5  # of pages of three: some are committed together
        self.folder = tempfile.mkdtemp()
        self.world = World(Path(self.folder), Settings(max_removal=1.0, max_missing=1.0, commit_every=commit_every))
        self.world.group("L")
        self.world.sink.existing("old", "Old", BEFORE)

    @initialize(create=st.booleans(), people=changes)
    def connect(self, create: bool, people: list[Change]) -> None:
        self.created = create
        self.move(people)
        target = {"create": "New"} if create else {"audience": "old"}
        self.world.run(lambda engine: engine.connect("memory", "list", "L", "memory", **target))  # type: ignore[arg-type]

    def move(self, people: list[Change]) -> None:
        """People join, leave, and change their address or consent at the source."""
        for what, profile, address, reason in people:
            there = self.world.source.lists["L"].members
            if what == "leave":
                there.pop(profile, None)
            elif what == "change" and profile in there:
                self.world.source.change("L", profile, address, reason)
            else:
                self.world.source.join("L", profile, address, reason)

    @rule(people=changes, seconds=st.sampled_from([0, 1, 2000]), trouble=troubles, order=orders)
    def pass_in_trouble(self, people: list[Change], seconds: int, trouble: Trouble, order: dict[str, bool]) -> None:
        self.move(people)
        self.world.clock.advance(seconds)
        kind, where, number, stage, retry = trouble
        script = self.world.source.script if where in ("page", "group") else self.world.sink.script
        if kind == "commit":
            self.world.kill_in = (number, stage)
        elif kind == "kill":
            script.faults.append((where, stage, Kill()))
        elif kind == "fault":
            # after it had its effect a call does not fail for certain
            error = AudienceError("It failed.", retry_after_s=retry, ambiguous=stage == "after")
            script.faults.extend([(where, stage, error)] * (number % 6 + 1))
        self.attempt(**order)
        self.world.kill_in = None
        script.faults.clear()

    @rule(numbers=st.lists(st.integers(0, 7), min_size=1, max_size=3), tell=st.booleans(), out=st.booleans())
    def choose(self, numbers: list[int], tell: bool, out: bool) -> None:
        """People opt out at the gateway, which may tell at once, or in again."""
        hashes = {sha(f"n{number}@shop.example") for number in numbers}
        if out:
            self.world.barred |= hashes
        else:
            self.world.barred -= hashes
        if tell and out:
            self.world.run(lambda engine: engine.bar(sorted(hashes)))

    @rule(state=st.sampled_from(["ready", "processing"]))
    def state(self, state: str) -> None:
        self.world.source.lists["L"].state = state

    @rule()
    def expire(self) -> None:
        """Make the cursor of an interrupted scan useless."""
        row = self.world.run(lambda engine: engine._store.connection(1))
        self.world.source.expired |= {row.cursor} if row.cursor else set()

    def attempt(self, *, full: bool, dry_run: bool = False, confirm: bool = False) -> Outcome | None:
        try:
            outcomes = self.world.run(lambda engine: engine.sync(1, full=full, dry_run=dry_run, confirm=confirm))
            return outcomes[0]
        except Kill:
            self.world.die()
            return None

    def fed(self) -> list[set[str]]:
        """Return what the audience's feed holds; nothing while a new one is not created."""
        if not self.created:
            return [self.world.sink.feeds["feed-old"]]
        return [self.world.sink.feeds[each.feed] for each in self.world.sink.audiences.values() if each.name == "New"]

    @invariant()
    def nobody_who_was_there_before_is_removed(self) -> None:
        assert set(map(sha, BEFORE)) <= self.world.sink.feeds["feed-old"]

    def teardown(self) -> None:
        """See that it ends well, and clear up however it ended."""
        try:
            self.settle()
        finally:
            self.world.close()
            shutil.rmtree(self.folder)

    def settle(self) -> None:
        """Everything works again: one pass ends what was begun, one does all, and the third has nothing to do."""
        world = self.world
        world.kill_in = None
        world.source.script.faults.clear()
        world.sink.script.faults.clear()
        world.source.expired.clear()
        world.source.lists["L"].state = "ready"
        world.die()
        for _ in range(3):
            outcome = self.attempt(full=True)
            assert outcome is not None
        wanted = {
            sha(email.strip().lower())
            for email, reason, _ in world.source.lists["L"].members.values()
            if reason is None
        } - world.barred
        assert outcome is not None
        assert (outcome.to_add, outcome.to_remove) == (0, 0) or outcome.state == "creating"
        if self.created:
            assert len(self.fed()) <= 1
            if wanted:
                assert outcome.state == "ok"
                assert self.fed() == [wanted]
            else:
                assert all(not feed for feed in self.fed())
        else:
            assert outcome.state == "ok"
            assert self.fed() == [wanted | set(map(sha, BEFORE))]
        (row,) = world.run(lambda engine: engine._store.connections())
        people = world.run(
            lambda engine: engine._store.do(lambda db: db.execute("SELECT email, told FROM person").fetchall())
        )
        if outcome.state == "ok":
            assert row.applied == len(wanted) == len(people)
            assert {email.hex() for email, told in people if told == 1} == wanted
        assert row.members == len(world.source.lists["L"].members)


AudienceMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAudiences = AudienceMachine.TestCase
