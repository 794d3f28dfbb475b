"""The store's file in other hands: held by another process, read for long, opened twice."""

import asyncio
import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError, StoreLocked, Unavailable
from gateway.outbox import upkeep, writer
from gateway.outbox.schema import connect_reader
from gateway.outbox.sqlite import SqliteOutbox
from tests.test_outbox import LANE, Clock, claim, event, one, settle_all, unit
from tests.test_serve import configured, refused, serving


def hold(path: Path) -> sqlite3.Connection:
    """Do what another process does that writes the file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_hits_are_told_in_time_while_another_holds_the_file(tmp_path: Path) -> None:
    """Each is refused within 4 s however many come, nothing piles up, and the first one after it is taken at once."""
    outbox: SqliteOutbox

    async def refusal(after_s: float) -> float:
        await asyncio.sleep(after_s)
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await one(outbox, unit(outbox, event(f"during-{after_s}")))
        assert caught.value.reason in ("store_failed", "busy", "overloaded")
        return time.monotonic() - started

    async def main() -> None:
        nonlocal outbox
        outbox = SqliteOutbox(tmp_path / "s.db", clock=Clock(), linger_s=0.0)
        await one(outbox, unit(outbox, event("before")))
        with closing(hold(outbox.path)):
            waits = await asyncio.gather(*(refusal(number * 0.2) for number in range(15)))
        assert max(waits) < 4.0, waits
        assert waits[-1] < 1.0, "who comes later is told at once"
        started = time.monotonic()
        assert (await one(outbox, unit(outbox, event("after")))).fate == "accepted"
        assert time.monotonic() - started < 1.0
        assert outbox.waiting(LANE) == 2
        assert outbox._connection.execute("PRAGMA busy_timeout").fetchone() == (writer.BUSY_MS,)
        await outbox.close()

    asyncio.run(main())


def test_an_operator_who_looks_disturbs_nobody(tmp_path: Path) -> None:
    """An open read transaction of another program holds up neither hits nor deliveries, nor checkpoints for long."""

    async def main() -> None:
        clock = Clock()
        outbox = SqliteOutbox(tmp_path / "s.db", clock=clock, linger_s=0.0)
        await one(outbox, unit(outbox, event("before")))
        with closing(connect_reader(outbox.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM unit").fetchone()
            outbox._upkeep._next_truncate = 0.0
            outbox._upkeep._next_slice = 0.0
            started = time.monotonic()
            for number in range(20):
                await one(outbox, unit(outbox, event(f"e{number}")))
                outbox._upkeep._next_truncate = outbox._upkeep._next_slice = 0.0
            await settle_all(outbox, await claim(outbox, clock))
            assert time.monotonic() - started < 1.9, "a checkpoint that waits for readers waits 2 s"
        assert outbox.waiting(LANE) == 0
        await outbox.close()

    asyncio.run(main())


def test_a_log_that_cannot_be_emptied_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that stays makes the log grow: one warning when it is large, one line when it is emptied."""
    monkeypatch.setattr(upkeep, "_HELD_BYTES", 1)
    caplog.set_level(logging.INFO, "gateway.store")

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "s.db", clock=Clock(), linger_s=0.0)
        await one(outbox, unit(outbox, event("before")))

        async def tend() -> None:
            await asyncio.to_thread(outbox._writer.close)
            outbox._upkeep.run(force=True)

        with closing(connect_reader(outbox.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM unit").fetchone()
            await one(outbox, unit(outbox, event("more")))
            await tend()
            outbox._upkeep.run(force=True)
            assert (await outbox.counts()).wal_bytes > 0
        outbox._upkeep.run(force=True)
        await outbox.close()

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["wal_held", "wal_emptied"]


def test_a_file_that_is_held_at_the_start_is_refused(tmp_path: Path) -> None:
    """Held by another program: a clear error, nothing is moved aside, and the next start works."""
    path = tmp_path / "s.db"
    asyncio.run(SqliteOutbox(path, clock=Clock()).close())
    with closing(hold(path)), pytest.raises(StoreError, match="in use"):
        SqliteOutbox(path, clock=Clock())
    asyncio.run(SqliteOutbox(path, clock=Clock()).close())
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_a_lock_file_of_a_dead_process_is_nothing(tmp_path: Path) -> None:
    """The lock is the system's, not the file: one that is left, with the number of a living process in it, is free."""
    path = tmp_path / "s.db"
    (tmp_path / "s.db.lock").write_text(str(os.getpid()))
    outbox = SqliteOutbox(path, clock=Clock())
    with pytest.raises(StoreLocked, match="in use by another process"):
        SqliteOutbox(path, clock=Clock())
    asyncio.run(outbox.close())


def test_a_second_gateway_is_refused_at_once(tmp_path: Path) -> None:
    """Exit code 3 and a clear line, also for the command line's own start-up; the first one is not disturbed."""
    config = configured(tmp_path)
    with serving(config) as (process, _):
        started = time.monotonic()
        code, message = refused(config)
        assert code == 3
        assert "in use by another process" in message
        assert time.monotonic() - started < 15, "most of it is the start of Python"
        assert process.poll() is None
    started = time.monotonic()
    held = SqliteOutbox(tmp_path / "var" / "gateway.db", clock=Clock())
    with pytest.raises(StoreLocked):
        SqliteOutbox(tmp_path / "var" / "gateway.db", clock=Clock())
    assert time.monotonic() - started < 2.0
    asyncio.run(held.close())


def test_a_network_file_system_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway starts, and the log says that locks may not hold there."""
    caplog.set_level(logging.WARNING, "gateway.store")
    monkeypatch.setattr("gateway.outbox.opening.network_file_system", lambda _folder: "nfs4")
    asyncio.run(SqliteOutbox(tmp_path / "s.db", clock=Clock()).close())
    assert [record.getMessage() for record in caplog.records] == ["network_file_system"]


def test_a_new_lane_of_a_failed_commit_is_not_known(tmp_path: Path) -> None:
    """A lane that was rolled back has no number: the next one must not get its events."""

    async def main() -> None:
        outbox = SqliteOutbox(tmp_path / "s.db", clock=Clock(), linger_s=0.0)
        outbox._connection.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON unit BEGIN SELECT RAISE(FAIL, 'no'); END")
        with pytest.raises(Unavailable):
            await one(outbox, unit(outbox, event("a")))
        assert outbox._holdings.lanes == {}
        outbox._connection.execute("DROP TRIGGER t")
        assert (await one(outbox, unit(outbox, event("a")))).fate == "accepted"
        assert outbox.waiting(LANE) == 1
        await outbox.close()

    asyncio.run(main())
