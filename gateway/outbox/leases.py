"""
Leases: which waiting units a sender holds, and what becomes of them.

Which units are leased is known in memory; the list itself is one small row, so that after a crash the units of a lost
lease are known to have been attempted (their id and time are frozen, and an offline one may have arrived).
"""

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.event import SealedEvent
from gateway.merge import signals
from gateway.outbox import Claimed, Lane, Lease, Settlement
from gateway.outbox.records import split, unpack
from gateway.outbox.statements import by_ids, read_rows
from gateway.outbox.targets import DOOMED, Sent, settled
from gateway.outcome import Settled

After = Callable[[], None]


class Claim(NamedTuple):
    """A lease before its events are read."""

    token: str
    units: tuple[int, ...]
    deadline: float


class Ended(NamedTuple):
    """
    The units that a settlement ended, the delivered ones with what they carried, and how the numbers of waiting and
    dead ones change.
    """

    settled: tuple[Settled, ...]
    waiting: int
    dead: int
    delivered: tuple[tuple[SealedEvent, Sent], ...] = ()


def _nothing() -> None:
    """Nothing to remember."""


#: Source: Pinterest help page "The Pinterest API for Conversions": received within one hour of the event counts as web
#: or app.
FRESH_S = 3_600
_ID_BYTES = 8
#: So many delivered units are known by what they carried.
_SENT = 20_000
#: There are few combinations, and many units.
_MOST_KINDS = 10_000
_KINDS: dict[Sent, Sent] = {}
_CHOOSE = (
    "SELECT json_group_array(id) FROM (SELECT id FROM unit INDEXED BY unit_waiting"
    " WHERE state = 0 AND lane = ?1 AND event_time {} ?2 AND due <= ?3"
    " AND id NOT IN (SELECT value FROM json_each(?4)) ORDER BY event_time {} LIMIT ?5)"
)
_FRESH = _CHOOSE.format(">", "DESC")
_LATE = _CHOOSE.format("<=", "ASC")
_ATTEMPTED = "UPDATE unit SET attempts = attempts + 1, twice = 1 WHERE state = 0 AND id IN ({})"


class Ledger:
    """
    The leases of one process.

    Methods that write return what they mean for memory as a callable, to be called after the commit.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        #: Leased unit → token.
        self.units: dict[int, str] = {}
        #: Leased units that were withdrawn or erased meanwhile.
        self.doomed: set[int] = set()
        self._leases: dict[str, tuple[Lane, list[int], float]] = {}
        self._serial = 0
        #: What the latest delivered units carried: a late copy learns what it would have added.
        self.sent: dict[int, Sent] = {}

    def recover(self) -> int:
        """After a crash: units that were leased have been attempted, maybe successfully; returns how many."""
        recovered = 0
        for token, packed in self._connection.execute("SELECT token, units FROM lease").fetchall():
            units = unpack_ids(packed)
            recovered += len(units)
            by_ids(self._connection, _ATTEMPTED, units)
            self._connection.execute("DELETE FROM lease WHERE token = ?", (token,))
        self._connection.execute(f"DELETE FROM unit WHERE state = {DOOMED}")
        return recovered

    def leased(self, lane: Lane) -> int:
        """Return how many units of the lane are leased and not doomed."""
        held = [units for of, units, _ in list(self._leases.values()) if of == lane]
        if not self.doomed:
            return sum(map(len, held))
        return sum(unit not in self.doomed for units in held for unit in units)

    def claim(self, lane: Lane, number: int, limit: int, now: float, lease_s: float) -> tuple[Claim | None, After]:
        """
        Lease due units of the lane with this number: those of the last hour, newest first, then the others, oldest
        first. :meth:`read` gives the events.
        """
        held = json.dumps([unit for of, units, _ in self._leases.values() if of == lane for unit in units])
        chosen: list[int] = []
        for query in (_FRESH, _LATE):
            if len(chosen) < limit:
                values = (number, now - FRESH_S, now, held, limit - len(chosen))
                chosen += json.loads(self._connection.execute(query, values).fetchone()[0])
        if not chosen:
            return None, _nothing
        self._serial += 1
        token = f"{self._serial:x}"
        packed = b"".join(unit.to_bytes(_ID_BYTES, "big") for unit in chosen)
        self._connection.execute("INSERT INTO lease VALUES (?, ?)", (token, packed))

        def after() -> None:
            self._leases[token] = (lane, chosen, now + lease_s)
            self.units.update(dict.fromkeys(chosen, token))

        return Claim(token, tuple(chosen), now + lease_s), after

    def read(self, chosen: Sequence[int]) -> list[Claimed]:
        """Read leased units; one that was taken away since the claim is left out."""
        columns = ("event", "accepted_at", "attempts", "twice")
        return [
            Claimed(
                unit=format(unit, "x"),
                event=unpack(event),
                accepted_at=accepted_at,
                attempts=attempts,
                maybe_twice=bool(twice),
            )
            for unit, (event, accepted_at, attempts, twice) in read_rows(self._connection, columns, chosen)
            if event is not None and unit not in self.doomed
        ]

    def overdue(self, now: float) -> list[str]:
        """Return the tokens of leases whose deadline passed."""
        return [token for token, (_, _, deadline) in self._leases.items() if deadline <= now]

    def give_up(self, tokens: Sequence[str]) -> tuple[None, After]:
        """Forget lost leases; their units wait again, counted as attempted."""
        for token in tokens:
            units = self._leases[token][1]
            by_ids(self._connection, _ATTEMPTED, units)
            by_ids(self._connection, "DELETE FROM unit WHERE id IN ({})", list(self.doomed.intersection(units)))
            self._connection.execute("DELETE FROM lease WHERE token = ?", (token,))

        def after() -> None:
            for token in tokens:
                self._release(token)

        return None, after

    def _release(self, token: str) -> None:
        _, units, _ = self._leases.pop(token)
        for unit in units:
            self.units.pop(unit, None)
            self.doomed.discard(unit)

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this sender's."""
        return lease.token in self._leases

    def settle(self, lease: Lease, settlements: Sequence[Settlement], now: float) -> tuple[Ended, After]:
        """
        End or put back the lease's units; a lease that was lost settles nothing.

        Doomed units (withdrawn or erased while they were out) go whatever the answer was.
        """
        if not self.holds(lease):
            return Ended((), 0, 0), _nothing
        claimed = {unit.unit: unit for unit in lease.units}
        valid = [one for one in settlements if one.unit in claimed and int(one.unit, 16) not in self.doomed]
        valid = self._as_claimed(claimed, valid)
        dropped = [int(one.unit, 16) for one in valid if one.end == "dropped"]
        dead = [one for one in valid if one.end == "dead"]
        gone = [int(one.unit, 16) for one in valid if one.end in ("delivered", "dropped")]
        for _, (marks,) in read_rows(self._connection, ("marks",), dropped):
            forget(self._connection, marks)
        for values, units in _alike(valid, "retry", lambda one: (one.due, one.ambiguous, one.reason)):
            by_ids(self._connection, _PUT_BACK, units, values)
        for values, units in _alike(valid, "dead", lambda one: (now, one.reason or "refused", one.ambiguous)):
            by_ids(self._connection, _BURY, units, values)
        doomed = self.doomed.intersection(self._leases[lease.token][1])
        by_ids(self._connection, "DELETE FROM unit WHERE id IN ({})", [*gone, *doomed])
        self._connection.execute("DELETE FROM lease WHERE token = ?", (lease.token,))
        ended = tuple(
            settled(
                int(one.unit, 16), lease.lane, claimed[one.unit].event, one.end, one.reason,
                lateness_s=now - claimed[one.unit].event.event_time,
                maybe_twice=claimed[one.unit].maybe_twice or one.ambiguous,
                warning=one.warning,
            )
            for one in valid
            if one.end != "retry"
        )  # fmt: skip
        delivered = [claimed[one.unit] for one in valid if one.end == "delivered"]
        carried = {int(unit.unit, 16): _sent(unit.event) for unit in delivered}

        def after() -> None:
            self._release(lease.token)
            self._remember(carried)

        told = tuple([(unit.event, carried[int(unit.unit, 16)]) for unit in delivered])
        return Ended(ended, -len(gone) - len(dead), len(dead), told), after

    def _as_claimed(self, claimed: Mapping[str, Claimed], settlements: Sequence[Settlement]) -> list[Settlement]:
        """Leave out what is to be dropped as it was when claimed: a copy that came since may have completed it."""
        units = {int(one.unit, 16): one.unit for one in settlements if one.end == "dropped"}
        stored = read_rows(self._connection, ("event",), list(units))
        changed = {units[number] for number, (event,) in stored if unpack(event) != claimed[units[number]].event}
        return [one for one in settlements if one.unit not in changed]

    def _remember(self, delivered: Mapping[int, Sent]) -> None:
        sent = self.sent
        sent.update(delivered)
        for unit_id in list(itertools.islice(sent, max(0, len(sent) - _SENT))):
            del sent[unit_id]


def _sent(event: SealedEvent) -> Sent:
    found = Sent(signals(event), event.source, event.tag)
    if len(_KINDS) > _MOST_KINDS:
        _KINDS.clear()
    return _KINDS.setdefault(found, found)


_PUT_BACK = "UPDATE unit SET attempts = attempts + 1, due = ?, twice = twice OR ?, reason = ? WHERE id IN ({})"
_BURY = (
    "UPDATE unit SET state = 1, attempts = attempts + 1, ended_at = ?, reason = ?, twice = twice OR ? WHERE id IN ({})"
)


def _alike(
    settlements: Sequence[Settlement], end: str, values: Callable[[Settlement], tuple[object, ...]]
) -> Iterable[tuple[tuple[object, ...], list[int]]]:
    """Group the settlements of one end by what is to be written: a whole batch usually shares one row of values."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for one in settlements:
        if one.end == end:
            groups.setdefault(values(one), []).append(int(one.unit, 16))
    return groups.items()


def forget(connection: sqlite3.Connection, marks: bytes) -> None:
    """Free the keys of a unit that was never delivered: a better copy may come."""
    by_ids(connection, "DELETE FROM mark WHERE digest IN ({})", split(marks))


def unpack_ids(packed: bytes) -> list[int]:
    """Return the units of a lease."""
    return [int.from_bytes(packed[start : start + _ID_BYTES], "big") for start in range(0, len(packed), _ID_BYTES)]
