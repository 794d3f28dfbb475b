"""The store of audiences: one to one, its file, and connecting by id or name."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audience import AudienceError, Group
from gateway.audiences import Audiences, Connected, schema
from gateway.errors import StoreError, StoreLocked, StoreTooNew, Unavailable
from tests.harness.audiences import People, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.group("L1", "a@shop.example", name="Newsletter")
    world.group("L2", "b@shop.example", name="VIP")
    world.group("S1", "c@shop.example", name="VIP", kind="segment")
    world.sink.existing("9001", "Shoppers")
    world.sink.existing("9002", "Buyers", feed="shared")
    world.sink.existing("9003", "Buyers in the north", feed="shared")
    yield world
    world.close()


def connect(world: World, kind: str, group: str, audience: str | None = None, **how: object) -> Connected:
    """Connect a list or segment to an existing audience, or as ``how`` says."""
    return world.run(
        lambda engine: engine.connect("memory", kind, group, "memory", audience=audience, **how)  # type: ignore[arg-type]
    )


def refusal(world: World, kind: str, group: str, audience: str | None = None, **how: object) -> str:
    """Return why a connection is refused, having seen that nothing was kept."""
    before = world.run(lambda engine: engine.connections())
    with pytest.raises(AudienceError) as caught:
        connect(world, kind, group, audience, **how)
    assert world.run(lambda engine: engine.connections()) == before
    return str(caught.value)


def test_a_list_feeds_one_audience(world: World) -> None:
    """A second audience for the list is refused by the name of the first connection and how to end it."""
    connect(world, "list", "Newsletter", "Shoppers")
    for second in ({"audience": "Buyers"}, {"create": "New"}):
        message = refusal(world, "list", "L1", **second)
        assert 'Connection 1 (memory list "Newsletter" to memory audience "Shoppers") stands in the way' in message
        assert "tag-gateway audiences disconnect 1" in message


def test_an_audience_takes_one_list(world: World) -> None:
    """A second list for the audience is refused, also through another audience of the same feed."""
    connect(world, "list", "L1", "9002")
    for audience in ("9002", "Buyers in the north"):
        message = refusal(world, "list", "L2", audience)
        assert "Connection 1" in message
        assert "an audience takes one list or segment" in message
        assert "count as one" in message
    connect(world, "list", "L2", "9001")


def test_two_lists_do_not_create_one_audience(world: World) -> None:
    """Before the audience exists its name stands for it."""
    connect(world, "list", "L1", create="New")
    assert "Connection 1" in refusal(world, "list", "L2", create="New")


def test_the_tables_hold_one_to_one_by_themselves(world: World) -> None:
    """Whatever the code does, SQLite refuses a second row for a list or a feed."""
    connect(world, "list", "L1", "9001")
    copy = (
        'INSERT INTO connection (source, kind, "group", group_name, sink, account, feed, audience_name, remove,'
        " connected_at) SELECT source, kind, {group}, group_name, sink, account, {feed}, audience_name, remove, 0"
        " FROM connection"
    )
    for group, feed in (('"group"', "'other'"), ("'other'", "feed")):
        with pytest.raises(Unavailable, match="UNIQUE"):
            world.run(lambda engine: engine._store.do(lambda db: db.execute(copy.format(group=group, feed=feed))))  # noqa: B023


def test_names_and_ids_are_found(world: World) -> None:
    """By id, by name, by name in another case; a name that two have needs the kind or the id."""
    assert connect(world, "", "newsletter", "9001", dry_run=True).status.group == "L1"
    assert connect(world, "segment", "VIP", "9001", dry_run=True).status.group == "S1"
    assert connect(world, "", "S1", "shoppers", dry_run=True).status.audience == "9001"
    assert "list L2, segment S1" in refusal(world, "", "VIP", "9001")
    assert "no list nobody" in refusal(world, "list", "nobody", "9001")
    assert 'no list or segment "nobody"' in refusal(world, "", "nobody", "9001")
    assert "no audience nobody" in refusal(world, "list", "L1", "nobody")
    assert "existing audience (--audience) or a new one" in refusal(world, "list", "L1")
    assert "existing audience (--audience) or a new one" in refusal(world, "list", "L1", "9001", create="New")
    assert "needs a name" in refusal(world, "list", "L1", create=" ")
    assert "--audience 9001" in refusal(world, "list", "L1", create="shoppers")


def test_what_refuses_is_not_connected(world: World) -> None:
    """``refusal`` of either side ends up in the message."""
    world.sink.audiences["9001"] = Group(id="9001", name="Shoppers", kind="VISITOR", refusal="it is made by rules.")
    assert "it is made by rules" in refusal(world, "list", "L1", "9001")
    world.source.lists["L3"] = People(name="Old", refusal="it is archived.")
    assert "it is archived" in refusal(world, "list", "Old", "9002")


def test_the_account_is_chosen(world: World) -> None:
    """A single one by itself; of several the error names them; an unusable one is refused."""
    assert connect(world, "list", "L1", "9001", dry_run=True).status.account == "A1"
    world.sink.listed.append(Group(id="A2", name="Other", refusal="your role is too small."))
    assert "A1 (Shop), A2 (Other)" in refusal(world, "list", "L1", "9001")
    assert 'no account "A3"' in refusal(world, "list", "L1", "9001", account="A3")
    assert "your role is too small" in refusal(world, "list", "L1", "9001", account="Other")
    assert connect(world, "list", "L1", "9001", account="Shop").status.account == "A1"


def test_connecting_says_what_its_owner_must_know(world: World) -> None:
    """Who is in both counts as ours; a group that is not ready is named."""
    (note,) = connect(world, "list", "L1", "9001", dry_run=True).notes
    assert "--no-remove" in note
    world.source.lists["L1"].state = "processing"
    notes = connect(world, "list", "L1", create="New", remove=False).notes
    assert "Nobody is ever removed" in notes[0]
    assert "processing" in notes[1]


def test_the_file_is_locked_private_and_comes_back(world: World) -> None:
    """A second engine is refused; mode 600; what was connected is there after a restart."""
    connect(world, "list", "L1", "9001", remove=False)
    with pytest.raises(StoreLocked, match=r"audiences\.db"):
        asyncio.run(Audiences(world.path, {}, {}, world.settings, world.clock, world._barred).open())
    assert world.path.stat().st_mode & 0o777 == 0o600
    before = world.run(lambda engine: engine.connections())
    world.die()
    assert world.run(lambda engine: engine.connections()) == before
    assert before[0].state == "new"
    assert not before[0].remove


def test_a_file_of_another_kind_or_time_is_refused(tmp_path: Path) -> None:
    """A newer format, and what is no database, each with the remedy; the lock is given back."""
    path = tmp_path / "audiences.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    world = World(tmp_path)
    for kind, what in ((StoreTooNew, "format 99"), (StoreError, "restore a backup")):
        with pytest.raises(kind, match=what):
            world.run(lambda engine: engine.connections())
        for each in tmp_path.glob("audiences.db*"):
            each.unlink()
        path.write_bytes(b"not a database, " * 100)
    path.unlink()
    assert world.run(lambda engine: engine.connections()) == []
    world.close()


def test_a_migration_runs_once_and_leaves_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older file is copied, then upgraded step by step."""
    schema.connect(tmp_path / "audiences.db").close()
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", (lambda db: db.execute("CREATE TABLE more (id)"),))
    for _ in range(2):
        db = schema.connect(tmp_path / "audiences.db")
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM more").fetchone() == (0,)
        db.close()
    assert (tmp_path / "audiences.db.before-2").exists()


def test_a_closed_engine_says_so(world: World) -> None:
    """Nothing hangs and nothing is half done."""
    world.close()
    with pytest.raises(Unavailable, match="closed"):
        asyncio.run(world.engine.connections())
    with pytest.raises(AudienceError, match="no connection 7"):
        world.run(lambda engine: engine.sync(7))


def test_other_accounts_have_their_own_names(world: World) -> None:
    """The same id in another account is another audience."""
    world.sink.listed.append(Group(id="A2", name="Other"))
    connect(world, "list", "L1", "9001", account="A1")
    connect(world, "list", "L2", "9001", account="A2")
    assert [one.account for one in world.run(lambda engine: engine.connections())] == ["A1", "A2"]
