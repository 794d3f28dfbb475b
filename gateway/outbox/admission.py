"""
Admission: which units of a batch are new, and which meet an event that is already known.

One call decides for all requests of a group commit: one look-up of all their marks, then decisions in Python in order
of arrival (a unit may meet one of the same batch), then bulk writes. Runs on the writer's thread inside its
transaction.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from gateway.event import SealedEvent
from gateway.merge import signals
from gateway.outbox import Admission, Join, Lane, Mark, Memorandum, Remembered, Unit
from gateway.outbox.door import Door
from gateway.outbox.memories import Memories
from gateway.outbox.records import pack, split, unpack
from gateway.outbox.statements import by_ids, chunks, insert_rows
from gateway.outbox.targets import DEAD as DEAD
from gateway.outbox.targets import DOOMED as DOOMED
from gateway.outbox.targets import TOMBSTONE_S as TOMBSTONE_S
from gateway.outbox.targets import WAITING as WAITING
from gateway.outbox.targets import Sent, Target
from gateway.outbox.targets import settled as settled
from gateway.outcome import Fate, Settled

_REPLACE_MARK = (
    "ON CONFLICT (digest) DO UPDATE SET unit = excluded.unit, expires = excluded.expires, event_id = excluded.event_id"
)


class Batch:
    """
    The decisions of one group commit.

    ``leased`` maps leased unit ids, ``erased`` subjects to the time of the request, ``sent`` delivered units to what
    they carried. ``door`` counts.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lanes: Mapping[Lane, int],
        next_unit: int,
        now: float,
        leased: Mapping[int, str],
        erased: Mapping[bytes, float],
        sent: Mapping[int, Sent],
        memories: Memories,
    ) -> None:
        self._connection = connection
        self._lanes = lanes
        self._now = now
        self._leased = leased
        self._erased = erased
        self.door = Door(sent)
        self._table = memories
        self.next_unit = next_unit
        #: Change of the number of waiting and dead units by lane id, for the counters kept in memory.
        self.waiting: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        #: Units that were taken away while a sender holds them.
        self.doomed: set[int] = set()
        self._known: dict[bytes, Target] = {}
        self._targets: dict[int, Target] = {}
        self._new: dict[int, tuple[Unit, Target]] = {}
        #: What is to be remembered, by key.
        self.memories: dict[bytes, Remembered] = {}
        #: The numbers of their records, after :meth:`flush`.
        self.remembered: dict[bytes, int] = {}
        self._marks: dict[bytes, tuple[int, int, str | None]] = {}

    def load(self, requests: Iterable[Sequence[Unit]]) -> None:
        """Look up the marks of every unit of the batch at once."""
        digests = list({mark.digest for units in requests for unit in units for mark in unit.marks})
        for chunk, size in chunks(digests):
            holes = ",".join("?" * size)
            padded = chunk + [chunk[-1]] * (size - len(chunk))
            found = self._connection.execute(
                "SELECT m.digest, m.unit, m.expires, m.event_id, u.state, u.lane, u.attempts"
                f" FROM mark m LEFT JOIN unit u ON u.id = m.unit WHERE m.digest IN ({holes})",
                padded,
            )
            for digest, unit, expires, event_id, state, lane, attempts in found:
                if state is None and expires <= self._now:
                    continue
                target = self._targets.get(unit)
                if target is None:
                    target = self._targets[unit] = Target(unit, event_id)
                    target.state, target.lane, target.attempts = state, lane or 0, attempts or 0
                target.event_id = target.event_id or event_id
                self._known[digest] = target

    def admit(self, unit: Unit, join: Join | None) -> Admission:
        """Decide one unit, and count it; writes are kept for :meth:`flush`."""
        seen = self.door.first_told(unit, self._met(unit), self._known, self._event) if unit.event.tag else None
        admission = self._decide(unit, join)
        self.door.decided(unit, admission)
        if seen is not None and admission.fate in ("accepted", "merged", "duplicate"):
            self.door.tag_seen(unit, seen if seen.is_sent else None)
        return admission

    def _decide(self, unit: Unit, join: Join | None) -> Admission:
        if self._erased and any(unit.event.event_time < self._erased.get(subject, 0.0) for subject in unit.subjects):
            return Admission(fate="dropped", reason="erased")
        if unit.memories:
            self.remember(unit.memories)
        met = self._met(unit)
        if unit.consent == "denied":
            return self._deny(unit, met)
        if any(target.is_tombstone for target in met):
            if unit.consent != "granted" or any(
                unit.event.event_time < -target.unit for target in met if target.is_tombstone
            ):
                self._bury(unit.marks, max(-target.unit for target in met if target.is_tombstone))
                return Admission(fate="dropped", reason="consent")
            met = [target for target in met if not target.is_tombstone]
        if unit.event.unsigned:
            # it proves nothing: it may add to one event, and not say that two are the same
            met = met[-1:]
        return self._place(unit, met, join)

    def _place(self, unit: Unit, met: list[Target], join: Join | None, *, release: bool = False) -> Admission:
        """Find the unit's place among those it met; ``release``: its conversion need not be held any longer."""
        live = [target for target in met if target.state in (WAITING, DEAD)]
        if join and not unit.event.unsigned and (public := [one for one in live if self._event(one).unsigned]):
            return self._sign(unit, public, join)
        sent = next((target for target in met if target.state not in (WAITING, DEAD)), None)
        if not met:
            # what is held may still be completed: it is refused when it is claimed
            if unit.refusal is None or unit.hold_s > 0:
                return self._insert(unit)
            return Admission(fate="dropped", reason=unit.refusal)
        if sent is not None:
            return self._duplicate(unit, sent, live)
        return self._merge(unit, live, join, release=release)

    def remember(self, memories: Iterable[Memorandum]) -> None:
        """Keep for :meth:`flush` what is remembered, unless its person was erased since."""
        for digest, record, since in memories:
            if self._erased and any(since < self._erased.get(subject, 0.0) for subject in (digest, *record.subjects)):
                continue
            self.memories[digest] = record

    def flush(self) -> None:
        """Write what was decided: new units, new marks, what is remembered, in bulk."""
        rows = [
            (
                number,
                self._lanes[unit.lane],
                target.event.event_time,
                self._now + unit.hold_s if unit.hold_s and not target.released else 0.0,
                target.event.accepted_at,
                target.marks,
                b"".join(unit.subjects),
                pack(target.event),
            )
            for number, (unit, target) in self._new.items()
            if target.event is not None
        ]
        insert_rows(self._connection, "INSERT INTO unit", "(?,?,0,?,?,?,0,0,NULL,NULL,?,?,?)", "", rows)
        marks = [(digest, *self._marks[digest]) for digest in sorted(self._marks)]
        insert_rows(self._connection, "INSERT INTO mark", "(?,?,?,?)", _REPLACE_MARK, marks)
        if self.memories:
            self.remembered = self._table.write(self.memories)

    def _met(self, unit: Unit) -> list[Target]:
        found: dict[int, Target] = {}
        for mark in unit.marks:
            target = self._known.get(mark.digest)
            if target is not None:
                found[target.unit] = target
        return list(found.values())

    def _insert(self, unit: Unit) -> Admission:
        number = self.next_unit
        self.next_unit += 1
        target = Target(number, unit.event.event_id)
        target.state, target.lane, target.event = WAITING, self._lanes[unit.lane], unit.event
        self._new[number] = (unit, target)
        self._targets[number] = target
        self._adopt(unit, target)
        self.waiting[target.lane] = self.waiting.get(target.lane, 0) + 1
        return Admission(fate="accepted", unit=format(number, "x"))

    def _adopt(self, unit: Unit, target: Target) -> None:
        """Let the unit's marks stand for the target from now on; those that already do keep their expiry."""
        added = b""
        for mark in unit.marks:
            known = self._known.get(mark.digest)
            if known is not None and known.unit == target.unit:
                continue
            self._known[mark.digest] = target
            is_told = mark.business or unit.event.event_id != target.event_id
            event_id = target.event_id if is_told else None  # who meets an id by its mark knows it
            self._marks[mark.digest] = (target.unit, int(self._now + mark.lifetime_s), event_id)
            added += mark.digest
        if not added or target.state is None:
            return
        if target.unit not in self._new:
            self._event(target)  # its marks with it: SQLite's own concatenation would turn them into text
        target.marks += added
        if target.unit not in self._new:
            self._connection.execute("UPDATE unit SET marks = ? WHERE id = ?", (target.marks, target.unit))

    def _duplicate(self, unit: Unit, sent: Target, live: Sequence[Target]) -> Admission:
        """
        Make this copy, and waiting ones that turn out to be the same, duplicates of an event that went out already.
        """
        # only an id mark carries no event id, and it is met by the same id alone
        sent.event_id = sent.event_id or unit.event.event_id
        carried = self.door.sent(sent)
        source = carried.source if carried is not None else None
        self.door.met(unit.event, unit.lane.destination, "duplicate", source)
        ended = tuple(self._end(target, "dropped", "duplicate", met=source or "?") for target in live)
        for target in live:
            self._readdress(target, sent)
        if not unit.event.unsigned:
            self._adopt(unit, sent)
        missed = () if carried is None else tuple(sorted(signals(unit.event) - carried.signals))
        return Admission(fate="duplicate", of=sent.event_id, unit=format(sent.unit, "x"), ended=ended, missed=missed)

    def _sign(self, unit: Unit, public: Sequence[Target], join: Join) -> Admission:
        """
        Let a signed copy take the place of unsigned ones, with their signals.

        Of their keys only those stay that it has itself, and they were never sent, so nothing of them is frozen.
        """
        event, subjects, ended = unit.event, unit.subjects, []
        for target in sorted(public, key=lambda one: one.unit):
            event = join(event, self._event(target), False)
            subjects += self._subjects(target)
            for digest in split(target.marks):
                self._known.pop(digest, None)
                self._marks.pop(digest, None)
            by_ids(self._connection, "DELETE FROM mark WHERE digest IN ({})", split(target.marks))
            ended.append(self._end(target, "merged", None, met=unit.event.source))
        subjects = tuple(dict.fromkeys(subjects))
        signed = structs.replace(unit, event=event, subjects=subjects, hold_s=0.0, refusal=None)
        admission = self._place(signed, self._met(unit), join, release=True)
        told = {"of": event.event_id, "event": event} if admission.fate == "accepted" else {}
        return structs.replace(admission, ended=(*ended, *admission.ended), **told)

    def _merge(self, unit: Unit, live: list[Target], join: Join | None, *, release: bool) -> Admission:
        """
        Fill the waiting event with what the copy adds; join a second waiting one into the first; revive a dead one.
        """
        live.sort(key=lambda target: (not self._is_frozen(target), target.state != WAITING, target.unit))
        kept, others = live[0], live[1:]
        event = self._event(kept)
        if join is None and kept.state == WAITING and not others:
            self._adopt(unit, kept)
            self.door.met(unit.event, unit.lane.destination, "duplicate", event.source)
            return Admission(fate="duplicate", of=event.event_id, unit=format(kept.unit, "x"))
        frozen, ended, subjects = self._is_frozen(kept), [], unit.subjects
        for other in others:
            event = join(event, self._event(other), frozen) if join else event
            subjects += self._subjects(other)
            ended.append(self._end(other, "merged", None, met=event.source))
        merged = join(event, unit.event, frozen) if join else event
        met_other_side = any(copy.born != event.born for copy in (unit.event, *map(self._event, others)))
        # an exact copy is a duplicate, whether or not the first one was sent meanwhile
        adds = merged != event or others or met_other_side or kept.state != WAITING
        fate: Fate = "merged" if adds else "duplicate"
        self.door.met(unit.event, unit.lane.destination, fate, event.source)
        # a retry keeps its own time
        self._store(kept, merged, unit, subjects, release=(met_other_side or release) and not frozen)
        if event.unsigned or not unit.event.unsigned:
            self._adopt(unit, kept)
        for other in others:
            self._readdress(other, kept)
        return Admission(fate=fate, of=merged.event_id, unit=format(kept.unit, "x"), ended=tuple(ended), event=merged)

    def _is_frozen(self, target: Target) -> bool:
        return target.attempts > 0 or target.unit in self._leased

    def _event(self, target: Target) -> SealedEvent:
        if target.event is None:
            row = self._connection.execute("SELECT event, marks FROM unit WHERE id = ?", (target.unit,)).fetchone()
            target.event, target.marks = unpack(row[0]), row[1]
            target.event_id = target.event.event_id
        return target.event

    def _subjects(self, target: Target) -> tuple[bytes, ...]:
        if target.unit in self._new:
            return self._new[target.unit][0].subjects
        (known,) = self._connection.execute("SELECT subjects FROM unit WHERE id = ?", (target.unit,)).fetchone()
        return tuple(split(known))

    def _store(
        self, kept: Target, merged: SealedEvent, unit: Unit, subjects: tuple[bytes, ...], *, release: bool
    ) -> None:
        if kept.state == DEAD:
            self.door.revived(merged, unit.lane.destination)
            self.dead[kept.lane] = self.dead.get(kept.lane, 0) - 1
            self.waiting[kept.lane] = self.waiting.get(kept.lane, 0) + 1
            release = True
        if merged.event_id != kept.event_id:
            self._rename(kept, merged.event_id)
        kept.state, kept.event = WAITING, merged
        subjects = tuple(dict.fromkeys((*self._subjects(kept), *subjects)))
        if kept.unit in self._new:
            kept.released = kept.released or release
            self._new[kept.unit] = (structs.replace(self._new[kept.unit][0], subjects=subjects), kept)
            return
        content = (merged.event_time, pack(merged), b"".join(subjects))
        self._connection.execute(
            "UPDATE unit SET state = 0, ended_at = NULL, reason = NULL, event_time = ?, event = ?, subjects = ?,"
            " accepted_at = CASE WHEN state = 0 THEN accepted_at ELSE ? END,"  # a revived one has its retry life again
            " due = CASE WHEN ? THEN min(due, ?) ELSE due END WHERE id = ?",
            (*content, unit.event.accepted_at, release, self._now, kept.unit),
        )

    def _rename(self, target: Target, event_id: str) -> None:
        """Let the target's marks name the id that will leave."""
        target.event_id = event_id
        digests = split(target.marks)
        self._marks |= {one: (*self._marks[one][:2], event_id) for one in digests if one in self._marks}
        by_ids(self._connection, "UPDATE mark SET event_id = ? WHERE digest IN ({})", digests, (event_id,))

    def _readdress(self, other: Target, kept: Target) -> None:
        for digest in split(other.marks):
            self._known[digest] = kept
            if digest in self._marks:
                _, expires, _ = self._marks[digest]
                self._marks[digest] = (kept.unit, expires, kept.event_id)
            else:
                self._connection.execute(
                    "UPDATE mark SET unit = ?, event_id = ? WHERE digest = ?", (kept.unit, kept.event_id, digest)
                )
        kept.marks += other.marks
        if kept.unit not in self._new:
            self._connection.execute("UPDATE unit SET marks = ? WHERE id = ?", (kept.marks, kept.unit))

    def _deny(self, unit: Unit, met: Sequence[Target]) -> Admission:
        """Withdraw waiting copies and remember the choice under the event's keys."""
        live = [target for target in met if target.state in (WAITING, DEAD)]
        ended = []
        for target in live:
            self._event(target)
            ended.append(self._end(target, "dropped", "consent"))
        marks = list(unit.marks)
        at = max(1, unit.event.event_time)
        for target in live:
            marks += [Mark(digest=digest, lifetime_s=TOMBSTONE_S) for digest in split(target.marks)]
        self._bury(marks, at)
        return Admission(fate="dropped", reason="consent", ended=tuple(ended))

    def _bury(self, marks: Iterable[Mark], at: float) -> None:
        tombstone = Target(-int(at), None)
        for mark in marks:
            known = self._known.get(mark.digest)
            if known is not None and known.state is None and not known.is_tombstone:
                continue  # it was delivered: that fact must not be forgotten
            self._known[mark.digest] = tombstone
            self._marks[mark.digest] = (tombstone.unit, int(self._now + TOMBSTONE_S), None)

    def _end(self, target: Target, end: str, reason: str | None, *, met: str | None = None) -> Settled:
        """
        Take a waiting or dead unit away; a leased one is doomed and ends when its lease does.

        ``met``: the source of the event that it turned out to be the same as.
        """
        event = self._event(target)
        lane = next(lane for lane, number in self._lanes.items() if number == target.lane)
        told = settled(target.unit, lane, event, end, reason)
        self.door.ended(told, target.state)
        if met is not None:
            self.door.met(event, lane.destination, "merged" if end == "merged" else "duplicate", met)
        counters = self.dead if target.state == DEAD else self.waiting
        counters[target.lane] = counters.get(target.lane, 0) - 1
        if target.unit in self._new:
            del self._new[target.unit]
        elif target.unit in self._leased:
            self.doomed.add(target.unit)
            self._connection.execute(
                "UPDATE unit SET state = 2, ended_at = ?, reason = ? WHERE id = ?",
                (self._now, reason or end, target.unit),
            )
        else:
            self._connection.execute("DELETE FROM unit WHERE id = ?", (target.unit,))
        target.state = DOOMED
        return told
