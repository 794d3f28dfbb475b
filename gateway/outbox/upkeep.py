"""
What the writer does between commits: checkpoints, expiry, in slices small enough that no commit waits for them
noticeably.

* Checkpoints: the WAL is copied back when it has grown, and emptied every half minute, so that an erased payload is
  gone from the disk within a minute (``secure_delete`` takes care of the pages).
* Marks expire by a walk round the table in key order, a few thousand at a time: an index on the expiry would cost every
  insert, and dropping whole tables stalls for tenths of a second.
* What is remembered is indexed, and expires by a walk of its own (:mod:`gateway.outbox.memories`).
* Dead letters expire after ``dead_keep_s``, erasures after a month, roll-ups after ``rollup_keep_s``
  (:mod:`gateway.outbox.rollups`); counts without a commit of their own are written.
* The disk is looked at, and the clock's anchor is kept.

Marks expire by the store's time, everything else by the judging time (:mod:`gateway.steady`): a clock that jumps
deletes nothing early.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gateway.history import Cell
from gateway.outbox.failures import failure_of
from gateway.outbox.letters import discard_old
from gateway.outbox.memories import Memories
from gateway.outbox.rollups import Rollups
from gateway.outbox.space import Space
from gateway.steady import Anchor, Steady

_log = logging.getLogger("gateway.store")

#: Rows written between two checkpoints; about as many pages. Small ones: each holds up the commits that wait for it.
_PASSIVE_ROWS = 1_000
#: Beyond this the WAL is emptied even if commits must wait for it.
_TRUNCATE_BYTES = 64 << 20
_TRUNCATE_EVERY_S = 30.0
_AGAIN_S = 2.0
_MARKS_A_SLICE = 2_000
#: A slice of marks a second walks ten million keys in under an hour and a half.
_SLICE_EVERY_S = 1.0
_ANCHOR_EVERY_S = 60.0
#: A WAL of this size that cannot be emptied is reported: somebody reads the file for long.
_HELD_BYTES = 256 << 20
_UPKEEP_WAIT_MS = 20


class Upkeep:
    """
    Runs on the writer's thread; intervals are measured on the monotonic clock.

    ``steady`` gives the times, ``erased`` are the erasures in force, as the writer knows them, ``space`` is the disk.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, steady: Steady, dead_keep_s: float,
        discarded: Callable[[dict[int, int]], None], memories: Memories, erased: MutableMapping[bytes, float],
        space: Space, rollups: Rollups,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self._steady = steady
        self._dead_keep_s = dead_keep_s
        self._discarded = discarded
        self._memories = memories
        self._erased = erased
        self._space = space
        self._rollups = rollups
        self._cursor = b""
        self._next_slice = 0.0
        self._next_anchor = 0.0
        self._next_truncate = time.monotonic() + _TRUNCATE_EVERY_S
        self._expired_before = 0
        self._rows = 0
        self._is_held = False

    def run(self, *, force: bool = False) -> None:
        """
        Do what is due; what a full disk or another process prevents is left for the next time.

        Raises:
            sqlite3.Error: The file is damaged, or a write or sync of it failed.
        """
        self._space.look()
        now = time.monotonic()
        rows = self._connection.total_changes - self._rows
        if not force and rows <= _PASSIVE_ROWS and now < self._next_slice:
            return
        try:
            with self._hurrying():
                self._work(now, rows, force=force)
        except sqlite3.Error as error:
            failure = failure_of(error)
            if failure in ("damaged", "broken"):
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._memories.restart_round()
            if failure == "full":
                self.relieve()

    def _work(self, now: float, rows: int, *, force: bool) -> None:
        """Do what is due."""
        self._checkpoint(now, rows, force=force)
        self._tend(lambda: self._memories.index(now, force=force))
        if force or now >= self._next_slice:
            self._next_slice = now + _SLICE_EVERY_S
            self._expire_marks()
            self._expire_dead()
            self._tend(lambda: self._memories.step(self._steady.guarded()))
            self._count(self._rollups.tend)
        if force or now >= self._next_anchor:
            self._next_anchor = now + _ANCHOR_EVERY_S
            self._tend(lambda: keep_anchor(self._connection, self._steady))

    @contextmanager
    def _hurrying(self) -> Iterator[None]:
        """Wait neither for readers nor for another process: hits would wait with it."""
        (usual,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout = {_UPKEEP_WAIT_MS}")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {usual}")

    def relieve(self) -> bool:
        """Make room on a full disk: give the ballast up, then empty the WAL; returns whether there may be room now."""
        if not self._space.give_up():
            return False
        try:
            self._empty_wal()
        except sqlite3.OperationalError as error:
            if failure_of(error) == "broken":
                raise
        return True

    def _tend(self, step: Callable[[], object]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        step()
        self._connection.execute("COMMIT")

    def _count(self, step: Callable[[], Callable[[], None]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        after = step()
        self._connection.execute("COMMIT")
        after()

    def _checkpoint(self, now: float, rows: int, *, force: bool) -> None:
        size = self.wal_bytes
        if not size:
            return
        if force or size > _TRUNCATE_BYTES or now >= self._next_truncate:
            is_held = not self._empty_wal()
            # a reader was in the way: erased payloads must not stay for another half minute
            self._next_truncate = now + (_AGAIN_S if is_held else _TRUNCATE_EVERY_S)
            self._rows = self._connection.total_changes
            self._tell(size, is_held=is_held)
        elif rows > _PASSIVE_ROWS:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._rows = self._connection.total_changes

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _empty_wal(self) -> bool:
        """Copy the WAL back and cut it; returns whether no reader was in the way."""
        with self._hurrying():
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _tell(self, size: int, *, is_held: bool) -> None:
        is_large = is_held and size > _HELD_BYTES
        if is_large and not self._is_held:
            remedy = "Something reads the store's file for long: end it. The log grows meanwhile."
            _log.warning("wal_held", extra={"wal_bytes": size, "remedy": remedy})
        elif self._is_held and not is_held:
            _log.info("wal_emptied")
        self._is_held = is_large or (self._is_held and is_held)

    def _expire_marks(self) -> None:
        """
        Delete the expired marks of one slice; a mark whose unit still waits (or is dead, and may be replayed) stays.
        """
        edge = self._connection.execute(
            "SELECT max(digest), count(*) FROM (SELECT digest FROM mark WHERE digest > ? ORDER BY digest LIMIT ?)",
            (self._cursor, _MARKS_A_SLICE),
        ).fetchone()
        last, count = edge
        if count:
            self._connection.execute(
                "DELETE FROM mark WHERE digest > ? AND digest <= ? AND expires <= ?"
                " AND NOT EXISTS (SELECT 1 FROM unit WHERE unit.id = mark.unit)",
                (self._cursor, last, int(self._steady.now())),
            )
        self._cursor = bytes(last) if count == _MARKS_A_SLICE else b""

    def _expire_dead(self) -> None:
        cells: dict[Cell, int] = {}
        gone: dict[int, int] = {}

        def discard() -> Callable[[], None]:
            gone.update(discard_old(self._connection, self._steady.guarded() - self._dead_keep_s, cells))
            return self._rollups.write(cells)

        self._count(discard)
        if gone:
            self._discarded(gone)
        now = int(self._steady.guarded())
        if now > self._expired_before + 3_600:
            self._expired_before = now
            over = self._connection.execute("DELETE FROM erased WHERE expires <= ? RETURNING subject", (now,))
            for (subject,) in over.fetchall():
                self._erased.pop(subject, None)


def keep_anchor(connection: sqlite3.Connection, steady: Steady) -> None:
    """Keep the clock's anchor for the next start."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (msgspec.json.encode(steady.anchor()),))


def resume_clock(connection: sqlite3.Connection, steady: Steady) -> None:
    """Go on from the anchor that was kept, if there is one."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone()
    if found is not None:
        steady.resume(msgspec.json.decode(found[0], type=Anchor))
