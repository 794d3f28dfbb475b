"""
What the writer does between commits: checkpoints, expiry, in slices small enough that no commit waits for them
noticeably.

* Checkpoints: the WAL is copied back when it has grown, and emptied every half minute, so that an erased payload is
  gone from the disk within a minute (``secure_delete`` takes care of the pages).
* Marks expire by a walk round the table in key order, a few thousand at a time: an index on the expiry would cost every
  insert, and dropping whole tables stalls for tenths of a second.
* What is remembered is indexed, and expires by a walk of its own (:mod:`gateway.outbox.memories`).
* Dead letters expire after ``dead_keep_s``, erasures after a month.
"""

import sqlite3
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

from gateway.outbox.letters import discard_old
from gateway.outbox.memories import Memories

#: Rows written between two checkpoints; about as many pages. Small ones: each holds up the commits that wait for it.
_PASSIVE_ROWS = 1_000
#: Beyond this the WAL is emptied even if commits must wait for it.
_TRUNCATE_BYTES = 64 << 20
_TRUNCATE_EVERY_S = 30.0
_AGAIN_S = 2.0
_MARKS_A_SLICE = 2_000
#: A slice of marks a second walks ten million keys in under an hour and a half.
_SLICE_EVERY_S = 1.0


class Upkeep:
    """
    Runs on the writer's thread; ``clock`` is wall time, intervals are measured on the monotonic clock.

    ``erased`` are the erasures in force, as the writer knows them.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, clock: Callable[[], float], dead_keep_s: float,
        discarded: Callable[[dict[int, int]], None], memories: Memories, erased: MutableMapping[bytes, float],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self._clock = clock
        self._dead_keep_s = dead_keep_s
        self._discarded = discarded
        self._memories = memories
        self._erased = erased
        self._cursor = b""
        self._next_slice = 0.0
        self._next_truncate = time.monotonic() + _TRUNCATE_EVERY_S
        self._expired_before = 0
        self._rows = 0

    def run(self, *, force: bool = False) -> None:
        """Do what is due; errors (a full disk) are left for the next time."""
        now = time.monotonic()
        rows = self._connection.total_changes - self._rows
        if not force and rows <= _PASSIVE_ROWS and now < self._next_slice:
            return
        try:
            self._checkpoint(now, rows, force=force)
            self._tend(lambda: self._memories.index(now, force=force))
            if force or now >= self._next_slice:
                self._next_slice = now + _SLICE_EVERY_S
                self._expire_marks()
                self._expire_dead()
                self._tend(lambda: self._memories.step(self._clock()))
        except sqlite3.OperationalError:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._memories.restart_round()

    def _tend(self, step: Callable[[], object]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        step()
        self._connection.execute("COMMIT")

    def _checkpoint(self, now: float, rows: int, *, force: bool) -> None:
        try:
            size = self._wal.stat().st_size
        except FileNotFoundError:
            return
        if force or size > _TRUNCATE_BYTES or (size and now >= self._next_truncate):
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            # a reader was in the way: erased payloads must not stay for another half minute
            self._next_truncate = now + (_AGAIN_S if busy else _TRUNCATE_EVERY_S)
            self._rows = self._connection.total_changes
        elif rows > _PASSIVE_ROWS:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._rows = self._connection.total_changes

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
                (self._cursor, last, int(self._clock())),
            )
        self._cursor = bytes(last) if count == _MARKS_A_SLICE else b""

    def _expire_dead(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        gone = discard_old(self._connection, self._clock() - self._dead_keep_s)
        self._connection.execute("COMMIT")
        if gone:
            self._discarded(gone)
        now = int(self._clock())
        if now > self._expired_before + 3_600:
            self._expired_before = now
            over = self._connection.execute("DELETE FROM erased WHERE expires <= ? RETURNING subject", (now,))
            for (subject,) in over.fetchall():
                self._erased.pop(subject, None)
