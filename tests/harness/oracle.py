"""
The oracle: what became of each id, from what clients were told, what the sandbox received and what the store holds.

Definitions: *accepted* is what a client read a 2xx for; *lost* an accepted id that is neither delivered,
dead nor queued; *phantom* a delivered id that nobody sent or that was refused; *corrupt* a delivered event
that is not what its id says.
"""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from gateway.event import Struct
from gateway.outbox.records import unpack
from tests.harness.load import Load, is_as_posted
from tests.harness.processes import GatewayProcess, SandboxProcess

_ID_BYTES = 8


class Snapshot(Struct, frozen=True):
    """A store as a kill left it: whether SQLite finds it sound, and the events that were in flight."""

    is_sound: bool
    in_flight: frozenset[str]


def snapshot(store: Path) -> Snapshot:
    """Read a copy of the store's files: opening the file itself would do the recovery that is to be tested."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            part = store.with_name(store.name + suffix)
            if part.exists():
                shutil.copy(part, Path(folder) / part.name)
        connection = sqlite3.connect(Path(folder) / store.name)
        try:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            units: set[int] = set()
            for (packed,) in connection.execute("SELECT units FROM lease"):
                units |= {int.from_bytes(packed[at : at + _ID_BYTES], "big") for at in range(0, len(packed), _ID_BYTES)}
            found = {
                unpack(event).event_id
                for number, event in connection.execute("SELECT id, event FROM unit")
                if number in units
            }
        finally:
            connection.close()
    return Snapshot(is_sound=verdict == "ok", in_flight=frozenset(found))


class Balance(Struct, frozen=True):
    """The account of one run, by event id; ``again`` are ids that arrived more than once, with their further copies."""

    accepted: int
    delivered: int
    dead: int
    lost: frozenset[str]
    phantom: frozenset[str]
    corrupt: int
    again: dict[str, int]

    @property
    def copies(self) -> int:
        """How many copies more than events arrived."""
        return sum(self.again.values())


class Oracle:
    """
    Watches one sandbox and one gateway.

    Args:
        is_whole: The content of every event is checked, for which :meth:`look` must be called at least once for 10,000
            of them (the sandbox keeps no more); if not, that of those which are still there. Ids are always complete.
    """

    def __init__(self, sandbox: SandboxProcess, gateway: GatewayProcess, *, is_whole: bool = True) -> None:
        self._is_whole = is_whole
        self._sandbox = sandbox
        self._gateway = gateway
        self._seen = 0
        self.corrupt = 0
        self.sample: list[dict[str, Any]] = []

    def look(self) -> None:
        """Check the content of what arrived since the last look."""
        processed = self._sandbox.counts()["processed"]
        new = processed - self._seen
        assert new <= 10_000 or not self._is_whole, "look more often: the sandbox has forgotten events"
        events = self._sandbox.events(new) if new else []
        self._seen = processed
        self.corrupt += sum(not is_as_posted(event) for event in events)
        self.sample += events[: max(0, 200 - len(self.sample))]

    def balance(self, load: Load) -> Balance:
        """Settle the account; the queue must be empty by now."""
        self.look()
        assert self._gateway.queued() == 0, "drain first"
        copies = {key.partition(" ")[2]: count for key, count in self._sandbox.ids().items()}
        letters = self._gateway.api("GET", "/api/dead?limit=1000")["letters"]
        dead = {letter["event_id"] for letter in letters}
        return Balance(
            accepted=len(load.accepted),
            delivered=len(copies),
            dead=len(dead),
            lost=frozenset(load.accepted - copies.keys() - dead),
            phantom=frozenset((copies.keys() - load.submitted) | (copies.keys() & load.refused)),
            corrupt=self.corrupt,
            again={event_id: count - 1 for event_id, count in copies.items() if count > 1},
        )
