"""
The oracle: what became of each id, from what clients were told, what the sandbox received and what the store holds.

Every accepted id ends in exactly one of *delivered*, *dead*, *queued*, *dropped*, *merged* and *duplicate*; the last
two are followed to the event that they met, over any number of steps. *Lost* is an accepted id that ends in none, and
one that was suppressed although nothing else of its conversion was accepted (*suppressed*). *Phantom*: a delivered id
that nobody sent, or that was answered 4xx, rejected or dropped; *disowned*: one that was answered 503 and nothing else.
*Corrupt*: a delivered event that is not what its id says. *Leaked*: a key that was accepted twice, or a conversion that
arrived under two ids though a key told that they are one.
"""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.event import Struct
from gateway.outbox.records import unpack
from gateway.outbox.schema import connect_reader
from tests.harness.load import Load, Told
from tests.harness.mix import group_of, is_as_posted, keys_of, kind_of, may_end_unseen
from tests.harness.processes import GatewayProcess, SandboxProcess

_ID_BYTES = 8
#: So many events does the sandbox keep; so many may arrive between two requests to it.
_KEPT, _MEANWHILE = 10_000, 1_000
_TRIES = 20
_ACCEPTED = frozenset({"accepted", "merged", "duplicate"})


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


class Held(Struct, frozen=True):
    """What a store holds, by event id; ``twice`` are those that it knows may have arrived already."""

    queued: Counter[str]
    dead: Counter[str]
    twice: frozenset[str]


def held(store: Path) -> Held:
    """Read the units of a store, in use or not."""
    reader = connect_reader(store)
    try:
        rows = reader.execute("SELECT state, twice, event FROM unit WHERE state < 2").fetchall()
    finally:
        reader.close()
    found = [(state, twice, unpack(event).event_id) for state, twice, event in rows]
    return Held(
        queued=Counter(event_id for state, _, event_id in found if state == 0),
        dead=Counter(event_id for state, _, event_id in found if state == 1),
        twice=frozenset(event_id for _, twice, event_id in found if twice),
    )


class Balance(Struct, frozen=True):
    """
    The account of one run, by event id.

    ``accepted`` is the sum of ``delivered_accepted``, ``dead_accepted``, ``queued``, ``dropped``, ``merged``,
    ``duplicate`` and the lost ones. ``delivered`` and ``dead`` count ids that clients know nothing of, too. ``again``
    are ids that arrived more than once, with their further copies.
    """

    accepted: int
    delivered: int
    dead: int
    lost: frozenset[str]
    phantom: frozenset[str]
    corrupt: int
    again: dict[str, int]
    by_fate: dict[str, int] = msgspec.field(default_factory=dict)
    disowned: frozenset[str] = frozenset()
    suppressed: frozenset[str] = frozenset()
    leaked: frozenset[str] = frozenset()
    overlapping: frozenset[str] = frozenset()

    @property
    def copies(self) -> int:
        """How many copies more than events arrived."""
        return sum(self.again.values())

    @property
    def faults(self) -> dict[str, list[str]]:
        """Whatever must not be, by name, a few ids of each; empty when all is well."""
        sets = {
            "lost": self.lost, "phantom": self.phantom, "disowned": self.disowned, "suppressed": self.suppressed,
            "leaked": self.leaked, "overlapping": self.overlapping,
            "corrupt": [str(self.corrupt)] if self.corrupt else [],
        }  # fmt: skip
        return {name: sorted(ids)[:10] for name, ids in sets.items() if ids}


def settle(
    told: Mapping[str, Sequence[Told]], received: Mapping[str, int], store: Held, corrupt: int = 0,
    gone: frozenset[str] = frozenset(),
) -> Balance:  # fmt: skip
    """
    Settle an account; pure.

    Args:
        told: What was answered to each copy of each id.
        received: How many copies of each id the vendor took.
        store: What the store holds.
        corrupt: Delivered events that were not what their id says.
        gone: Ids that somebody erased or discarded.
    """
    account = _Account(told, received, store, gone)
    accepted = {event_id for event_id, copies in told.items() if any(one.outcome in _ACCEPTED for one in copies)}
    fates = {event_id: account.fate(event_id) for event_id in accepted}
    suppressed = account.suppressed()
    refused = {
        event_id
        for event_id, copies in told.items()
        if all(one.outcome in ("dropped", "rejected", "refused") for one in copies)
    }
    unavailable = {event_id for event_id in refused if all(_is_unavailable(one) for one in told[event_id])}
    return Balance(
        accepted=len(accepted),
        delivered=len(received),
        dead=len(store.dead),
        lost=frozenset({event_id for event_id, fate in fates.items() if fate is None} | suppressed),
        phantom=frozenset((received.keys() - told.keys()) | (received.keys() & (refused - unavailable))),
        corrupt=corrupt,
        again={event_id: count - 1 for event_id, count in received.items() if count > 1},
        by_fate=dict(Counter(fate for event_id, fate in fates.items() if fate and event_id not in suppressed)),
        disowned=frozenset(received.keys() & unavailable),
        suppressed=suppressed,
        leaked=account.leaked(),
        overlapping=account.overlapping(),
    )


def _is_unavailable(copy: Told) -> bool:
    return copy.outcome == "refused" and copy.reason == "503"


class _Account:
    """The look-ups of one settlement."""

    def __init__(
        self, told: Mapping[str, Sequence[Told]], received: Mapping[str, int], store: Held, gone: frozenset[str]
    ) -> None:
        self._told = told
        self._received = received
        self._store = store
        self._gone = gone
        self._groups: dict[str, list[str]] = {}
        for event_id in told:
            self._groups.setdefault(group_of(event_id), []).append(event_id)

    def _end(self, event_id: str) -> str | None:
        """Return where the event itself is."""
        if event_id in self._received:
            return "delivered"
        if event_id in self._store.dead:
            return "dead"
        return "queued" if event_id in self._store.queued else None

    def fate(self, event_id: str) -> str | None:
        """Return what became of an accepted id, None when nothing did."""
        end = self._end(event_id)
        if end is not None:
            return end
        for copy in self._told[event_id]:
            if copy.outcome in ("merged", "duplicate") and copy.of is not None and self._leads(copy.of, {event_id}):
                return copy.outcome
        if self._was_joined(event_id):
            return "merged"
        return "dropped" if self._may_be_gone(event_id) else None

    def _may_be_gone(self, event_id: str) -> bool:
        return event_id in self._gone or may_end_unseen(event_id)

    def _leads(self, event_id: str, seen: set[str]) -> bool:
        """Whether what a copy met is somewhere, over any number of steps."""
        if self._end(event_id) is not None or self._may_be_gone(event_id):
            return True
        if event_id in seen:
            return False
        steps = [copy.of for copy in self._told.get(event_id, ()) if copy.of is not None]
        return any(self._leads(step, {*seen, event_id}) for step in steps) or self._was_joined(event_id)

    def _was_joined(self, event_id: str) -> bool:
        """Whether a later copy made this event and one of its group the same, and that one is somewhere."""
        mates = [mate for mate in self._groups.get(group_of(event_id), ()) if mate != event_id]
        joins = any(copy.outcome in ("merged", "duplicate", "unknown") for mate in mates for copy in self._told[mate])
        return joins and any(self._end(mate) is not None for mate in mates)

    def suppressed(self) -> frozenset[str]:
        """Return ids that were suppressed although nothing of their conversion had been accepted or left in doubt."""
        found = set()
        for ids in self._groups.values():
            copies = [(event_id, copy) for event_id in ids for copy in self._told[event_id]]
            first = min(
                (copy.asked_at for _, copy in copies if copy.outcome in ("accepted", "unknown")), default=float("inf")
            )
            found |= {
                event_id
                for event_id, copy in copies
                if copy.outcome in ("merged", "duplicate") and copy.told_at < first
            }
        return frozenset(found)

    def leaked(self) -> frozenset[str]:
        """Return keys accepted more than once, and conversions that arrived under two ids with a common key."""
        keys = Counter(
            key
            for event_id, copies in self._told.items()
            if kind_of(event_id) not in ("withdrawn", "held")  # a drop leaves no mark
            for copy in copies
            if copy.outcome == "accepted"
            for key in keys_of(event_id)
        )
        groups = {
            group
            for group, ids in self._groups.items()
            if len(ids) > 1 and _share_a_key([event_id for event_id in ids if event_id in self._received])
        }
        return frozenset({key for key, count in keys.items() if count > 1} | groups)

    def overlapping(self) -> frozenset[str]:
        """Return ids that are in two places, of which the store does not say that they may have arrived."""
        places = [self._received.keys() - self._store.twice, self._store.queued.keys(), self._store.dead.keys()]
        counted = Counter(event_id for place in places for event_id in place)
        rows = self._store.queued + self._store.dead
        return frozenset(
            {event_id for event_id, count in counted.items() if count > 1}
            | {event_id for event_id, count in rows.items() if count > 1}
        )


def _share_a_key(ids: Iterable[str]) -> bool:
    counted = Counter(key for event_id in ids for key in keys_of(event_id))
    return any(count > 1 for count in counted.values())


class Oracle:
    """
    Watches one sandbox and one gateway.

    Args:
        is_whole: The content of every event is checked, for which :meth:`look` must be called at least once for 10,000
            of them (the sandbox keeps no more); if not, that of those which are still there. Ids are always complete,
            but of test events only those are known that were looked at.
    """

    def __init__(self, sandbox: SandboxProcess, gateway: GatewayProcess, *, is_whole: bool = True) -> None:
        self._is_whole = is_whole
        self._sandbox = sandbox
        self._gateway = gateway
        self._seen = 0
        self._tests_seen = 0
        self._tests: Counter[str] = Counter()
        self.corrupt = 0
        self.sample: list[dict[str, Any]] = []

    def look(self) -> None:
        """Check the content of what arrived since the last look; some of it, arriving meanwhile, is checked twice."""
        processed = self._sandbox.counts()["processed"]
        new = processed - self._seen
        assert new <= _KEPT or not self._is_whole, "look more often: the sandbox has forgotten events"
        events = self._sandbox.events(min(new + _MEANWHILE, _KEPT)) if new else []
        self._seen = processed
        tested = self._look_at_tests()
        self.corrupt += sum(not is_as_posted(event) for event in [*events, *tested])
        self.sample += events[: max(0, 200 - len(self.sample))]

    def _look_at_tests(self) -> list[dict[str, Any]]:
        """Return the test events that are new; counted only when none arrived meanwhile, or one would be missed."""
        for _ in range(_TRIES):
            count = self._sandbox.counts()["tests"]["processed"]
            if count == self._tests_seen:
                break
            events = self._sandbox.events(count - self._tests_seen, test=True)
            if self._sandbox.counts()["tests"]["processed"] == count:
                self._tests_seen = count
                self._tests.update(event["event_id"] for event in events)
                return events
        return []

    def balance(self, load: Load, *, drained: bool = True, gone: frozenset[str] = frozenset()) -> Balance:
        """Settle the account; ``drained``: the queue must be empty by now. ``gone``: see :func:`settle`."""
        self.look()
        assert not drained or self._gateway.queued() == 0, "drain first"
        copies = Counter({key.partition(" ")[2]: count for key, count in self._sandbox.ids().items()})
        return settle(load.told, copies + self._tests, held(self._gateway.store), self.corrupt, gone)
