"""What is wrong now, read from the gateway's own counters: for each kind of alarm, where, and what was found."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from gateway.alarms.growth import Growth
from gateway.history import code_of
from gateway.outbox import Counts, Outbox
from gateway.tally import Tally

#: kind → where → detail; a kind that is not in it was not looked at.
Found = dict[str, dict[str, str]]
OLD_S = 1_800.0
_HOUR_S, _SHORT_S = 3_600.0, 600.0
_SHED, _FAILURES = 10, 5
#: Refused hits of a source that are an alarm when none is taken, and in any case.
_REFUSED, _REFUSED_MANY = 5, 100
#: States of a connection that wait for the operator.
_WAITING = frozenset({"held", "attention"})


class Watched(Protocol):
    """The part of a gateway that is watched."""

    clock: Callable[[], float]
    started_at: float
    outbox: Outbox
    tally: Tally
    sender: Any  # Sender
    quarantine: Any  # Quarantine
    audiences: Any  # Mirror
    parts: Any  # Parts

    @property
    def switched_off(self) -> set[str]:
        """Plugins that hung too often."""
        ...

    async def ready(self) -> str | None:
        """Return why the store cannot be written."""
        ...


class States:
    """Looks at one gateway."""

    def __init__(self, gateway: Watched) -> None:
        self._gateway = gateway
        now = gateway.clock()
        self._dead: Growth[tuple[str, ...]] = Growth(_HOUR_S, now)
        self._refused: Growth[tuple[str, ...]] = Growth(_HOUR_S, now)
        self._taken: Growth[str] = Growth(_HOUR_S, now)
        self._quarantine: Growth[tuple[str, ...]] = Growth(_HOUR_S, now)
        self._shed: Growth[tuple[str, ...]] = Growth(_SHORT_S, now)
        self._failed: Growth[tuple[str, ...]] = Growth(_SHORT_S, now)

    async def look(self) -> Found:
        """
        Look at everything but volumes.

        Raises:
            Unavailable: The store cannot be read.
        """
        found = await self._store()
        found |= self._counters()
        found["quarantined"] = {
            source: f"{_number(count, 'hit', 'hits')} of '{source}' could not be read."
            for source, count in self._gateway.quarantine.counts().items()
        }
        found["plugin_switched_off"] = {
            name: f"The plugin '{name}' hung several times in a row." for name in self._gateway.switched_off
        }
        found["audience_waiting"] = {
            str(one.id): f"{one.group_name} → {one.audience_name}: {one.message or one.state}"
            for one in await self._gateway.audiences.connections()
            if one.state in _WAITING
        }
        # last: with a store that cannot be read the rest is still known
        return found | self._lanes(await self._gateway.outbox.counts())

    async def _store(self) -> Found:
        outbox = self._gateway.outbox
        is_low = outbox.trouble is not None and outbox.failure is None
        problem = None if is_low else outbox.failure or await self._gateway.ready()
        return {
            "store_damaged": {told.partition(":")[0]: told for told in outbox.damaged},
            "disk_low": {"-": outbox.trouble or ""} if is_low else {},
            "store_unwritable": {"-": problem} if problem is not None else {},
        }

    def _lanes(self, counts: Counts) -> Found:
        now, waiting, oldest = self._gateway.clock(), Counter[str](), dict[str, float]()
        for lane in counts.lanes:
            waiting[lane.destination] += lane.waiting
            if lane.oldest_at is not None:
                oldest[lane.destination] = min(lane.oldest_at, oldest.get(lane.destination, now))
        paused, old = {}, {}
        for one in self._gateway.sender.lanes:
            name, state = one.state.destination, one.state
            events = _number(waiting[name], "event waits", "events wait")
            if state.state == "paused":
                paused[name] = f"'{name}' answers {code_of(state.reason) or 'refused'}; {events}."
            elif name in oldest and now - oldest[name] > OLD_S:
                old[name] = f"{events} for '{name}', the oldest for {int(now - oldest[name]) // 60} minutes."
        return {"lane_paused": paused, "queue_old": old}

    def _counters(self) -> Found:
        now, tally = self._gateway.clock(), self._gateway.tally
        dead: Counter[tuple[str, ...]] = Counter()
        for row, count in tally.events.items():
            if row.fate == "dead":
                dead[row.destination, row.reason] += count
        lost = {key: count for key, count in tally.quarantine.items() if key[1] in ("full", "failed")}
        shed = {key: count for key, count in tally.shed.items() if key[1] != "rate"}
        return {
            "dead_grows": _listed(self._dead.since(now, dead), 1, "dead letter", "dead letters", "hour"),
            "quarantine_full": _listed(self._quarantine.since(now, lost), 1, "hit", "hits", "hour"),
            "shed": _listed(self._shed.since(now, shed), _SHED, "hit refused", "hits refused", "10 minutes"),
            "plugin_failed": {
                name: f"{count} calls of the plugin '{name}' failed in the last 10 minutes."
                for (name,), count in self._failed.since(now, tally.plugin_failures).items()
                if count >= _FAILURES
            },
            "signature_refused": self._signatures(now),
        }

    def _signatures(self, now: float) -> dict[str, str]:
        tally = self._gateway.tally
        good: Counter[str] = Counter()
        for (source, status), count in tally.hits.items():
            if status.startswith("2"):
                good[source] += count
        taken = self._taken.since(now, good)
        refused = self._refused.since(now, tally.refusals)
        total = _by_place(refused)
        wrong = {
            key: count
            for key, count in refused.items()
            if total[key[0]] >= (_REFUSED_MANY if taken.get(key[0]) else _REFUSED)
        }
        found = _listed(wrong, 1, "hit refused with 401", "hits refused with 401", "hour")
        return {
            source: f"{text} {'Others were taken.' if taken.get(source) else 'None was taken.'}"
            for source, text in found.items()
        }


def _by_place(counts: Mapping[tuple[str, ...], int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for key, count in counts.items():
        total[key[0]] += count
    return total


def _listed(counts: Mapping[tuple[str, ...], int], least: int, one: str, many: str, lately: str) -> dict[str, str]:
    """Return a sentence by place for counts by (place, reason), where there are enough."""
    found = {}
    for place, total in _by_place(counts).items():
        if total >= least:
            reasons = _reasons((key[1], count) for key, count in counts.items() if key[0] == place)
            found[place] = f"{_number(total, one, many)} in the last {lately} ({reasons})."
    return found


def _reasons(counts: Iterable[tuple[str, int]]) -> str:
    ordered = sorted(counts, key=lambda item: -item[1])
    return ", ".join(f"{reason or 'unknown'}: {count}" for reason, count in ordered[:5])


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
