"""A disk that fills up: hits are refused before it is full, what was accepted goes out, and it recovers."""

import asyncio
import contextlib
import errno
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import Unavailable
from gateway.outbox import space
from gateway.outbox.space import Disk, Space
from gateway.outbox.sqlite import SqliteOutbox
from tests.harness.processes import SECRET, GatewayProcess, Pair, plain_config, until
from tests.test_outbox import LANE, Clock, claim, event, one, settle_all, unit

MB = 1 << 20
HEAD = {"Authorization": f"Bearer {SECRET}"}


class FakeDisk:
    """A disk of 64 MB; the ballast takes its part of what is free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free_mb = 60.0

    def __call__(self, _folder: Path) -> Disk:
        found = object.__new__(Disk)
        ballast = sum(one.stat().st_size for one in self.folder.glob("*.ballast"))
        found.free, found.total = int(self.free_mb * MB) - ballast, 64 * MB
        return found


def test_the_mark_and_the_ballast_suit_a_small_disk(tmp_path: Path) -> None:
    """Both are at most a quarter of the disk; the ballast really takes its room, and nobody else may read it."""
    watched = Space(tmp_path / "s.db", 256 * MB, 64 * MB, FakeDisk(tmp_path))
    assert watched.mark == 16 * MB
    made = tmp_path / "s.db.ballast"
    assert made.stat().st_size == 16 * MB
    assert made.stat().st_blocks * 512 >= 16 * MB, "a file with a hole is no ballast"
    assert made.stat().st_mode & 0o777 == 0o600
    assert watched.trouble is None


def test_room_falls_before_hits_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Room is 1.0 far from the mark, falls near it, is 0.0 below; each change is one line."""
    disk = FakeDisk(tmp_path)
    watched = Space(tmp_path / "s.db", 8 * MB, 4 * MB, disk)
    caplog.set_level(logging.INFO)
    seen = []
    for free_mb in (60.0, 15.0, 13.0, 12.0, 11.9, 11.0, 11.9, 12.5, 60.0):  # 4 of them are the ballast
        disk.free_mb = free_mb
        watched.look(force=True)
        seen.append((round(watched.room, 2), watched.trouble is None))
    assert seen == [
        (1.0, True), (1.0, True), (0.5, True), (0.0, True), (0.0, False), (0.0, False), (0.0, False), (0.25, True),
        (1.0, True),
    ]  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == ["disk_low", "disk_ok"]


def test_the_ballast_is_made_again_when_it_fits(tmp_path: Path) -> None:
    """Given up, hits are refused until it is back, so that they do not take the room it made."""
    disk = FakeDisk(tmp_path)
    watched = Space(tmp_path / "s.db", 0, 16 * MB, disk)
    disk.free_mb = 16.0
    assert watched.give_up()
    assert not watched.give_up()
    watched.look(force=True)
    assert "ballast" in str(watched.trouble)
    assert not watched.has_ballast
    disk.free_mb = 21.0
    watched.look(force=True)
    assert watched.trouble is None
    assert watched.has_ballast


def test_a_file_system_that_takes_no_ballast_works_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file cannot be made for another reason than room, hits are taken all the same."""

    def refuse(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(space, "_allocate", refuse)
    watched = Space(tmp_path / "s.db", 0, 16 * MB, FakeDisk(tmp_path))
    assert watched.trouble is None
    assert list(tmp_path.iterdir()) == []


def test_below_the_mark_what_was_accepted_goes_on(tmp_path: Path) -> None:
    """Below the mark hits are refused with store_full; claims, settlements and erasures work."""

    async def main() -> None:
        clock = Clock()
        outbox = SqliteOutbox(tmp_path / "s.db", clock=clock, linger_s=0.0)
        disk = FakeDisk(tmp_path)
        outbox._space._disk, outbox._space._wanted_free = disk, 8 * MB
        await outbox.admit([unit(outbox, event(f"e{number}")) for number in range(3)])
        disk.free_mb = 5.0
        outbox._space.look(force=True)
        with pytest.raises(Unavailable) as caught:
            await one(outbox, unit(outbox, event("late")))
        assert (caught.value.reason, caught.value.retry_after_s) == ("store_full", 30)
        assert "min_free_mb" in str(outbox.trouble)
        await settle_all(outbox, await claim(outbox, clock))
        await outbox.erase([outbox.digest("s", "x")], requested_at=clock())
        assert outbox.waiting(LANE) == 0
        await outbox.close()

    asyncio.run(main())


def test_network_file_systems_are_known(tmp_path: Path) -> None:
    """The mount that a folder is on decides, the innermost one."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/local xfs rw 0 0\n")
    (tmp_path / "local").mkdir()
    assert space.network_file_system(tmp_path, mounts) == "nfs4"
    assert space.network_file_system(tmp_path / "local", mounts) is None
    assert space.network_file_system(Path("/"), mounts) is None


# -- a real small disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount 64 MB of memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root only")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is refused: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Hits:
    """Sends numbered hits and remembers what was accepted."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10.0, trust_env=False)
        self.accepted: list[str] = []
        self.number = 0

    def send(self, size: int = 1) -> httpx.Response:
        """Send a request of so many events."""
        batch: list[dict[str, Any]] = []
        for _ in range(size):
            self.number += 1
            batch.append({
                "event_name": "checkout", "event_id": f"h-{self.number}", "user": {"email": "a@example.com"},
                "search_string": f"{self.number:06}" * 60,
            })  # fmt: skip
        answer = self.client.post("/in/api", json=batch, headers=HEAD)
        if answer.status_code == 200:
            self.accepted += [one["event_id"] for one in batch]
        return answer


def fill(path: Path, leave: int) -> None:
    """Fill a disk with a file, but for so many bytes; a checkpoint may be writing meanwhile."""
    for _ in range(100):
        found = os.statvfs(path.parent)
        with path.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - leave))
            return
        time.sleep(0.01)
    raise AssertionError("the disk cannot be filled")


def delivered(pair: Pair) -> dict[str, int]:
    return {key.partition(" ")[2]: copies for key, copies in pair.sandbox.ids().items()}


def configured(folder: Path, min_free_mb: int, ballast_mb: int) -> str:
    store = f'[store]\nurl = "sqlite:///{folder}/gateway.db"\nmin_free_mb = {min_free_mb}\nballast_mb = {ballast_mb}'
    return plain_config().replace('[store]\nurl = "sqlite:///gateway.db"', store)


@contextlib.contextmanager
def backlog(tmp_path: Path, disk: Path, min_free_mb: int, ballast_mb: int) -> Iterator[tuple[Pair, Hits]]:
    """Run a gateway on the disk whose sandbox refuses for now."""
    with Pair(tmp_path, configured(disk, min_free_mb, ballast_mb)) as pair:
        pair.gateway.store, pair.gateway.socket = disk / "gateway.db", disk / "gateway.db.sock"
        pair.sandbox.stand(kind="status", status=503)
        hits = Hits(pair.gateway)
        try:
            yield pair, hits
        finally:
            hits.client.close()


def drained(pair: Pair, hits: Hits) -> None:
    """Let the sandbox work again; everything that was accepted arrives once and is marked."""
    pair.sandbox.clear()
    pair.gateway.drain(60)
    assert delivered(pair) == dict.fromkeys(hits.accepted, 1)


def test_hits_are_refused_before_the_disk_is_full(tmp_path: Path, small_disk: Path) -> None:
    """Filled below the mark: 503 and not ready, everything accepted is delivered once; after that it recovers."""
    with backlog(tmp_path, small_disk, 16, 8) as (pair, hits):
        for _ in range(10):
            assert hits.send(20).status_code == 200
        fill(small_disk / "filler", 10 * MB)
        took = until(lambda: hits.send().status_code == 503, 5, "hits are refused")
        refused = hits.send()
        assert refused.json()["error"]["code"] == "store_full"
        assert refused.headers["retry-after"]
        assert "min_free_mb" in refused.json()["error"]["message"], "not SQLite's own refusal"
        until(lambda: hits.client.get("/readyz").status_code == 503, 5, "it is not ready")
        assert "min_free_mb" in pair.gateway.status()["degraded"][0]
        assert "gateway_disk_free_bytes" in pair.gateway.api("GET", "/metrics")
        drained(pair, hits)
        (small_disk / "filler").unlink()
        back = until(lambda: hits.send().status_code == 200, 10, "hits are taken again", 0.05)
        log = pair.gateway.log.read_text()
        assert (log.count('"disk_low"'), log.count('"disk_ok"'), log.count("ballast_given_up")) == (1, 1, 0)
        assert (took, back) < (5, 10)
        drained(pair, hits)


def test_a_full_disk_is_survived_by_the_ballast(tmp_path: Path, small_disk: Path) -> None:
    """Full to the last byte: the ballast is given up, what was accepted is delivered and marked, across a kill."""
    with backlog(tmp_path, small_disk, 0, 8) as (pair, hits):
        until(lambda: hits.send(100).status_code == 200 and hits.number >= 2_000, 30, "a backlog")
        fill(small_disk / "filler", 0)
        until(lambda: hits.send(100).status_code == 503, 10, "hits are refused")
        assert not pair.gateway.has_ended()
        drained(pair, hits)
        assert '"ballast_given_up"' in pair.gateway.log.read_text()
        assert hits.send().status_code == 503, "the room it made is not for new hits"
        pair.gateway.kill()
        pair.gateway.start()
        assert hits.send().status_code == 503
        (small_disk / "filler").unlink()
        until(lambda: hits.send().status_code == 200, 10, "hits are taken again", 0.05)
        until((small_disk / "gateway.db.ballast").exists, 10, "the ballast is back")
        drained(pair, hits)


def test_without_mark_and_ballast_nothing_can_be_marked(tmp_path: Path, small_disk: Path) -> None:
    """Planted: on a full disk without ballast the queue does not get empty, whatever is delivered."""
    with backlog(tmp_path, small_disk, 0, 0) as (pair, hits):
        until(lambda: hits.send(100).status_code == 200 and hits.number >= 1_000, 30, "a backlog")
        fill(small_disk / "filler", 0)
        until(lambda: hits.send(100).status_code == 503, 10, "hits are refused")
        fill(small_disk / "filler2", 0) if os.statvfs(small_disk).f_bavail else None
        pair.sandbox.clear()
        with pytest.raises(AssertionError, match="the queue is empty"):
            pair.gateway.drain(4)


def test_the_ballast_is_there_while_the_gateway_runs(tmp_path: Path) -> None:
    """Made at the start, taken away by a clean stop: while nothing is sent there is nothing to finish."""
    path = tmp_path / "s.db"
    outbox = SqliteOutbox(path, clock=Clock(), ballast=MB)
    assert path.with_name("s.db.ballast").stat().st_size == MB
    asyncio.run(outbox.close())
    assert not path.with_name("s.db.ballast").exists()
