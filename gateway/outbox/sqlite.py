"""The outbox on SQLite: one file, one writing connection on one thread, group commit."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gateway.errors import Unavailable
from gateway.event import SealedEvent
from gateway.outbox import (
    Admission,
    Claimed,
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
    Settlement,
    Unit,
)
from gateway.outbox import letters as dead_letters
from gateway.outbox.admission import Batch
from gateway.outbox.counting import count_lanes
from gateway.outbox.exports import kept_of
from gateway.outbox.gathering import Admitted, Gathering, Request
from gateway.outbox.leases import After, Ledger
from gateway.outbox.memories import Memories, erase_memories
from gateway.outbox.recollection import Recollection
from gateway.outbox.records import DIGEST_SIZE, split
from gateway.outbox.schema import FileLock, connect, copy_store, digest_key
from gateway.outbox.upkeep import Upkeep
from gateway.outbox.writer import Writer
from gateway.outcome import Settled

T = TypeVar("T")
_READ = 192
#: A sender that does not settle in this time has lost its units; longer than any call may take.
LEASE_S = 180.0


class SqliteOutbox(Outbox):
    """
    One gateway process, one file.

    Args:
        path: The database file; its folder is made when it is missing.
        clock: Wall time in Unix seconds.
        linger_s: How long a first request waits for company before its commit.
        business_key_s: Lifetime of marks that a replay renews.
        dead_keep_s: How long dead letters are kept.
        memory_keys: How many keys are remembered at most.
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
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.folder = path, path.parent
        self._clock = clock
        self._business_key_s = business_key_s
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self._lock.acquire()
        try:
            path.touch(mode=0o600)  # the files beside it get the same mode from SQLite
            self._connection = connect(path)
        except BaseException:
            self._lock.release()
            raise
        path.chmod(0o600)
        self._keyed = hashlib.blake2b(digest_size=DIGEST_SIZE, key=digest_key(self._connection))
        self._ledger = Ledger(self._connection)
        self.recovered = self._recover()
        self._memories = Memories(self._connection, memory_keys)
        self._recollection = Recollection(path, self._memories, clock, memory_keys)
        self._dead_keep_s = dead_keep_s
        self._upkeep = Upkeep(
            self._connection, path, clock, dead_keep_s, self._discarded, self._memories, self.erasures
        )
        self._writer = Writer(self._connection, self._upkeep.run)
        self._gathering = Gathering(
            lambda requests, done: self._writer.hand_over(lambda: self._admit(requests), done), linger_s, self._notify
        )
        self._callbacks: list[Callable[[], None]] = []
        self._closed = False
        self._writer.start()

    def _recover(self) -> int:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        recovered = self._ledger.recover()
        connection.execute("COMMIT")
        self._lanes = {
            Lane(destination=row[1], kind=row[2]): row[0] for row in connection.execute("SELECT * FROM lane")
        }
        self._waiting = dict.fromkeys(self._lanes.values(), 0)
        self._dead = dict.fromkeys(self._lanes.values(), 0)
        for lane, state, count in connection.execute("SELECT lane, state, count(*) FROM unit GROUP BY lane, state"):
            (self._dead if state else self._waiting)[lane] = count
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'unit'").fetchone()
        self._next_unit = row[0] + 1 if row else 1
        self.erasures: dict[bytes, float] = dict(connection.execute("SELECT subject, before FROM erased").fetchall())
        return recovered

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
        return await self._gathering.add(units, join, memories)

    def _admit(self, requests: Sequence[Request]) -> tuple[Admitted, After]:
        batch = self._batch([units for units, _, _ in requests])
        result = []
        for units, join, memories in requests:
            batch.remember(memories)
            result.append([batch.admit(unit, join) for unit in units])
        batch.flush()

        def after() -> None:
            self._next_unit = batch.next_unit
            if batch.remembered:
                self._memories.written(batch.remembered)
                self._recollection.added(batch.remembered)
            self._ledger.doomed |= batch.doomed
            _add(self._waiting, batch.waiting)
            _add(self._dead, batch.dead)

        return result, after

    def _batch(self, requests: Sequence[Sequence[Unit]]) -> Batch:
        for lane in {unit.lane for units in requests for unit in units}:
            self._lane_number(lane)
        ledger = self._ledger
        batch = Batch(
            self._connection, self._lanes, self._next_unit, self._clock(), ledger.units, self.erasures, ledger.sent,
            self._memories,
        )  # fmt: skip
        batch.load(requests)
        return batch

    async def rehearse(self, units: Sequence[Unit], join: Join | None = None) -> list[Admission]:
        """Decide, and take everything back."""
        lanes = dict(self._lanes)

        def job() -> tuple[list[Admission], None]:
            self._connection.execute("SAVEPOINT rehearsal")
            try:
                batch = self._batch([units])
                return [batch.admit(unit, join) for unit in units], None
            finally:
                self._connection.execute("ROLLBACK TO rehearsal")
                self._connection.execute("RELEASE rehearsal")
                self._lanes = lanes

        return await self._writer.run(job)

    # -- memory

    async def recall(self, digests: Sequence[bytes]) -> dict[bytes, Remembered]:
        """Look beside the writer."""
        return await self._recollection.look(digests)

    def may_remember(self, digest: bytes) -> bool:
        """Ask the filter; with a full table, whether the key is in it already decides."""
        return self._recollection.may_have(digest)

    @property
    def has_room(self) -> bool:
        """Whether new keys are remembered."""
        return self._memories.has_room

    def _lane_number(self, lane: Lane) -> int:
        number = self._lanes.get(lane)
        if number is None:
            self._connection.execute(
                "INSERT OR IGNORE INTO lane (destination, kind) VALUES (?, ?)", (lane.destination, lane.kind)
            )
            row = self._connection.execute(
                "SELECT id FROM lane WHERE destination = ? AND kind = ?", (lane.destination, lane.kind)
            )
            number = int(row.fetchone()[0])
            self._lanes[lane] = number
        return number

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
        number = self._lanes.get(lane)
        overdue = self._ledger.overdue(now)
        if overdue:
            await self._writer.run(lambda: self._ledger.give_up(overdue))
        if number is None or self.waiting(lane) <= 0:
            return None
        claim = await self._writer.run(lambda: self._ledger.claim(lane, number, limit, now, LEASE_S))
        if claim is None:
            return None
        units: list[Claimed] = []
        for start in range(0, len(claim.units), _READ):
            # in slices: hits that wait for a commit come in between
            part = claim.units[start : start + _READ]
            units += await self._writer.run(lambda part=part: (self._ledger.read(part), None))  # type: ignore[misc]
        return Lease(token=claim.token, lane=lane, units=tuple(units), deadline=claim.deadline)

    async def settle(self, lease: Lease, settlements: Sequence[Settlement]) -> list[Settled]:
        """End or put back the units of a lease."""
        number = self._lanes[lease.lane]

        def job() -> tuple[list[Settled], After]:
            ended, release = self._ledger.settle(lease, settlements, self._clock())

            def after() -> None:
                release()
                _add(self._waiting, {number: ended.waiting})
                _add(self._dead, {number: ended.dead})

            return list(ended.settled), after

        return await self._writer.run(job)

    def waiting(self, lane: Lane) -> int:
        """Return how many units wait and are not leased."""
        number = self._lanes.get(lane)
        return 0 if number is None else self._waiting.get(number, 0) - self._ledger.leased(lane)

    async def next_due(self, lane: Lane) -> float | None:
        """Return the earliest due time of the lane's waiting units."""
        number = self._lanes.get(lane)
        if number is None:
            return None
        held = json.dumps(list(self._ledger.units))

        def job() -> tuple[float | None, None]:
            row = self._connection.execute(
                "SELECT min(due) FROM unit WHERE state = 0 AND lane = ? AND id NOT IN (SELECT value FROM json_each(?))",
                (number, held),
            ).fetchone()
            return row[0], None

        return await self._writer.run(job)

    # -- erasure and dead letters

    async def erase(self, subjects: Sequence[bytes], *, requested_at: float) -> list[Settled]:
        """Erase the units of these subjects slice by slice, after refusing older copies from now on."""
        wanted = set(subjects)

        def remember() -> tuple[None, After]:
            dead_letters.remember_erasure(self._connection, subjects, requested_at, self._clock())
            before = {subject: max(requested_at, self.erasures.get(subject, 0.0)) for subject in subjects}
            return None, lambda: self.erasures.update(before)

        await self._writer.run(remember)

        def matches(stored: bytes, event: SealedEvent) -> bool:
            return event.event_time < requested_at and not wanted.isdisjoint(split(stored))

        await erase_memories(self._writer, self._memories, wanted)
        ended: list[Settled] = []
        for bounds in await self._writer.run(lambda: (list(dead_letters.slices(self._connection)), None)):
            ended += await self._writer.run(lambda bounds=bounds: self._erase(bounds, matches))  # type: ignore[misc]
        return ended

    def _erase(
        self, bounds: tuple[int, int], matches: Callable[[bytes, SealedEvent], bool]
    ) -> tuple[list[Settled], After]:
        lanes = {number: lane for lane, number in self._lanes.items()}
        erased = dead_letters.erase(self._connection, bounds, matches, lanes, self._ledger.units, self._clock())

        def after() -> None:
            self._ledger.doomed |= erased.doomed
            _add(self._waiting, {lane: -count for lane, count in erased.waiting.items()})
            _add(self._dead, {lane: -count for lane, count in erased.dead.items()})

        return erased.settled, after

    async def of_subjects(self, subjects: Sequence[bytes]) -> Kept:
        """Look beside the writer."""
        return await asyncio.to_thread(kept_of, self.path, subjects, self._dead_keep_s, self._clock())

    async def dead(self, which: DeadFilter, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """Return a page of dead letters."""
        start = int(after, 16) if after else 0
        return await self._writer.run(lambda: (dead_letters.dead(self._connection, which, limit, start), None))

    async def replay(self, which: DeadFilter) -> Replayed:
        """Queue dead letters again, a slice a commit."""
        queued, duplicates, after = 0, [], None
        while letters := await self.dead(which, limit=dead_letters.SLICE, after=after):
            after = letters[-1].unit
            done, refused = await self._writer.run(lambda letters=letters: self._replay(letters))  # type: ignore[misc]
            queued += len(done)
            duplicates += refused
        self._notify()
        return Replayed(queued=queued, duplicates=tuple(duplicates))

    def _replay(self, letters: Sequence[DeadLetter]) -> tuple[tuple[list[str], list[str]], After]:
        queued, duplicates = dead_letters.replay(self._connection, letters, self._clock(), self._business_key_s)
        moved = dead_letters.by_lane([letter for letter in letters if letter.unit in set(queued)], self._lanes)

        def after() -> None:
            _add(self._waiting, moved)
            _add(self._dead, {lane: -count for lane, count in moved.items()})

        return (queued, duplicates), after

    async def discard(self, which: DeadFilter) -> int:
        """Delete dead letters, a slice a commit."""
        total = 0
        while letters := await self.dead(which, limit=dead_letters.SLICE):
            total += await self._writer.run(lambda letters=letters: self._discard(letters))  # type: ignore[misc]
        return total

    def _discard(self, letters: Sequence[DeadLetter]) -> tuple[int, After]:
        count = dead_letters.discard(self._connection, letters)
        return count, lambda: self._discarded(dead_letters.by_lane(letters, self._lanes))

    def _discarded(self, gone: dict[int, int]) -> None:
        _add(self._dead, {lane: -count for lane, count in gone.items()})

    # -- the store itself

    async def counts(self) -> Counts:
        """Count on a reading connection, beside the writer."""
        return await asyncio.to_thread(
            count_lanes, self.path, dict(self._lanes), self.waiting, self._ledger.leased, self._dead
        )

    async def ping(self) -> None:
        """Commit a heartbeat."""

        def job() -> tuple[None, None]:
            self._connection.execute(
                "INSERT INTO meta VALUES ('alive', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (self._clock(),),
            )
            return None, None

        await self._writer.run(job)

    async def backup(self, path: str) -> int:
        """Write a consistent copy beside the running store."""
        return await asyncio.to_thread(copy_store, self.path, Path(path))

    async def close(self) -> None:
        """Commit what was handed over, empty the WAL, release the lock; harmless twice."""
        if self._closed:
            return
        self._closed = True
        await self._gathering.drain()
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._recollection.close)
        self._upkeep.run(force=True)
        self._connection.close()
        self._lock.release()


def _add(counters: dict[int, int], change: dict[int, int]) -> None:
    for key, count in change.items():
        if count:
            counters[key] = counters.get(key, 0) + count
