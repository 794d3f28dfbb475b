"""The outbox on SQLite: one file, one writing connection on one thread, group commit."""

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import structs

from gateway.errors import StoreError, Unavailable
from gateway.history import By, Cells, Rolled
from gateway.outbox import (
    Admission,
    Counts,
    DeadFilter,
    DeadLetter,
    Join,
    Kept,
    Lane,
    Lease,
    Memorandum,
    Outbox,
    Remembered,
    Replayed,
    Salvaged,
    Settlement,
    Unit,
    damage,
)
from gateway.outbox.claims import Claims
from gateway.outbox.counting import count_lanes
from gateway.outbox.deciding import Deciding
from gateway.outbox.exports import kept_of
from gateway.outbox.failures import failure_of, words_of
from gateway.outbox.gathering import Admitted, Gathering, Request
from gateway.outbox.health import Health
from gateway.outbox.holdings import Holdings
from gateway.outbox.leases import After, Ledger
from gateway.outbox.memories import Memories
from gateway.outbox.opening import open_store, with_ballast
from gateway.outbox.recollection import Recollection
from gateway.outbox.records import DIGEST_SIZE
from gateway.outbox.revision import Revision
from gateway.outbox.rollups import Rollups
from gateway.outbox.salvage import LONGEST_DUE_S, Salvage
from gateway.outbox.schema import FileLock, copy_store, digest_key
from gateway.outbox.space import Space
from gateway.outbox.upkeep import Upkeep, keep_anchor, resume_clock
from gateway.outbox.writer import Writer
from gateway.outcome import Settled
from gateway.steady import Steady

T = TypeVar("T")


class SqliteOutbox(Outbox):
    """
    One gateway process, one file.

    Args:
        path: The database file; its folder is made when it is missing.
        clock: Wall time in Unix seconds.
        linger_s: How long a first request waits for company before its commit.
        business_key_s: Lifetime of marks that a replay renews.
        dead_keep_s: How long dead letters are kept.
        memory_keys: How many keys are remembered at most. ``rollup_keep_s``: how long counts by hour are kept.
        min_free: Bytes of the disk below which hits are refused. ``ballast``: bytes given up on a full disk.
        steady: The times to delay and delete by; None: made from ``clock``.

    Raises:
        StoreLocked: Another process holds it. StoreTooNew: a newer program wrote it.
        StoreError: It cannot be used, for a reason that is no damage; a damaged one is moved aside.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        linger_s: float = 0.001,
        business_key_s: int = 2_592_000,
        dead_keep_s: float = 1_209_600,
        memory_keys: int = 1_000_000,
        rollup_keep_s: float = 7_776_000,
        min_free: int = 0,
        ballast: int = 0,
        steady: Steady | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.folder = path, path.parent
        self.steady = steady or Steady(clock)
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self._lock.acquire()
        try:
            self._space = Space(path, min_free, ballast)
            opened = open_store(path, self._space)
            self._connection = opened.connection
            self._health = Health(path, self._space, opened.notices, self._tell_failure)
            try:
                self._load(clock, dead_keep_s, memory_keys, rollup_keep_s)
            except BaseException as error:
                self._connection.close()
                if failure_of(error) == "damaged":
                    damage.write_state(path, "suspect")
                    raise StoreError(
                        f"The store {path} is damaged ({words_of(error)}): start again, and it is checked."
                    ) from error
                if isinstance(error, sqlite3.Error):
                    raise StoreError(
                        f"The store {path} cannot be used ({words_of(error)}): is it in use, the disk full?"
                    ) from error
                raise
        except BaseException:
            self._lock.release()
            raise
        self._build(linger_s, business_key_s)
        self._callbacks: list[Callable[[], None]] = []
        self._closed = False
        self._writer.start()
        if opened.is_unchecked:
            self._health.check_beside()

    def _load(self, clock: Callable[[], float], dead_keep_s: float, memory_keys: int, rollup_keep_s: float) -> None:
        """Read what is kept in memory, and put right what a crash left."""
        connection = self._connection
        resume_clock(connection, self.steady)
        self._key = digest_key(connection)
        self._keyed = hashlib.blake2b(digest_size=DIGEST_SIZE, key=self._key)
        self._ledger = Ledger(connection)
        self.recovered = with_ballast(self._space, self._recover)
        self._holdings = Holdings()
        self._holdings.load(connection)
        self.erasures: dict[bytes, float] = dict(connection.execute("SELECT subject, before FROM erased").fetchall())
        self._memories = Memories(connection, memory_keys)
        self._recollection = Recollection(self.path, self._memories, clock, memory_keys)
        self._dead_keep_s = dead_keep_s
        self._rollups = Rollups(connection, self.path, clock, self.steady, rollup_keep_s)
        self._upkeep = Upkeep(
            connection, self.path, self.steady, dead_keep_s, lambda gone: self._revision.discarded(gone),
            self._memories, self.erasures, self._space, self._rollups,
        )  # fmt: skip

    def _build(self, linger_s: float, business_key_s: int) -> None:
        """Put the parts together that write."""
        self._writer = Writer(
            self._connection, self._upkeep.run, relief=self._upkeep.relieve, failed=self._health.failed
        )
        parts = (self._connection, self._writer)
        self._revision = Revision(
            *parts, self._ledger, self._memories, self._holdings, self.erasures, self.steady, business_key_s,
            self._rollups,
        )  # fmt: skip
        self._claims = Claims(*parts, self._ledger, self._holdings, self.steady, self._rollups)
        self._deciding = Deciding(
            self._connection, self._ledger, self._holdings, self._memories, self._rollups, self.erasures, self.steady,
            self._remembered,
        )  # fmt: skip
        self._salvage = Salvage(
            *parts, self._holdings, self._memories, self.erasures, self.steady, self.digest, self._remembered,
            self._rollups,
        )  # fmt: skip
        self._gathering = Gathering(
            lambda begin, done: self._writer.hand_over(lambda: self._admit(begin()), done), linger_s, self._notify
        )

    def _recover(self) -> int:
        connection, now = self._connection, self.steady.now()
        connection.execute("BEGIN IMMEDIATE")
        try:
            recovered = self._ledger.recover()
            # written by a clock that was ahead; nothing waits longer on purpose
            connection.execute("UPDATE unit SET due = ? WHERE state = 0 AND due > ?", (now, now + LONGEST_DUE_S))
            keep_anchor(connection, self.steady)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return recovered

    # -- what is wrong with the store, if anything is

    def _tell_failure(self) -> None:
        if self.on_failure is not None:
            self.on_failure()

    @property
    def failure(self) -> str | None:
        """Why the store cannot be used any more."""
        return self._health.failure

    @property
    def trouble(self) -> str | None:
        """Why hits are refused."""
        return self._health.trouble

    @property
    def room(self) -> float:
        """Room on the disk above the mark."""
        return self._space.room

    @property
    def damaged(self) -> Sequence[str]:
        """Stores that were moved aside."""
        return [f"{one.file}: {one.problem} (moved aside at {one.at})" for one in self._health.notices]

    def digest(self, *parts: str) -> bytes:
        """Hash key material under the store's secret."""
        keyed = self._keyed.copy()
        keyed.update("\0".join(parts).encode("utf-8", "surrogatepass"))
        return keyed.digest()

    # -- admission: gathered on the loop, decided and committed on the writer's thread

    async def admit(
        self, units: Sequence[Unit], join: Join | None = None, memories: Sequence[Memorandum] = ()
    ) -> list[Admission]:
        """Commit the units of one request together with those of others."""
        if self._closed:
            raise Unavailable("stopping", "The gateway is stopping.")
        if (trouble := self._health.trouble) is not None:
            reason = "store_full" if self._health.failure is None else "store_failed"
            raise Unavailable(reason, trouble, retry_after_s=30)
        return await self._gathering.add(units, join, memories)

    def _admit(self, requests: Sequence[Request]) -> tuple[Admitted, After]:
        self._space.look()
        return self._deciding.admit(requests)

    def _remembered(self, numbers: dict[bytes, int]) -> None:
        self._memories.written(numbers)
        self._recollection.added(numbers)

    async def rehearse(self, units: Sequence[Unit], join: Join | None = None) -> list[Admission]:
        """Decide, and take everything back."""
        return await self._writer.run(lambda: self._deciding.rehearse(units, join), is_vital=False)

    # -- memory

    async def recall(self, digests: Sequence[bytes]) -> dict[bytes, Remembered]:
        """Look beside the writer."""
        with self._health.watching():
            return await self._recollection.look(digests)

    def may_remember(self, digest: bytes) -> bool:
        """Ask the filter; with a full table, whether the key is in it already decides."""
        return self._recollection.may_have(digest)

    @property
    def has_room(self) -> bool:
        """Whether new keys are remembered."""
        return self._memories.has_room

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after commits that may have given senders work; returns what ends that."""
        self._callbacks = [*self._callbacks, callback]

        def forget() -> None:
            self._callbacks = [known for known in self._callbacks if known is not callback]

        return forget

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()

    # -- senders

    async def claim(self, lane: Lane, limit: int, now: float) -> Lease | None:
        """Lease due units, after giving up leases that were lost."""
        return await self._claims.claim(lane, limit, now)

    async def settle(self, lease: Lease, settlements: Sequence[Settlement]) -> list[Settled]:
        """End or put back the units of a lease."""
        return await self._claims.settle(lease, settlements)

    def waiting(self, lane: Lane) -> int:
        """Return how many units wait and are not leased."""
        return self._claims.waiting(lane)

    async def next_due(self, lane: Lane) -> float | None:
        """Return the earliest due time of the lane's waiting units."""
        return await self._claims.next_due(lane)

    # -- erasure and dead letters

    async def erase(self, subjects: Sequence[bytes], *, requested_at: float) -> list[Settled]:
        """Erase the units of these subjects slice by slice, after refusing older copies from now on."""
        return await self._revision.erase(subjects, requested_at)

    async def of_subjects(self, subjects: Sequence[bytes]) -> Kept:
        """Look beside the writer."""
        with self._health.watching():
            return await asyncio.to_thread(kept_of, self.path, subjects, self._dead_keep_s, self.steady.guarded())

    async def dead(self, which: DeadFilter, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """Return a page of dead letters."""
        return await self._revision.dead(which, limit, after)

    async def replay(self, which: DeadFilter) -> Replayed:
        """Queue dead letters again, a slice a commit."""
        replayed = await self._revision.replay(which)
        self._notify()
        return replayed

    async def discard(self, which: DeadFilter) -> int:
        """Delete dead letters, a slice a commit."""
        return await self._revision.discard(which)

    async def salvage(self, path: Path, *, acknowledge: bool = False) -> Salvaged:
        """Put what can be read of a damaged store into this one, a slice a commit."""
        path = self.folder / path
        if path.resolve() == self.path.resolve():
            raise StoreError(f"{path} is the store in use: name the file that was moved aside.")
        found = Salvaged() if acknowledge else await self._salvage.run(path, self._key)
        kept = [one for one in self._health.notices if one.file != path.name]

        def job() -> tuple[None, None]:
            damage.keep_notices(self._connection, kept)
            return None, None

        await self._writer.run(job)
        self._health.notices = kept
        self._notify()
        return found

    # -- the store itself

    def count(self, cells: Cells) -> None:
        """Keep for the next commit."""
        self._rollups.count(cells)

    async def history(
        self, since: float, until: float, *, by: By = "hour", whats: Collection[str] = (),
        source: str | None = None, destination: str | None = None, event: str | None = None,
    ) -> list[Rolled]:  # fmt: skip
        """Commit what is pending, then look beside the writer."""
        if self._rollups.has_pending and not self._closed:
            with contextlib.suppress(Unavailable):
                await self._writer.run(self._rollups.flush, is_vital=False)
        with self._health.watching():
            return await self._rollups.history(since, until, by, whats, (source, destination, event))

    async def counts(self) -> Counts:
        """Count on a reading connection, beside the writer."""
        lanes, dead = dict(self._holdings.lanes), self._holdings.dead
        with self._health.watching():
            found = await asyncio.to_thread(count_lanes, self.path, lanes, self.waiting, self._ledger.leased, dead)
        return structs.replace(found, wal_bytes=self._upkeep.wal_bytes, disk_free_bytes=self._space.free)

    async def ping(self) -> None:
        """Commit a heartbeat."""

        def job() -> tuple[None, None]:
            self._connection.execute(
                "INSERT INTO meta VALUES ('alive', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (self.steady.now(),),
            )
            return None, None

        await self._writer.run(job, is_vital=False)

    async def backup(self, path: str) -> int:
        """Write a consistent copy beside the running store."""
        return await asyncio.to_thread(copy_store, self.path, Path(path))

    async def close(self) -> None:
        """Commit what was handed over, empty the WAL, release the lock; harmless twice."""
        if self._closed:
            return
        self._closed = True
        self._health.stop()
        await self._gathering.drain()
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._recollection.close)
        is_sound = not self._writer.has_failed and self._health.failure is None
        if is_sound:
            with contextlib.suppress(sqlite3.Error):
                self._upkeep.run(force=True)
        self._connection.close()
        if is_sound:
            damage.write_state(self.path, "clean")
            self._space.close()
        self._lock.release()
