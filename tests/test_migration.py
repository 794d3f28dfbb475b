"""An upgrade of the store: killed at each step it loses nothing, a copy is made, a newer store is refused."""

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.errors import StoreError, StoreTooNew
from gateway.event import SealedEvent
from gateway.outbox import Lane, Mark, Settlement, Unit, schema
from gateway.outbox.sqlite import SqliteOutbox
from tests.harness.failpoints import EXIT_CODE
from tests.harness.processes import ROOT, say

SOAK = os.environ.get("GATEWAY_SOAK") == "1"
ROWS = int(os.environ.get("GATEWAY_ROWS", "100000" if SOAK else "600"))
POINTS = ("migrate.copy", "migrate.copied", "migrate", "migrated")
REPEATS = 20 if SOAK else 1
LANE = Lane(destination="pinterest", kind="live")
#: Version 1, as it was first released: what was added later is not here.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE lane (id INTEGER PRIMARY KEY, destination TEXT NOT NULL, kind TEXT NOT NULL, UNIQUE (destination, kind));
CREATE TABLE unit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, state INTEGER NOT NULL, event_time INTEGER NOT NULL,
    due REAL NOT NULL, accepted_at REAL NOT NULL, attempts INTEGER NOT NULL, twice INTEGER NOT NULL, ended_at REAL,
    reason TEXT, marks BLOB NOT NULL, subjects BLOB NOT NULL, event BLOB NOT NULL
);
CREATE INDEX unit_waiting ON unit (lane, event_time, due) WHERE state = 0;
CREATE INDEX unit_ended ON unit (ended_at) WHERE state <> 0;
CREATE TABLE mark (
    digest BLOB PRIMARY KEY, unit INTEGER NOT NULL, expires INTEGER NOT NULL, event_id TEXT
) WITHOUT ROWID;
CREATE TABLE lease (token TEXT PRIMARY KEY, units BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE erased (subject BLOB PRIMARY KEY, before REAL NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
"""
TABLES = {
    "meta": "name, value", "lane": "id, destination, kind", "lease": "token, units",
    "mark": "digest, unit, expires, event_id", "erased": "subject, before, expires",
    "unit": "id, lane, state, event_time, due, accepted_at, attempts, twice, ended_at, reason, marks, subjects, event",
}  # fmt: skip
#: What a migration must not touch: everything, apart from what a store keeps of itself.
KEPT = {table: columns for table, columns in TABLES.items() if table != "meta"}


def units(outbox: SqliteOutbox, rows: int) -> list[Unit]:
    """Return sound units, each with two marks."""
    now = time.time()
    return [
        Unit(
            lane=LANE,
            event=SealedEvent(
                event_id=f"e{number}", event_name="checkout", event_time=int(now), accepted_at=now, source="api",
                site="shop", born="server",
            ),
            marks=tuple(
                Mark(digest=outbox.digest(kind, str(number)), lifetime_s=1_000_000, business=kind == "key")
                for kind in ("id", "key")
            ),
            subjects=(outbox.digest("subject", str(number)),),
        )
        for number in range(rows)
    ]  # fmt: skip


async def fill(path: Path, rows: int) -> None:
    """Make a store of today with a third of the units delivered, a third dead and a third queued, some leased."""
    outbox = SqliteOutbox(path, linger_s=0.0)
    wanted = units(outbox, rows)
    for start in range(0, rows, 5_000):
        await outbox.admit(wanted[start : start + 5_000])
    for end in ("delivered", "dead"):
        left = rows // 3
        while left:
            lease = await outbox.claim(LANE, min(left, 5_000), time.time())
            assert lease is not None
            await outbox.settle(lease, [Settlement(unit=one.unit, end=end, reason="r") for one in lease.units])
            left -= len(lease.units)
    await outbox.erase([outbox.digest("nobody")], requested_at=time.time())
    await outbox.claim(LANE, 7, time.time())
    await outbox.close()


def old_store(path: Path, rows: int = ROWS) -> None:
    """Make a store of version 1 that holds what today's code writes."""
    today = path.with_name("today.db")
    asyncio.run(fill(today, rows))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.execute("ATTACH ? AS today", (str(today),))
    connection.execute("BEGIN")
    for table, columns in TABLES.items():
        connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM today.{table}")
    connection.execute("DELETE FROM meta WHERE name <> 'digest_key'")
    connection.execute("COMMIT")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row that a migration must keep."""
    connection = sqlite3.connect(path)
    try:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in KEPT.items()
        }
    finally:
        connection.close()


def version(path: Path) -> int:
    """Return the format of a store."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def upgrade(path: Path, point: str | None = None) -> int:
    """Open a store in a process of its own, and end there; returns the exit code."""
    code = (
        "import sys; from pathlib import Path; from tests.harness import failpoints; failpoints.from_environment();"
        "from gateway.outbox import schema; schema.connect(Path(sys.argv[1])).close()"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_FAILPOINT": f"{point}:exit:1" if point else ""}
    return subprocess.run([sys.executable, "-c", code, str(path)], env=environ, check=False, timeout=120).returncode


def lost(path: Path, before: dict[str, list[tuple[object, ...]]]) -> list[str]:
    """Return the tables in which something is missing or different."""
    after = content(path)
    return [table for table in KEPT if after[table] != before[table]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of version 1, once."""
    path = tmp_path_factory.mktemp("made") / "gateway.db"
    old_store(path)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """Copy the store of version 1 for one test."""
    path = tmp_path / "gateway.db"
    shutil.copy(made, path)
    assert version(path) == 1
    return path


def test_an_upgrade_that_is_killed_at_each_step(store: Path) -> None:
    """After each kill, and after the last start, everything is there: queued, dead, leases, marks, erasures."""
    before = content(store)
    assert {table: bool(rows) for table, rows in before.items()} == dict.fromkeys(KEPT, True)
    rng = random.Random(7)
    plan: Sequence[str] = [point for _ in range(REPEATS) for point in rng.sample(POINTS[:-1], 3)] + [POINTS[-1]]
    for point in plan:
        assert upgrade(store, point) == EXIT_CODE, point
        assert lost(store, before) == [], point
    assert upgrade(store) == 0
    assert version(store) == schema.VERSION
    copy = store.with_name(f"{store.name}.before-{schema.VERSION}")
    assert version(copy) == 1
    assert lost(copy, before) == []


def test_an_upgraded_store_works(store: Path) -> None:
    """After the upgrade the leases of the old process are attempts, marks still suppress, and dead letters replay."""
    waiting = ROWS - 2 * (ROWS // 3)

    async def main() -> None:
        started = time.monotonic()
        outbox = SqliteOutbox(store, linger_s=0.0)
        say(f"upgrade of {ROWS} units: {time.monotonic() - started:.2f} s")
        try:
            assert (outbox.recovered, outbox.waiting(LANE)) == (7, waiting)
            again = await outbox.admit(units(outbox, ROWS))
            assert {one.fate for one in again} <= {"duplicate", "merged"}
            assert outbox.waiting(LANE) == waiting + ROWS // 3, "a copy brings a dead one back, and nothing else"
        finally:
            await outbox.close()

    asyncio.run(main())


def test_a_newer_store_is_refused(store: Path) -> None:
    """A store of a newer program is refused with the remedy, and stays as it is."""
    connection = sqlite3.connect(store)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    before = content(store)
    with pytest.raises(StoreTooNew, match="newer version"):
        SqliteOutbox(store)
    assert (version(store), lost(store, before)) == (schema.VERSION + 1, [])


def test_a_failing_step_leaves_the_store_as_it_was(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails takes back what it did; the next start tries again."""
    before = content(store)
    steps = schema.MIGRATIONS

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM unit")
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(schema, "MIGRATIONS", (broken, *steps[1:]))
    with pytest.raises(StoreError):
        SqliteOutbox(store)
    assert (version(store), lost(store, before)) == (1, [])
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    assert upgrade(store) == 0
    assert lost(store, before) == []


@pytest.mark.parametrize("table", ["unit", "mark", "erased"])
def test_the_check_finds_a_step_that_loses_rows(store: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """The control: a planted step that forgets rows is found, by the table that they were in."""
    before = content(store)
    step = schema.MIGRATIONS[0]

    def forgetful(connection: sqlite3.Connection) -> None:
        step(connection)
        connection.execute(f"DELETE FROM {table}")

    monkeypatch.setattr(schema, "MIGRATIONS", (forgetful, *schema.MIGRATIONS[1:]))
    schema.connect(store).close()
    assert lost(store, before) == [table]
