"""Guards: what stops a pass before it removes anyone, and what lets it go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audience import Group
from gateway.audiences import Outcome, Settings, guards
from tests.harness.audiences import Kill, World, sha


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make a list of forty, in step."""
    world = World(tmp_path)
    world.people("L", 40)
    world.run(lambda engine: engine.connect("memory", "list", "L", "memory", create="New"))
    assert sync(world).added == 40
    yield world
    world.close()


def sync(world: World, *, full: bool = False, confirm: bool = False, dry_run: bool = False) -> Outcome:
    (outcome,) = world.run(lambda engine: engine.sync(1, full=full, confirm=confirm, dry_run=dry_run))
    return outcome


def leave(world: World, number: int) -> None:
    """So many of the first leave the list."""
    for profile in sorted(world.source.lists["L"].members)[:number]:
        del world.source.lists["L"].members[profile]


def held(world: World) -> set[str]:
    return world.sink.feeds["feed1"]


def test_a_large_removal_waits_for_confirm(world: World) -> None:
    """Nine of forty are more than a fifth: adds go, removals wait, quick passes go on, confirm lets them go."""
    leave(world, 9)
    world.source.join("L", "new", "new@shop.example")
    outcome = sync(world, full=True)
    assert (outcome.state, outcome.added, outcome.to_remove, outcome.removed) == ("held", 1, 9, 0)
    assert "9 of 40" in outcome.message
    assert "--confirm" in outcome.message
    assert sha("new@shop.example") in held(world)
    world.source.join("L", "newer", "newer@shop.example")
    outcome = sync(world)
    assert (outcome.kind, outcome.state, outcome.added, outcome.removed) == ("quick", "held", 1, 0)
    outcome = sync(world, confirm=True)
    assert (outcome.kind, outcome.state, outcome.removed) == ("quick", "ok", 9)
    assert len(held(world)) == 33


def test_a_small_removal_just_happens(world: World) -> None:
    """Eight of forty are a fifth: that is allowed."""
    leave(world, 8)
    outcome = sync(world, full=True)
    assert (outcome.state, outcome.removed) == ("ok", 8)


def test_people_who_come_back_end_the_hold(world: World) -> None:
    """A held removal is no promise: when the members are there again nothing is removed."""
    gone = dict(world.source.lists["L"].members)
    leave(world, 20)
    assert sync(world, full=True).state == "held"
    world.source.lists["L"].members = gone
    outcome = sync(world, full=True)
    assert (outcome.state, outcome.to_remove, outcome.added) == ("ok", 0, 0)
    assert len(held(world)) == 40


def test_a_confirmed_removal_survives_a_kill(world: World) -> None:
    """What was confirmed goes on after a kill without a second confirm, and no further."""
    leave(world, 20)
    sync(world, full=True)
    world.sink.script.hook = lambda call: (
        world.sink.script.faults.append(("remove", "after", Kill()))
        if (world.sink.script.calls.count("remove") == 2)
        else None
    )
    with pytest.raises(Kill):
        sync(world, confirm=True)
    world.sink.script.hook = lambda _: None
    world.die()
    outcome = sync(world)
    assert (outcome.state, len(held(world))) == ("ok", 20)
    leave(world, 15)
    assert sync(world, full=True).state == "held"


def test_a_scan_that_ended_early_removes_nobody(world: World) -> None:
    """The source counts forty and tells of thirty-six: held, though four would be few enough to remove."""
    world.source.lists["L"].size = 60
    leave(world, 4)
    outcome = sync(world, full=True)
    assert (outcome.state, outcome.to_remove, outcome.removed) == ("held", 0, 0)
    assert "counts 60 members, but told of 36 only" in outcome.message
    world.source.join("L", "new", "new@shop.example")
    outcome = sync(world)
    assert (outcome.kind, outcome.state, outcome.added) == ("quick", "held", 1)
    world.source.lists["L"].size = None
    outcome = sync(world, full=True)
    assert (outcome.state, outcome.removed) == ("ok", 4)


def test_an_early_end_can_be_confirmed(world: World) -> None:
    """With confirm the last scan is believed, without reading anew."""
    world.source.lists["L"].size = 60
    leave(world, 4)
    sync(world, full=True)
    world.source.script.calls.clear()
    outcome = sync(world, confirm=True)
    assert (outcome.state, outcome.removed) == ("ok", 4)
    assert "page" not in world.source.script.calls


def test_an_empty_answer_is_never_believed(world: World) -> None:
    """Nothing where the source counts three: held, however few they are."""
    assert guards.ended_early(Settings(), Group(id="L", name="L", size=3), 0) != ""
    assert guards.ended_early(Settings(), Group(id="L", name="L", size=0), 0) == ""
    assert guards.ended_early(Settings(), Group(id="L", name="L", size=None), 0) == ""
    assert guards.ended_early(Settings(), Group(id="L", name="L", size=100), 95) == ""
    assert guards.ended_early(Settings(), Group(id="L", name="L", size=1000), 949) != ""


@pytest.mark.parametrize("state", ["processing", "inactive"])
def test_a_group_that_is_not_ready_removes_nobody(world: World, state: str) -> None:
    """Who joined goes on; the full pass is made up for as soon as the group is ready."""
    world.source.lists["L"].state = state
    leave(world, 4)
    world.source.join("L", "new", "new@shop.example")
    outcome = sync(world, full=True)
    assert (outcome.kind, outcome.state, outcome.added, outcome.removed) == ("quick", "held", 1, 0)
    assert state in outcome.message
    world.source.lists["L"].state = "ready"
    outcome = sync(world, full=True)
    assert (outcome.kind, outcome.state, outcome.removed) == ("full", "ok", 4)


def test_a_group_that_is_not_ready_can_be_confirmed(world: World) -> None:
    """An inactive segment stays as it is: the operator may say that this is right."""
    world.source.lists["L"].state = "inactive"
    leave(world, 4)
    outcome = sync(world, full=True, confirm=True)
    assert (outcome.state, outcome.removed) == ("ok", 4)


def test_a_group_that_becomes_unready_during_the_scan_removes_nobody(world: World) -> None:
    """The state is asked again after the last page."""
    leave(world, 4)

    def hook(call: str) -> None:
        if call == "page":
            world.source.lists["L"].state = "processing"

    world.source.script.hook = hook
    outcome = sync(world, full=True)
    assert (outcome.kind, outcome.state, outcome.removed) == ("full", "held", 0)
    world.source.script.hook = lambda _: None
    world.source.lists["L"].state = "ready"
    assert sync(world, full=True).removed == 4


def test_the_first_scan_of_a_group_that_is_not_ready_adds(tmp_path: Path) -> None:
    """Nobody can be lost by it: members are told at once, and the schedule's next pass reads again when it is ready."""
    world = World(tmp_path)
    world.people("L", 10)
    world.source.lists["L"].state = "processing"
    world.run(lambda engine: engine.connect("memory", "list", "L", "memory", create="New"))
    outcome = sync(world)
    assert (outcome.kind, outcome.state, outcome.added) == ("full", "held", 10)
    assert sync(world).kind == "quick"
    world.source.lists["L"].state = "ready"
    outcome = sync(world, full=True)
    assert (outcome.kind, outcome.state) == ("full", "ok")
    world.close()


def test_a_dry_run_says_what_a_guard_would_say(world: World) -> None:
    """And it lets nothing through, with or without confirm."""
    leave(world, 20)
    outcome = sync(world, full=True, dry_run=True)
    assert (outcome.state, outcome.to_remove, outcome.removed) == ("held", 20, 0)
    outcome = sync(world, full=True, dry_run=True, confirm=True)
    assert (outcome.state, outcome.to_remove, outcome.removed) == ("ok", 20, 0)
    assert sync(world).state == "held"
    assert len(held(world)) == 40


def test_the_limit_and_its_floor() -> None:
    """A fifth by default; a handful never stops, confirmed ones neither."""
    settings = Settings()
    assert guards.too_many(settings, 5, 5, 0) == ""
    assert guards.too_many(settings, 6, 29, 0) != ""
    assert guards.too_many(settings, 6, 30, 0) == ""
    assert guards.too_many(settings, 900, 1000, 900) == ""
    assert guards.too_many(settings, 901, 1000, 900) != ""
    assert guards.too_many(Settings(max_removal=1.0), 1000, 1000, 0) == ""
    assert guards.too_many(Settings(max_removal=0.0), 6, 1000, 0) != ""
