"""A damaged store is never used in silence: it is moved aside and told of, and what can be read comes back."""

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import StoreError, Unavailable
from gateway.outbox import DeadFilter, Mark, Memorandum, Remembered, Salvaged, Settlement, Unit, damage, opening
from gateway.outbox.sqlite import SqliteOutbox
from gateway.steady import boot_id
from tests.harness.processes import SECRET, Pair, plain_config, until
from tests.test_outbox import LANE, NOW, Clock, claim, event, one, settle_all, unit

SEED = 20_261_122
WAITING, DELIVERED = 80, 30
Spoil = Callable[[Path], None]


def folded(path: Path) -> Path:
    """Copy the log back into the file, as an operator's own program would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return path


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def copied(source: Path, folder: Path) -> Path:
    """Copy a store as a killed process leaves it: file, log, shared memory, state."""
    folder.mkdir()
    for suffix in ("", "-wal", "-shm", ".state"):
        found = source.with_name(source.name + suffix)
        if found.exists():
            shutil.copyfile(found, folder / found.name)
    return folder / source.name


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store as kill -9 leaves it: half of it in the file, half in the log; two events under way, one dead."""
    path = tmp_path_factory.mktemp("live") / "store.db"
    target = tmp_path_factory.mktemp("killed") / "at"

    async def main() -> Path:
        clock = Clock()
        outbox = SqliteOutbox(path, clock=clock, linger_s=0.0)
        await outbox.admit([unit(outbox, event(f"old-{n}"), f"order:{n}") for n in range(DELIVERED)])
        await settle_all(outbox, await claim(outbox, clock))
        outbox_units = [unit(outbox, event(f"e-{n}", search_string="x" * 500)) for n in range(WAITING)]
        await outbox.admit(outbox_units[:40])
        await outbox._writer.run(lambda: (None, None))
        await asyncio.to_thread(_checkpoint, outbox)
        for start in range(40, WAITING, 4):
            await outbox.admit(outbox_units[start : start + 4])
        lease = await claim(outbox, clock, limit=3)
        await outbox.settle(lease, [Settlement(unit=lease.units[0].unit, end="dead", reason="refused")])
        await claim(outbox, clock, limit=2)
        record = Remembered((outbox.digest("s", "ada"),))
        record.expires, record.clicks, record.click_at = int(NOW + 86_400), {"pinterest": "c"}, NOW
        await outbox.admit([], memories=[Memorandum(outbox.digest("m", "1"), record, NOW)])
        await outbox.erase([outbox.digest("s", "gone")], requested_at=NOW)
        found = copied(path, target)
        await outbox.close()
        return found

    def _checkpoint(outbox: SqliteOutbox) -> None:
        outbox._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    return asyncio.run(main())


EXPECTED = {f"e-{n}" for n in range(WAITING)}


def events_in(outbox: SqliteOutbox) -> set[str]:
    """Return the ids of all events that wait or are dead, each read and decoded."""

    async def main() -> set[str]:
        found = {letter.event.event_id for letter in await outbox.dead(DeadFilter(), limit=1000)}
        now = outbox.steady.now()
        while (lease := await outbox.claim(LANE, 1000, now)) is not None:
            found |= {claimed.event.event_id for claimed in lease.units}
            assert all(claimed.event.search_string == "x" * 500 for claimed in lease.units)
        return found

    return asyncio.run(main())


def opened(path: Path) -> SqliteOutbox:
    return SqliteOutbox(path, clock=Clock(), linger_s=0.0)


def salvage(outbox: SqliteOutbox, **more: Any) -> Salvaged:
    """Salvage the one file that was moved aside."""
    return asyncio.run(outbox.salvage(aside_of(outbox), **more))


def aside_of(outbox: SqliteOutbox) -> Path:
    """Return the name of the one store that was moved aside."""
    return Path(min((one.name for one in outbox.folder.glob("store.db.corrupt-*")), key=len))


def test_a_killed_store_is_sound(killed: Path, tmp_path: Path) -> None:
    """What kill -9 leaves is checked and used as it is: every event is there, nothing is moved aside."""
    outbox = opened(copied(killed, tmp_path / "at"))
    try:
        assert (outbox.damaged, outbox.recovered) == ([], 2)
        assert events_in(outbox) == EXPECTED
    finally:
        asyncio.run(outbox.close())


def flip(path: Path, rng: random.Random, start: int = 0, size: int = 1) -> None:
    """Change some bytes at a random place from ``start`` on."""
    with path.open("r+b") as file:
        at = rng.randrange(start, path.stat().st_size - size)
        file.seek(at)
        old = file.read(size)
        file.seek(at)
        file.write(bytes(byte ^ rng.randrange(1, 256) for byte in old))


def truncate(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(rng.randrange(0, size - 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def kinds(rng: random.Random) -> Iterator[tuple[str, Spoil]]:
    """Yield 72 ways to spoil a store."""
    for number in range(24):
        size = 1 if number % 2 else 64
        yield f"flip {size} in the file", partial(flip, rng=rng, start=100, size=size)
    for _ in range(8):
        yield "flip in the header", lambda path: flip_header(path, rng)
    for _ in range(16):
        yield "flip in the log", lambda path: flip(wal(path), rng, 32)
    for _ in range(4):
        yield "flip in the log's header", lambda path: flip_at(wal(path), rng.randrange(0, 32), rng)
    for _ in range(6):
        yield "flip in the shared memory", lambda path: flip(path.with_name(path.name + "-shm"), rng)
    for _ in range(6):
        yield "file truncated", lambda path: truncate(path, rng)
    for _ in range(6):
        yield "log truncated", lambda path: truncate(wal(path), rng)
    yield "file empty", empty
    yield "log empty", lambda path: empty(wal(path))


def flip_at(path: Path, at: int, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (old,) = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ rng.randrange(1, 256)]))


def flip_header(path: Path, rng: random.Random) -> None:
    flip_at(path, rng.randrange(0, 100), rng)


def test_no_damage_passes_in_silence(killed: Path, tmp_path: Path) -> None:
    """72 seeded ways to spoil it: every event is still there, or the file is moved aside, told of, and salvaged."""
    rng = random.Random(SEED)
    moved = recovered = 0
    for number, (what, spoil) in enumerate(kinds(rng)):
        path = copied(killed, tmp_path / str(number))
        if what.endswith(("in the file", "in the header")) and number % 4:
            folded(path)  # else what the log has of a page hides the damage
        spoil(path)
        outbox = opened(path)
        try:
            if outbox.damaged:
                moved += 1
                found = Salvaged()
                with contextlib.suppress(StoreError):  # nothing at all can be read
                    found = salvage(outbox)
                    assert outbox.damaged == []
                again = events_in(outbox)
                assert again <= EXPECTED, what
                assert len(again) == found.queued + found.dead, what
                recovered += len(again)
            else:
                assert events_in(outbox) == EXPECTED, f"{number} {what} (seed {SEED})"
        finally:
            asyncio.run(outbox.close())
    assert moved >= 30
    assert recovered / (moved * WAITING) > 0.5, f"{recovered} of {moved} x {WAITING}"


def test_the_check_has_teeth(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without the check, a damaged log costs events that nobody hears of."""
    monkeypatch.setattr(opening, "_examine", lambda _path: (False, None))
    path = copied(killed, tmp_path / "at")
    flip_at(wal(path), wal(path).stat().st_size // 2, random.Random(SEED))
    outbox = opened(path)
    try:
        assert outbox.damaged == []
        assert events_in(outbox) < EXPECTED
    finally:
        asyncio.run(outbox.close())


def spoiled(killed: Path, folder: Path) -> SqliteOutbox:
    """Open a store whose tables are whole but whose header is gone: everything can be salvaged."""
    path = folded(copied(killed, folder))
    with path.open("r+b") as file:
        file.write(b"\xff" * 16)
    outbox = opened(path)
    assert "not a database" in outbox.damaged[0]
    return outbox


def test_salvage_brings_everything_that_can_be_read(killed: Path, tmp_path: Path) -> None:
    """Erasures, events, keys of delivered ones and memories come back; a second run adds nothing; FILE stays."""

    async def main() -> None:
        aside = outbox.folder / aside_of(outbox)
        before = aside.read_bytes()
        meanwhile = await one(outbox, unit(outbox, event("e-5", search_string="x" * 500)))
        assert meanwhile.fate == "accepted", "a copy came again before the salvage"
        found = await outbox.salvage(Path(aside.name))
        assert (found.read, found.queued, found.dead, found.duplicates) == (WAITING, WAITING - 2, 1, 1)
        assert (found.erasures, found.memories, found.unreadable, found.is_comparable) == (1, 1, 0, True)
        assert (await one(outbox, unit(outbox, event("e-9")))).fate == "duplicate"
        again = await one(outbox, unit(outbox, event("other"), "order:7"))
        assert (again.fate, again.of) == ("duplicate", "old-7"), "delivered before the damage"
        gone = Unit(lane=LANE, event=event("late", time=NOW - 5), subjects=(outbox.digest("s", "gone"),))
        assert (await one(outbox, gone)).reason == "erased"
        assert await outbox.recall([outbox.digest("m", "1")]) != {}
        second = await outbox.salvage(aside)
        assert (second.queued, second.dead, second.duplicates) == (0, 0, WAITING)
        assert aside.read_bytes() == before
        lane = (await outbox.counts()).lanes[0]
        assert (lane.waiting, lane.dead) == (WAITING - 1, 1)

    outbox = spoiled(killed, tmp_path / "at")
    try:
        asyncio.run(main())
        assert events_in(outbox) == EXPECTED
    finally:
        asyncio.run(outbox.close())


def test_keyless_events_are_salvaged_once(tmp_path: Path) -> None:
    """An event without a key is not doubled by a second salvage, and the units under way count as attempted."""

    async def main() -> None:
        clock = Clock()
        first = SqliteOutbox(tmp_path / "first.db", clock=clock, linger_s=0.0)
        await first.admit([Unit(lane=LANE, event=event("k"))])
        await claim(first, clock)
        copied(first.path, tmp_path / "at")
        await first.close()
        second = SqliteOutbox(tmp_path / "second.db", clock=clock, linger_s=0.0)
        assert (await second.salvage(tmp_path / "at" / "first.db")).queued == 1
        assert (await second.salvage(tmp_path / "at" / "first.db")).duplicates == 1
        (held,) = (await claim(second, clock)).units
        assert (held.event.event_id, held.attempts, held.maybe_twice) == ("k", 1, True)
        await second.close()

    asyncio.run(main())


def test_a_key_of_a_lost_event_does_not_stand_in_the_way(killed: Path, tmp_path: Path) -> None:
    """An event that could not be read is accepted when it comes again: its key is not brought."""
    path = copied(killed, tmp_path / "at")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE unit SET event = CAST(x'02' || substr(event, 2, 40) AS BLOB) WHERE id = ?", (DELIVERED + 6,)
        )
        connection.commit()

    async def main() -> None:
        found = await outbox.salvage(aside_of(outbox))
        assert (found.queued + found.dead, found.unreadable) == (WAITING - 1, 1)
        assert (await one(outbox, unit(outbox, event("e-5")))).fate == "accepted"
        assert (await one(outbox, unit(outbox, event("e-6")))).fate == "duplicate"

    outbox = opened(path)
    try:
        assert "not what was written" in outbox.damaged[0]
        asyncio.run(main())
    finally:
        asyncio.run(outbox.close())


def test_the_operator_hears_of_it_until_it_is_settled(killed: Path, tmp_path: Path) -> None:
    """It is told again at each start, until it was salvaged or acknowledged; what was moved is still there."""
    outbox = spoiled(killed, tmp_path / "at")
    asyncio.run(outbox.close())
    outbox = opened(outbox.path)
    assert len(outbox.damaged) == 1
    assert salvage(outbox, acknowledge=True) == Salvaged()
    assert outbox.damaged == []
    asyncio.run(outbox.close())
    outbox = opened(outbox.path)
    assert outbox.damaged == []
    assert outbox.waiting(LANE) == 0
    assert len(list(outbox.folder.glob("store.db.corrupt-*"))) == 1
    asyncio.run(outbox.close())


def test_only_a_clean_stop_spares_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clean stop nothing is read again; after a kill, a change from outside, or a suspicion it is."""
    looks: list[bool] = []

    def examine(path: Path, *, thorough: bool) -> str | None:
        looks.append(thorough)
        return None

    monkeypatch.setattr(damage, "examine", examine)
    path = tmp_path / "store.db"

    def reopen() -> list[bool]:
        looks.clear()
        asyncio.run(opened(path).close())
        return looks.copy()

    assert reopen() == [True]
    assert reopen() == []
    damage.write_state(path, "none")
    assert reopen() == [True]
    path.write_bytes(path.read_bytes())
    assert reopen() == [True]
    monkeypatch.setattr(damage, "THOROUGH_BYTES", 0)
    damage.write_state(path, "none")
    assert reopen() == [False]
    damage.write_state(path, "suspect")
    assert reopen() == [True]


def test_a_large_store_is_checked_beside(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit it starts first; what the check finds then stops it, and the next start looks at everything."""
    monkeypatch.setattr(damage, "AT_START_BYTES", 0)
    path = copied(killed, tmp_path / "at")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE unit SET event = CAST(x'02' || substr(event, 2, 40) AS BLOB) WHERE id = ?", (DELIVERED + 6,)
        )
        connection.commit()

    async def main() -> None:
        outbox = opened(path)
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(told.set)

        outbox.on_failure = tell
        if outbox.failure is None:
            await asyncio.wait_for(told.wait(), 10)
        assert "not what was written" in str(outbox.failure)
        await outbox.close()

    asyncio.run(main())
    outbox = opened(path)
    assert len(outbox.damaged) == 1
    asyncio.run(outbox.close())


@pytest.mark.parametrize(
    ("text", "code"),
    [("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC), ("database disk image is malformed", sqlite3.SQLITE_CORRUPT)],
)
def test_a_failed_commit_is_the_last_one(tmp_path: Path, text: str, code: int) -> None:
    """After a failed sync, or damage found in use, nothing is written any more, and the process is told to end."""

    class Failing:
        """The connection, with a commit that fails once."""

        def __init__(self, inner: sqlite3.Connection) -> None:
            self.inner, self.commits, self.is_failing = inner, 0, True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                self.commits += 1
                if self.is_failing:
                    error = sqlite3.OperationalError(text)
                    error.sqlite_errorcode = code
                    self.is_failing = False
                    raise error
            return self.inner.execute(statement, *values)

    async def main() -> None:
        outbox = opened(tmp_path / "store.db")
        told: list[bool] = []
        outbox.on_failure = lambda: told.append(True)
        await one(outbox, unit(outbox, event("before")))
        failing = Failing(outbox._connection)
        outbox._writer._connection = failing  # type: ignore[assignment]
        for number in range(3):
            with pytest.raises(Unavailable) as caught:
                await one(outbox, unit(outbox, event(f"during-{number}")))
            assert caught.value.reason == "store_failed"
        with pytest.raises(Unavailable):
            await claim(outbox, Clock())
        assert (failing.commits, told) == (1, [True]), "the commit is not tried again"
        assert text in str(outbox.trouble)
        await outbox.close()
        state = damage.read_state(outbox.path)
        assert state is not None
        assert state.stop == "suspect"

    asyncio.run(main())
    outbox = opened(tmp_path / "store.db")
    assert (outbox.waiting(LANE), outbox.damaged) == (1, [])
    asyncio.run(outbox.close())


def test_the_state_of_another_boot_says_nothing_of_the_log(killed: Path, tmp_path: Path) -> None:
    """Shared memory is never synced: after a power cut it may be of an older log, and must not raise an alarm."""
    path = copied(killed, tmp_path / "at")
    wal(path).write_bytes(b"")
    state = json.loads(damage.state_path(path).read_bytes())
    assert state["boot"] == boot_id()
    damage.state_path(path).write_text(json.dumps({**state, "boot": "another"}))
    assert damage.examine(path, thorough=True) is None


def test_damage_in_use_ends_the_process_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """Pages overwritten under a running gateway: 503, a loud line, exit 3; the next start moves it aside and serves."""
    with Pair(tmp_path, plain_config()) as pair:
        gateway = pair.gateway
        url = f"http://127.0.0.1:{gateway.port}/in/api"
        head = {"Authorization": f"Bearer {SECRET}"}

        def post(number: int) -> int:
            body = {"event_name": "checkout", "event_id": f"d-{number}", "user": {"email": "a@example.com"}}
            try:
                return httpx.post(url, json=body, headers=head, timeout=10.0).status_code
            except httpx.TransportError:
                return 0

        pair.sandbox.stand(kind="status", status=503)
        assert [post(number) for number in range(40)] == [200] * 40
        gateway.api("POST", "/api/backup", {"path": str(tmp_path / "copy.db")})
        wal_path = wal(gateway.store)
        for target in (gateway.store, wal_path):
            size = target.stat().st_size
            with target.open("r+b") as file:
                file.seek(100)
                file.write(b"\xa5" * (size - 100))
        with contextlib.suppress(httpx.TransportError):  # a look at the file itself: the writer has it in its cache
            gateway.api("GET", "/api/status")
        until(gateway.has_ended, 20, "the process ends")
        assert gateway.wait(20) == 3
        assert '"event":"store_failed"' in gateway.log.read_text()
        gateway.start()
        assert '"event":"store_damaged"' in gateway.log.read_text()
        assert post(5_000) == 200
        status = gateway.status()
        assert len(status["degraded"]) == 1
        assert {"reason": "store_damaged", "source": "-", "count": 1} in status["alarms"]
        aside = min((one.name for one in tmp_path.glob("gateway.db.corrupt-*")), key=len)
        gateway.api("POST", "/api/salvage", {"path": aside, "acknowledge": True})
        assert gateway.status()["degraded"] == []
        assert gateway.command("salvage", str(tmp_path / "copy.db"), "--json")["queued"] == 40


def test_marks_use_the_same_key_after_damage(killed: Path, tmp_path: Path) -> None:
    """The digest key is carried over by its pattern in the file, whatever else is gone."""
    with closing(sqlite3.connect(killed)) as connection:
        (key,) = connection.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    outbox = spoiled(killed, tmp_path / "at")
    assert outbox._key == key
    assert Mark(digest=outbox.digest("a"), lifetime_s=1).digest == outbox.digest("a")
    asyncio.run(outbox.close())
