"""
Fail-points: places where the product is made to end, to fail or to wait, planted from outside around its functions.

The product has no switch for any of them. ``HARNESS_FAILPOINT=name:action:nth`` (several with commas) arms points in a
gateway that :mod:`tests.harness.launcher` runs; inside a test :meth:`Failpoints.installed` does. Actions: ``exit`` ends
the process as a kill would, ``raise`` fails as SQLite or a plugin would, ``sleep`` waits.
"""

import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from gateway.interfaces import Verdict
from gateway.outbox import admission, leases, letters, memories, revision, schema, sqlite, upkeep, writer
from gateway.plugins import pinterest

Action = Literal["exit", "raise", "sleep"]
#: The exit code of a process that a fail-point ended.
EXIT_CODE = 9
SLEEP_S = 0.5
#: A kill inside SQLite's checkpoint, which nothing else can reach: so long after it began.
_MIDWAY_S = 0.0004

#: Every point, in the order in which an event passes them, then what happens beside.
POINTS = {
    "insert": "the rows of a commit are written, its transaction is open",
    "admit.before_commit": "the same, with nothing left to do but to commit",
    "admit.after_commit": "hits are committed, nobody knows",
    "reply": "the handler knows that its hits are committed, no byte of the answer was sent",
    "claim.before_commit": "a lease is written, its transaction is open",
    "claim.after_commit": "units are leased on disk, the lane does not know",
    "send.before": "a batch is about to be sent",
    "send.after": "the vendor answered, nothing is settled",
    "settle.before_commit": "a settlement is written, its transaction is open",
    "settle.after_commit": "a settlement is committed, memory does not know",
    "checkpoint": "SQLite copies the WAL back",
    "expire": "a slice of old dead letters is deleted, its transaction is open",
    "index": "a slice of the memory's index is written, its transaction is open",
    "replay": "a slice of dead letters is queued again, its transaction is open",
    "erase.remembered": "an erasure is committed, nothing is erased",
    "erase": "a slice of units is erased, its transaction is open",
    "migrate.copy": "half of the copy that is made before a migration is written",
    "migrate.copied": "the copy is there, nothing is migrated",
    "migrate": "a step of a migration is done, its transaction is open",
    "migrated": "every step is committed, nothing was told",
    "recover": "the leases of a crash are given back, its transaction is open",
    "close": "everything is handed over, the store is open",
}
#: Here nothing that is not the product's own can fail: a commit that succeeded does not raise.
ONLY_EXIT = frozenset({"admit.after_commit", "reply", "claim.after_commit", "settle.after_commit"})


class Armed(NamedTuple):
    """What a point does when it is passed for the ``nth`` time from when it was armed, once."""

    action: Action
    nth: int


class Failpoints:
    """The points of one process; ``reached`` counts how often each was passed, ``fired`` which did what they should."""

    def __init__(self, told: Path | None = None) -> None:
        self.reached: Counter[str] = Counter()
        self.fired: list[str] = []
        self._told = told
        self._armed: dict[str, Armed] = {}
        self._passed: Counter[str] = Counter()
        self._undo: list[Callable[[], None]] = []
        #: What the writer's transaction is about.
        self._job = ""

    def arm(self, name: str, action: Action, nth: int = 1) -> None:
        """Let a point act when it is passed for the nth time from now. Raises KeyError for an unknown one."""
        if name not in POINTS:
            raise KeyError(name)
        self._passed[name] = 0
        self._armed[name] = Armed(action, nth)

    def fire(self, name: str) -> None:
        """Pass a point."""
        action = self._due(name)
        if action == "exit":
            os._exit(EXIT_CODE)
        if action == "raise":
            raise RuntimeError(name) if name.startswith("send") else sqlite3.OperationalError(f"planted at {name}")
        if action == "sleep":
            time.sleep(SLEEP_S)

    def _due(self, name: str) -> Action | None:
        self.reached[name] += 1
        armed = self._armed.get(name)
        if armed is None:
            return None
        self._passed[name] += 1
        if self._passed[name] < armed.nth:
            return None
        del self._armed[name]
        self.fired.append(name)
        if self._told is not None:
            with self._told.open("a") as told:
                told.write(f"{name}:{armed.action}\n")
        return armed.action

    # -- planting

    @contextmanager
    def installed(self) -> Iterator["Failpoints"]:
        """Plant every point, until the block ends."""
        self.install()
        try:
            yield self
        finally:
            for undo in reversed(self._undo):
                undo()
            self._undo.clear()

    def install(self) -> None:
        """Plant every point."""
        self._after(admission.Batch, "flush", "insert", job="admit")
        self._after(leases.Ledger, "claim", None, job="claim")
        self._after(leases.Ledger, "settle", None, job="settle")
        self._after(leases.Ledger, "recover", "recover")
        self._after(letters, "replay", "replay")
        self._after(letters, "erase", "erase")
        self._after(upkeep, "discard_old", "expire")
        self._after(memories.Memories, "index", "index", when=bool)
        self._before_async(revision, "erase_memories", "erase.remembered")
        self._after_async(sqlite.SqliteOutbox, "admit", "reply")
        self._before(upkeep.Upkeep, "run", "close", when=lambda _self, force=False: force)
        self._send()
        self._checkpoints()
        self._commits()
        self._migrations()

    def _put(self, owner: Any, name: str, value: Any) -> None:
        old = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, old))

    def _after(
        self, owner: Any, name: str, point: str | None, *, job: str = "", when: Callable[[Any], bool] | None = None
    ) -> None:
        call = getattr(owner, name)

        def wrapped(*args: Any, **more: Any) -> Any:
            result = call(*args, **more)
            if job:
                self._job = job
            if point is not None and (when is None or when(result)):
                self.fire(point)
            return result

        self._put(owner, name, wrapped)

    def _before(self, owner: Any, name: str, point: str, when: Callable[..., bool]) -> None:
        call = getattr(owner, name)

        def wrapped(*args: Any, **more: Any) -> Any:
            if when(*args, **more):
                self.fire(point)
            return call(*args, **more)

        self._put(owner, name, wrapped)

    def _before_async(self, owner: Any, name: str, point: str) -> None:
        call = getattr(owner, name)

        async def wrapped(*args: Any, **more: Any) -> Any:
            self.fire(point)
            return await call(*args, **more)

        self._put(owner, name, wrapped)

    def _after_async(self, owner: Any, name: str, point: str) -> None:
        call = getattr(owner, name)

        async def wrapped(*args: Any, **more: Any) -> Any:
            result = await call(*args, **more)
            self.fire(point)
            return result

        self._put(owner, name, wrapped)

    def _send(self) -> None:
        send = pinterest.Pinterest.send

        async def wrapped(destination: Any, batch: Any) -> Verdict:
            self.fire("send.before")
            verdict = await send(destination, batch)
            self.fire("send.after")
            return verdict

        self._put(pinterest.Pinterest, "send", wrapped)

    def _checkpoints(self) -> None:
        make = upkeep.Upkeep.__init__

        def wrapped(this: Any, connection: Any, *args: Any, **more: Any) -> None:
            make(this, cast("sqlite3.Connection", _Checkpointing(connection, self)), *args, **more)

        self._put(upkeep.Upkeep, "__init__", wrapped)

    def checkpoint(self, run: Callable[[], Any]) -> Any:
        """Run a checkpoint; an ``exit`` comes in the middle of it, from another thread."""
        action = self._due("checkpoint")
        if action == "raise":
            raise sqlite3.OperationalError("planted at checkpoint")
        if action == "exit":
            threading.Thread(target=_end_midway, daemon=True).start()
            result = run()
            time.sleep(1.0)  # it was quicker: the end comes right after it
            return result
        return run()

    def _commits(self) -> None:
        make = writer.Writer.__init__

        def wrapped(this: Any, connection: Any, *args: Any, **more: Any) -> None:
            make(this, cast("sqlite3.Connection", _Committing(connection, self)), *args, **more)

        self._put(writer.Writer, "__init__", wrapped)

    def commit(self, run: Callable[[], Any]) -> Any:
        """Run a COMMIT of the writer."""
        job, self._job = self._job, ""
        if job:
            self.fire(f"{job}.before_commit")
        result = run()
        if job:
            self.fire(f"{job}.after_commit")
        return result

    def begin(self) -> None:
        """Forget what the last transaction was about."""
        self._job = ""

    def _migrations(self) -> None:
        def planted(step: schema.Migration) -> schema.Migration:
            def wrapped(connection: sqlite3.Connection) -> None:
                step(connection)
                self.fire("migrate")

            return wrapped

        steps: Sequence[schema.Migration] = tuple(map(planted, schema.MIGRATIONS))
        self._put(schema, "MIGRATIONS", steps)
        self._after(schema, "_migrate", "migrated")
        self._put(schema, "shutil", _Copying(self))


class _Copying:
    """What the schema sees of ``shutil``."""

    def __init__(self, points: Failpoints) -> None:
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(shutil, name)

    def copy2(self, source: Path, target: Path) -> None:
        """Copy a file in two halves, with a point between them and one behind."""
        content = Path(source).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        self._points.fire("migrate.copy")
        shutil.copy2(source, target)
        self._points.fire("migrate.copied")


def _end_midway() -> None:
    time.sleep(_MIDWAY_S)
    os._exit(EXIT_CODE)


class _Connection:
    """A connection whose statements can be watched."""

    def __init__(self, connection: Any, points: Failpoints) -> None:
        self._connection = connection
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Committing(_Connection):
    """What the writer sees."""

    def execute(self, statement: str, *values: Any) -> Any:
        """Run a statement, with the points around COMMIT."""
        if statement.startswith("BEGIN"):
            self._points.begin()
        if statement == "COMMIT":
            return self._points.commit(lambda: self._connection.execute(statement, *values))
        return self._connection.execute(statement, *values)


class _Checkpointing(_Connection):
    """What upkeep sees."""

    def execute(self, statement: str, *values: Any) -> Any:
        """Run a statement, with the point in a checkpoint."""
        if "wal_checkpoint" in statement:
            return self._points.checkpoint(lambda: self._connection.execute(statement, *values))
        return self._connection.execute(statement, *values)


def from_environment() -> Failpoints | None:
    """Plant what ``HARNESS_FAILPOINT`` says; ``HARNESS_REACHED`` is a file that is told what fired."""
    text = os.environ.get("HARNESS_FAILPOINT")
    if not text:
        return None
    told = os.environ.get("HARNESS_REACHED")
    points = Failpoints(Path(told) if told else None)
    for one in text.split(","):
        name, action, nth = one.split(":")
        points.arm(name, action, int(nth))  # type: ignore[arg-type]
    points.install()
    return points
