"""Passes: what joins, leaves and changes at the source arrives at the sink, whatever happens on the way."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audience import AudienceError
from gateway.audiences import Audiences, Outcome, Progress, Settings, Status
from tests.harness.audiences import Kill, World, sha
from tests.harness.canary import Canary


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def connect(world: World, group: str = "L", **how: object) -> Status:
    """Connect to a new audience, or as ``how`` says."""
    arguments: dict[str, object] = {"create": f"Audience of {group}"} if "audience" not in how else {}
    connected = world.run(
        lambda engine: engine.connect("memory", "", group, "memory", **(arguments | how))  # type: ignore[arg-type]
    )
    return connected.status


def sync(world: World, number: int = 1, *, full: bool = False, dry_run: bool = False, confirm: bool = False) -> Outcome:
    (outcome,) = world.run(lambda engine: engine.sync(number, full=full, dry_run=dry_run, confirm=confirm))
    return outcome


def status(world: World) -> Status:
    (one,) = world.run(lambda engine: engine.connections())
    return one


def held(world: World) -> set[str]:
    """Return what the only audience's feed holds."""
    (audience,) = world.sink.audiences.values()
    return world.sink.feeds[audience.feed]


def test_the_first_pass_creates_feed_and_audience_and_tells_everybody_once(world: World) -> None:
    """Ten people in chunks of four: one feed with the first four, an audience of it, then the rest."""
    emails = world.people("L", 10)
    connect(world)
    outcome = sync(world)
    assert (outcome.kind, outcome.state, outcome.read, outcome.added) == ("full", "ok", 10, 10)
    assert held(world) == set(map(sha, emails))
    assert world.sink.told == [("add", 4), ("add", 2)]
    one = status(world)
    assert (one.members, one.mirrored, one.in_audience, one.added, one.removed) == (10, 10, 10, 10, 0)
    assert (one.audience, one.audience_state, one.state) == ("audience1", "ready", "ok")
    assert one.last == outcome
    assert ("added", 1, 10) in world.metered


def test_joins_leaves_and_changed_addresses_follow(world: World) -> None:
    """A quick pass brings who joined, a full pass takes who left and whose address changed."""
    world.group("L", *(f"n{each}@shop.example" for each in range(8)))
    world.clock.advance(3600)
    connect(world)
    sync(world)
    world.source.join("L", "new", "New@Shop.example ")
    outcome = sync(world)
    assert (outcome.kind, outcome.read, outcome.added, outcome.removed) == ("quick", 1, 1, 0)
    assert sha("new@shop.example") in held(world)
    del world.source.lists["L"].members["p0"]
    world.source.change("L", "p1", "other@shop.example")
    outcome = sync(world, full=True)
    assert (outcome.kind, outcome.added, outcome.removed) == ("full", 1, 2)
    wanted = {f"n{each}@shop.example" for each in range(2, 8)} | {"new@shop.example", "other@shop.example"}
    assert held(world) == set(map(sha, wanted))
    assert sync(world).added == sync(world, full=True).removed == 0


def test_an_address_stays_as_long_as_one_member_has_it(world: World) -> None:
    """Two profiles share an address: it is told once, and removed with the last of them."""
    world.group("L", "a@shop.example", "A@shop.example", "b@shop.example")
    connect(world)
    assert sync(world).added == 2
    world.source.change("L", "p0", "c@shop.example")
    outcome = sync(world, full=True)
    assert (outcome.added, outcome.removed) == (1, 0)
    del world.source.lists["L"].members["p1"]
    assert sync(world, full=True).removed == 1
    assert held(world) == {sha("b@shop.example"), sha("c@shop.example")}


def test_existing_members_stay(world: World) -> None:
    """Who was in the audience before is neither overwritten nor removed."""
    world.sink.existing("old", "Old", ["before@shop.example"])
    world.group("L", "a@shop.example", "b@shop.example")
    connect(world, audience="Old")
    sync(world)
    assert held(world) == {sha("before@shop.example"), sha("a@shop.example"), sha("b@shop.example")}
    world.source.lists["L"].members.clear()
    world.group("L", "c@shop.example")
    sync(world, full=True, confirm=True)
    assert held(world) == {sha("before@shop.example"), sha("c@shop.example")}
    assert "create_feed" not in world.sink.script.calls


def test_without_remove_nobody_is_ever_removed(world: World) -> None:
    """``remove=False`` adds only; who comes back is not told again."""
    world.people("L", 3)
    connect(world, remove=False)
    sync(world)
    before = held(world).copy()
    gone = world.source.lists["L"].members.pop("p0")
    outcome = sync(world, full=True)
    assert (outcome.to_remove, outcome.removed, outcome.state) == (0, 0, "ok")
    world.source.join("L", "p0", gone[0])
    assert sync(world, full=True).added == 0
    assert held(world) == before


def test_who_is_left_out_is_counted_by_reason(world: World) -> None:
    """Each reason has its count; who becomes suppressed leaves, who is free again comes back."""
    world.group("L", "a@shop.example", "", "no address", "d@shop.example", "e@shop.example", "f@shop.example")
    world.source.change("L", "p3", "d@shop.example", "suppressed")
    world.source.change("L", "p4", "e@shop.example", "unsubscribed")
    world.barred = {sha("f@shop.example")}
    connect(world)
    assert sync(world).added == 1
    one = status(world)
    assert one.skipped == dict.fromkeys(("no_email", "invalid_email", "suppressed", "unsubscribed", "opted_out"), 1)
    assert (one.mirrored, one.in_audience) == (1, 1)
    world.barred.clear()
    world.source.change("L", "p3", "d@shop.example")
    world.source.change("L", "p0", "a@shop.example", "suppressed")
    sync(world, full=True)
    assert held(world) == {sha("d@shop.example"), sha("f@shop.example")}


def test_suppressed_people_may_be_included(tmp_path: Path) -> None:
    """``include_suppressed`` mirrors suppressed and unsubscribed people, never who opted out."""
    world = World(tmp_path, Settings(include_suppressed=True))
    world.group("L", "a@shop.example", "b@shop.example", "c@shop.example")
    world.source.change("L", "p0", "a@shop.example", "suppressed")
    world.source.change("L", "p1", "b@shop.example", "unsubscribed")
    world.source.change("L", "p2", "c@shop.example", "opted_out")
    connect(world)
    sync(world)
    assert held(world) == {sha("a@shop.example"), sha("b@shop.example")}
    world.close()


def test_who_opts_out_at_the_gateway_leaves_by_the_next_pass(world: World) -> None:
    """``bar`` needs no full pass; the full pass that follows keeps them out and forgets the hash."""
    world.group("L", "a@shop.example", "b@shop.example")
    connect(world)
    sync(world)
    world.barred = {sha("a@shop.example")}
    assert world.run(lambda engine: engine.bar([sha("a@shop.example"), sha("stranger@shop.example")])) == 1
    assert sync(world).removed == 1
    assert held(world) == {sha("b@shop.example")}
    sync(world, full=True)
    world.close()
    assert bytes.fromhex(sha("a@shop.example")) not in world.path.read_bytes()


def test_who_opts_in_again_comes_back(world: World) -> None:
    """Barred and removed, then free again before the next full pass: that one brings them back."""
    world.group("L", "a@shop.example", "b@shop.example")
    world.clock.advance(5000)
    connect(world)
    sync(world)
    world.barred = {sha("a@shop.example")}
    world.run(lambda engine: engine.bar([sha("a@shop.example")]))
    outcome = sync(world)
    assert (outcome.read, outcome.removed) == (0, 1)
    world.barred.clear()
    assert sync(world, full=True).added == 1
    assert held(world) == {sha("a@shop.example"), sha("b@shop.example")}


def test_an_old_answer_frees_nobody(world: World) -> None:
    """Who is barred while a page waits for the answer "nobody is" stays barred."""
    world.group("L", "a@shop.example", "b@shop.example")
    connect(world)
    sync(world)

    async def scenario(engine: Audiences) -> None:
        async def barred(hashes: object) -> set[str]:
            await engine.bar([sha("a@shop.example")])
            return set()

        engine._sides.barred = barred
        (outcome,) = await engine.sync(1, full=True)
        assert outcome.removed == 1

    world.run(scenario)
    assert held(world) == {sha("b@shop.example")}


def test_an_unclear_answer_keeps_the_claim(world: World) -> None:
    """The sink may have added them before it failed: who is gone by the next pass is removed all the same."""
    world.group("L", "a@shop.example")
    connect(world)
    sync(world)
    world.source.join("L", "x", "x@shop.example")
    world.sink.script.faults.append(("add", "after", AudienceError("Cut off.", ambiguous=True)))
    assert (sync(world).state, sha("x@shop.example") in held(world)) == ("attention", True)
    del world.source.lists["L"].members["x"]
    sync(world, full=True)
    assert held(world) == {sha("a@shop.example")}


def test_who_opted_out_between_scan_and_add_is_not_added(world: World) -> None:
    """The question is asked again before each chunk is told."""
    world.group("L", "a@shop.example", "b@shop.example")
    connect(world)
    sync(world, dry_run=True)
    world.barred = {sha("a@shop.example")}
    world.source.tells_who_joined = True  # type: ignore[misc]
    sync(world)
    assert held(world) == {sha("b@shop.example")}


def test_a_dry_run_tells_the_sink_nothing(world: World) -> None:
    """It counts what would be done; connecting dry keeps no connection."""
    world.people("L", 5)
    dry = world.run(lambda engine: engine.connect("memory", "list", "L", "memory", create="New", dry_run=True))
    assert (dry.status.id, dry.dry_run) == (0, True)
    assert world.run(lambda engine: engine.connections()) == []
    number = connect(world).id
    outcome = sync(world, number, dry_run=True)
    assert (outcome.to_add, outcome.to_remove, outcome.added) == (5, 0, 0)
    assert world.sink.feeds == {}
    sync(world, number)
    del world.source.lists["L"].members["p1"]
    outcome = sync(world, number, full=True, dry_run=True)
    assert (outcome.to_add, outcome.to_remove) == (0, 1)
    assert len(held(world)) == 5


def test_a_killed_scan_goes_on_at_its_cursor(world: World) -> None:
    """Nine people in pages of three; the process ends in the second page: two pages are read afterwards, not three."""
    world.people("L", 9)
    connect(world)
    world.source.script.hook = lambda call: (
        world.source.script.faults.append(("page", "after", Kill()))
        if (world.source.script.calls.count("page") == 2)
        else None
    )
    with pytest.raises(Kill):
        sync(world)
    world.die()
    world.source.script.hook = lambda _: None
    world.source.script.calls.clear()
    outcome = sync(world)
    assert (outcome.kind, outcome.read, outcome.added) == ("full", 6, 9)
    assert world.source.script.calls.count("page") == 2


def test_an_expired_cursor_begins_anew(world: World) -> None:
    """The cursor of a killed scan is refused: everything is read again, and who left meanwhile is noticed."""
    world.people("L", 9)
    connect(world)
    world.kill_in = (7, "after")
    with pytest.raises(Kill):
        sync(world)
    world.die()
    cursor = world.run(lambda engine: engine._store.connection(1)).cursor
    assert cursor is not None
    world.source.expired.add(cursor)
    outcome = sync(world)
    assert (outcome.state, outcome.read, outcome.added) == ("ok", 9, 9)


def test_a_kill_between_feed_and_audience_creates_neither_twice(world: World) -> None:
    """The feed is on record before the audience is made; an audience that was made and not noted is found by name."""
    world.people("L", 6)
    connect(world)
    world.sink.script.faults.append(("create_audience", "before", Kill()))
    with pytest.raises(Kill):
        sync(world)
    world.die()
    world.sink.script.faults.append(("create_audience", "after", Kill()))
    with pytest.raises(Kill):
        sync(world)
    world.die()
    assert sync(world).state == "ok"
    assert len(world.sink.feeds) == len(world.sink.audiences) == 1
    assert world.sink.script.calls.count("create_feed") == 1


def test_an_audience_that_cannot_be_made_yet_is_waited_for(world: World) -> None:
    """Until the vendor has read the feed the connection is ``creating``; members go on to be told."""
    world.people("L", 6)
    connect(world)
    world.sink.script.faults.append(("create_audience", "before", AudienceError("Not read yet.", retry_after_s=600)))
    outcome = sync(world)
    assert (outcome.state, outcome.message, outcome.added) == ("creating", "Not read yet.", 6)
    one = status(world)
    assert one.next_at == world.clock() + 600
    assert sync(world).state == "ok"


def test_an_empty_list_waits_for_its_first_member(world: World) -> None:
    """A feed cannot be empty: nothing is created until somebody is there."""
    world.group("L")
    connect(world)
    assert sync(world).state == "creating"
    world.clock.advance(60)
    world.source.join("L", "p", "a@shop.example")
    assert sync(world).state == "ok"
    assert held(world) == {sha("a@shop.example")}


def test_a_kill_after_the_sink_was_told_leaves_nobody_behind(world: World) -> None:
    """Added but not recorded, then gone at the source: the removal is told all the same."""
    world.people("L", 3)
    connect(world)
    sync(world)
    world.clock.advance(3600)
    world.source.join("L", "x", "x@shop.example")
    world.sink.script.faults.append(("add", "after", Kill()))
    with pytest.raises(Kill):
        sync(world)
    assert sha("x@shop.example") in held(world)
    world.die()
    del world.source.lists["L"].members["x"]
    assert sync(world, full=True).removed == 1
    assert sha("x@shop.example") not in held(world)


def test_a_sink_that_refused_is_not_told_to_remove_what_it_never_took(world: World) -> None:
    """Only members this connection added are removed: a refused add leaves no claim, an unclear one does."""
    world.sink.existing("old", "Old", ["x@shop.example"])
    world.group("L", "a@shop.example")
    connect(world, audience="old")
    sync(world)
    world.source.join("L", "x", "x@shop.example")
    world.sink.script.faults.append(("add", "before", AudienceError("Refused.")))
    outcome = sync(world)
    assert (outcome.state, outcome.failed, outcome.message) == ("attention", 1, "Refused.")
    del world.source.lists["L"].members["x"]
    sync(world, full=True)
    assert sha("x@shop.example") in held(world)


def test_a_call_is_tried_again_as_the_side_asks(world: World) -> None:
    """Waits grow, are never shorter than asked, and end; what was done by then is kept."""
    world.people("L", 5)
    connect(world)
    busy = AudienceError("Busy.", retry_after_s=3)
    world.source.script.faults.extend([("page", "before", busy)] * 3)
    assert sync(world).state == "ok"
    assert world.slept == [3, 3, 3]
    world.slept.clear()
    world.clock.advance(3600)
    world.source.join("L", "x", "x@shop.example")
    world.sink.script.faults.extend([("add", "before", AudienceError("Busy.", retry_after_s=0))] * 5)
    outcome = sync(world)
    assert (outcome.state, outcome.message, outcome.failed) == ("waiting", "Busy.", 1)
    assert world.slept == [0.5, 1, 2, 4]
    assert sync(world).added == 1


def test_a_long_wait_puts_the_pass_off(world: World) -> None:
    """A side that asks for an hour is asked again in an hour, not waited for."""
    world.people("L", 2)
    connect(world)
    world.source.script.faults.append(("page", "before", AudienceError("Limit.", retry_after_s=3600)))
    assert sync(world).state == "waiting"
    assert status(world).next_at == world.clock() + 3600
    assert world.slept == []


def test_a_plugin_that_breaks_needs_attention(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Any exception of a plugin ends the pass, not the engine, and its text is not shown."""
    world.people("L", 2)
    connect(world)
    world.source.script.faults.append(("page", "before", KeyError("secret@shop.example")))
    outcome = sync(world)
    assert outcome.state == "attention"
    assert "KeyError" in outcome.message
    assert "secret" not in outcome.message
    assert sync(world).state == "ok"


def test_a_side_that_is_no_longer_configured_needs_attention(world: World) -> None:
    """The message names the table that is missing."""
    world.people("L", 2)
    connect(world)
    world.engine._sides._sources = {}
    outcome = sync(world)
    assert outcome.state == "attention"
    assert "[audience_sources.memory]" in outcome.message


def test_one_pass_at_a_time(world: World) -> None:
    """A second order for a running connection is refused, and an order for all leaves it out."""
    world.people("L", 2)
    connect(world)

    async def scenario(engine: Audiences) -> None:
        entered, release = asyncio.Event(), asyncio.Event()

        async def barred(hashes: object) -> set[str]:
            entered.set()
            await release.wait()
            return set()

        engine._sides.barred = barred
        first = asyncio.create_task(engine.sync(1))
        await entered.wait()
        (one,) = await engine.connections()
        assert one.state == "running"
        with pytest.raises(AudienceError, match="Connection 1 is being synced"):
            await engine.sync(1)
        with pytest.raises(AudienceError, match="Connection 1 is being synced"):
            await engine.disconnect(1)
        assert await engine.sync() == []
        release.set()
        assert (await first)[0].added == 2

    world.run(scenario)


def test_quick_passes_read_only_who_joined_lately(world: World) -> None:
    """A list that was imported at once is not read again by every quick pass, and the overlap is."""
    world.people("L", 9)
    connect(world)
    world.clock.advance(5000)
    assert sync(world).read == 9
    assert sync(world).read == 0
    world.clock.advance(-600)  # joined before the last pass, shown only now
    world.source.join("L", "late", "late@shop.example")
    world.clock.advance(600)
    outcome = sync(world)
    assert (outcome.kind, outcome.read, outcome.added) == ("quick", 1, 1)
    world.clock.advance(1000)
    sync(world)
    assert sync(world).read == 0


def test_a_source_that_does_not_tell_who_joined_is_read_whole(world: World) -> None:
    """An order reads it whole; the schedule does so only when a full pass is due."""
    world.source.tells_who_joined = False  # type: ignore[misc]
    world.people("L", 4)
    connect(world)
    assert [sync(world).kind, sync(world).kind] == ["full", "full"]


def test_progress_is_told(world: World) -> None:
    """Each phase says how far it is, and of how many."""
    world.people("L", 6)
    connect(world)
    told: list[Progress] = []
    world.run(lambda engine: engine.sync(1, progress=told.append))
    assert [(each.phase, each.done, each.total) for each in told] == [
        ("scan", 3, 6), ("scan", 6, 6), ("compare", 0, None), ("add", 4, 6), ("add", 6, 6),
    ]  # fmt: skip


def test_disconnecting_keeps_or_removes(world: World) -> None:
    """keep: the audience stays as it is; else what was added leaves, and only that; then both are free again."""
    world.sink.existing("old", "Old", ["before@shop.example"])
    emails = world.people("L", 6)
    connect(world, audience="old")
    sync(world)
    world.run(lambda engine: engine.disconnect(1, keep=True))
    assert held(world) == {sha("before@shop.example"), *map(sha, emails)}
    assert world.run(lambda engine: engine.connections()) == []
    second = connect(world, audience="old").id
    sync(world, second)
    world.sink.script.faults.append(("", "before", AudienceError("Closed.")))
    with pytest.raises(AudienceError, match="Closed"):
        world.run(lambda engine: engine.disconnect(second, keep=False))
    assert status(world).state == "leaving"
    world.sink.script.faults.append(("remove", "after", Kill()))
    with pytest.raises(Kill):
        world.run(lambda engine: engine.disconnect(second, keep=False))
    world.die()
    world.run(lambda engine: engine.disconnect(second, keep=False))
    assert held(world) == {sha("before@shop.example")}
    assert world.run(
        lambda engine: engine._store.do(lambda db: db.execute("SELECT count(*) FROM person").fetchone())
    ) == (0,)


def test_the_schedule_runs_what_is_due(world: World) -> None:
    """New connections at once, quick passes between full ones, a leaving connection to its end."""
    world.people("L", 5)
    world.group("M", "m@shop.example")
    connect(world)
    connect(world, "M")
    stop = asyncio.Event()

    def hook(call: str) -> None:
        if world.clock() > began + 3 * 3600:
            stop.set()

    began = world.clock()
    world.source.script.hook = hook

    async def scenario(engine: Audiences) -> None:
        await engine._store.update(2, leaving=2)
        await asyncio.wait_for(engine.run(stop), 60)

    world.settings = Settings(quick_every_s=600, full_every_s=3600)
    world.die()
    world.run(scenario)
    one = status(world)
    passes = sum(by for what, number, by in world.metered if (what, number) == ("passes", 1))
    assert one.id == 1
    assert one.last_full_at is not None
    assert one.last_full_at > began + 3600
    assert 16 <= passes <= 18
    assert world.sink.script.calls.count("create_feed") == 1


def test_a_lookalike_is_made_of_the_audience(world: World) -> None:
    """Percent and country are checked; the audience must exist."""
    world.people("L", 5)
    connect(world)
    with pytest.raises(AudienceError, match="not created yet"):
        world.run(lambda engine: engine.create_lookalike(1, "Like", "US", 5))
    sync(world)
    made = world.run(lambda engine: engine.create_lookalike(1, "Like", "us", 5))
    assert made.name == "Like audience1 US 5"
    for country, percent in (("US", 0), ("US", 11), ("U5", 1), ("USA", 1)):
        with pytest.raises(AudienceError, match="must be"):
            world.run(lambda engine: engine.create_lookalike(1, "Like", country, percent))  # noqa: B023


def test_no_address_reaches_disk_or_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Canary: addresses, also as a source's own ids, in good passes, bad ones and plugin failures."""
    canary = Canary()
    caplog.set_level(logging.DEBUG)
    world.group("L", *(canary.mail(f"member {each}") for each in range(6)))
    by_address = canary.mail("profile id")
    world.source.join("L", by_address, by_address)
    world.source.join("L", "odd", canary.word("invalid"))
    world.source.change("L", "p0", canary.mail("suppressed"), "suppressed")
    connect(world)
    world.source.script.faults.append(("page", "after", KeyError(canary.mail("exception"))))
    sync(world)
    sync(world)
    world.source.lists["L"].members.pop("p1")
    sync(world, full=True)
    assert len(held(world)) == 5
    found = canary.find(
        "log", "\n".join(f"{each.getMessage()} {vars(each)}" for each in caplog.records if not each.exc_info).encode()
    )
    for path in world.path.parent.iterdir():
        found += canary.find(path.name, path.read_bytes())
    world.close()
    for path in world.path.parent.iterdir():
        found += canary.find(path.name, path.read_bytes())
    assert found == []
    assert world.path.stat().st_mode & 0o777 == 0o600


_CHILD = """
import asyncio, sys, time
from pathlib import Path
from tests.harness.audiences import World
world = World(Path(sys.argv[1]))
world.people("L", 400)
def hook(call):
    print(call, flush=True)
    time.sleep(0.002)
world.source.script.hook = world.sink.script.hook = hook
async def main(engine):
    if not await engine.connections():
        await engine.connect("memory", "list", "L", "memory", create="New")
    # the sink's memory does not outlive a kill: what it was told is printed, and read by the test
    apply, create = world.sink.apply, world.sink.create_feed
    async def told(account, feed, operation, hashes):
        world.sink.feeds.setdefault(feed, set())
        await apply(account, feed, operation, hashes)
        print("told", operation, *hashes, flush=True)
    async def made(account, name, hashes):
        feed = await create(account, name, hashes)
        print("told", "add", *hashes, flush=True)
        return feed
    world.sink.apply, world.sink.create_feed = told, made
    outcome = (await engine.sync(1, full=True))[0]
    print("ended", outcome.state, flush=True)
world.run(main)
"""


def test_sigkill_costs_nothing(tmp_path: Path) -> None:
    """A real process is killed over and over, in scan and in chunks; in the end the sink was told everybody."""
    told: set[str] = set()
    deaths = {40: 0, 90: 0, 150: 0}
    for lines in (*deaths, None):
        # several lines in, then SIGKILL; the last run ends by itself
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONPATH": "."},
        ) as child:
            assert child.stdout is not None
            ended = False
            for number, line in enumerate(child.stdout):
                words = line.split()
                if words[:2] == ["told", "add"]:
                    told.update(words[2:])
                ended = ended or words[0] == "ended"
                if number == lines:
                    child.send_signal(signal.SIGKILL)
            child.wait()
        assert ended is (lines is None)
    assert told == {sha(f"n{each}@shop.example") for each in range(400)}
