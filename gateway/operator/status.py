"""
What the gateway is doing, as one record: for ``/api/status``, ``tag-gateway status``, and the gauges of ``/metrics``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from gateway.alarms import Alarm
from gateway.audiences import Status as Connection
from gateway.event import Struct
from gateway.history import Rolled
from gateway.outbox import Counts, LaneCount
from gateway.outbox.schema import sqlite_version
from gateway.runtime import Gateway
from gateway.sender import LaneState
from gateway.tally import Event

_DAY_S = 86_400
#: Fates and ends, as roll-ups and as the counters since the start have them; "": the reason is the fate or the detail.
_FATES = {
    "accepted": "accepted", "merged": "merged", "duplicate": "duplicate", "dropped": "dropped", "rejected": "rejected",
    "aside": "accepted", "delivered": "delivered", "dead": "dead", "ended": "", "discarded": "",
}  # fmt: skip
_WHATS = frozenset([*_FATES, *(f"test_{what}" for what in _FATES)])
#: Discarded by nobody's event: these are no end of a unit.
_SILENT = frozenset({"operator", "expired"})


class Status(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What happened, and what waits now.

    ``events`` have ``count``, since the start, and ``day``: in the last 24 hours by the roll-ups, whole hours, the
    gateway's earlier runs included; everything else counts since the start.
    """

    uptime_s: float
    sqlite: str
    ready: bool
    events: list[dict[str, Any]]
    hits: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    lanes: list[LaneState]
    queue: list[LaneCount]
    oldest_age_s: float
    late: dict[str, int]
    maybe_twice: dict[str, int]
    alarms: list[dict[str, Any]]
    active: list[Alarm]
    plugin_failures: dict[str, int]
    switched_off: list[str]
    quarantined: dict[str, int]
    store_bytes: int
    disk_free_bytes: int
    degraded: list[str]
    warnings: list[str]


async def status_of(gateway: Gateway) -> Status:
    """Return the record."""
    await gateway.watch.fresh()
    counts = await gateway.outbox.counts()
    now = gateway.clock()
    tally = gateway.tally
    oldest = [lane.oldest_at for lane in counts.lanes if lane.oldest_at is not None]
    return Status(
        uptime_s=round(now - gateway.started_at, 1),
        sqlite=sqlite_version()[0],
        ready=await gateway.ready() is None,
        events=_events(tally.events, await gateway.outbox.history(now - _DAY_S, now + 1, by="all", whats=_WHATS)),
        hits=[
            {"source": source, "status": int(status), "count": count}
            for (source, status), count in sorted(tally.hits.items())
        ],
        calls=[
            {"destination": name, "result": result, "count": count}
            for (name, result), count in sorted(tally.calls.items())
        ],
        lanes=[lane.state for lane in gateway.sender.lanes],
        queue=list(counts.lanes),
        oldest_age_s=round(max(0.0, now - min(oldest)), 1) if oldest else 0.0,
        late={name: count for (name,), count in tally.late.items()},
        maybe_twice={name: count for (name,), count in tally.maybe_twice.items()},
        alarms=[
            {"reason": reason, "source": source, "count": count}
            for (reason, source), count in sorted(tally.alarms.items())
        ],
        active=gateway.alarms.active(),
        plugin_failures={name: count for (name,), count in tally.plugin_failures.items()},
        switched_off=sorted(gateway.switched_off),
        quarantined=gateway.quarantine.counts(),
        store_bytes=counts.file_bytes,
        disk_free_bytes=counts.disk_free_bytes,
        degraded=troubles(gateway),
        warnings=list(gateway.parts.warnings),
    )


def _events(since_start: Mapping[Event, int], rolled: Sequence[Rolled]) -> list[dict[str, Any]]:
    """Return fates and ends with both of their counts."""
    day: Counter[Event] = Counter()
    for row in rolled:
        if (event := _fate(row)) is not None:
            day[event] += row.count
    return [
        {**row._asdict(), "count": since_start.get(row, 0), "day": day[row]} for row in sorted({*since_start, *day})
    ]  # fmt: skip


def _fate(row: Rolled) -> Event | None:
    """Return the row of the counters since the start that a roll-up counts in."""
    test = "test_" if row.what.startswith("test_") else ""
    fate, reason = _FATES[row.what.removeprefix("test_")], row.detail
    if not fate:
        if reason in _SILENT:
            return None
        fate, reason = ("merged", "") if reason == "merged" else ("dropped", reason)
    return Event(row.source, row.destination, row.event, test + fate, reason)


def troubles(gateway: Gateway) -> list[str]:
    """Return what is wrong with the store, in words."""
    found = [f"{told}. Bring back what can be read: tag-gateway salvage" for told in gateway.outbox.damaged]
    return [*([gateway.outbox.trouble] if gateway.outbox.trouble else []), *found]


_STATES = {"running": 0, "backing_off": 1, "paused": 2}


def queue_metrics(gateway: Gateway, counts: Counts) -> bytes:
    """Return the gauges that are read when asked: queue, oldest age, lanes, file size."""
    registry = CollectorRegistry()
    queue = Gauge("gateway_queue", "Units by state", ["destination", "kind", "state"], registry=registry)
    oldest = Gauge(
        "gateway_queue_oldest_seconds", "Age of the oldest waiting unit", ["destination", "kind"], registry=registry
    )
    lanes = Gauge("gateway_lane_state", "0 running, 1 backing off, 2 paused", ["destination"], registry=registry)
    kept = Gauge("gateway_quarantined", "Hits that could not be read, kept", ["source"], registry=registry)
    size = Gauge("gateway_store_bytes", "Size of the store's file", registry=registry)
    requests = Gauge("gateway_requests", "Hits under way", registry=registry)
    bodies = Gauge("gateway_body_bytes", "Bytes of bodies under way", registry=registry)
    log = Gauge("gateway_store_wal_bytes", "Size of the store's write-ahead log", registry=registry)
    free = Gauge("gateway_disk_free_bytes", "Free on the store's disk, at the last look", registry=registry)
    alarms = Gauge("gateway_alarm", "1: the alarm is up", ["kind", "where"], registry=registry)
    for up in gateway.alarms.active():
        alarms.labels(up.kind, up.where).set(1)
    log.set(counts.wal_bytes)
    free.set(counts.disk_free_bytes)
    now = gateway.clock()
    for lane in counts.lanes:
        for state in ("waiting", "leased", "dead"):
            queue.labels(lane.destination, lane.kind, state).set(getattr(lane, state))
        age = now - lane.oldest_at if lane.oldest_at is not None else 0.0
        oldest.labels(lane.destination, lane.kind).set(max(0.0, age))
    for one in gateway.sender.lanes:
        lanes.labels(one.state.destination).set(_STATES[one.state.state])
    for source, number in gateway.quarantine.counts().items():
        kept.labels(source).set(number)
    size.set(counts.file_bytes)
    requests.set(gateway.budget.requests)
    bodies.set(gateway.budget.body_bytes)
    return generate_latest(registry)


#: States of a connection that wait for the operator.
_WAITING = frozenset({"held", "attention"})


def audience_metrics(connections: Sequence[Connection]) -> bytes:
    """Return the gauges of audiences, read when asked."""
    registry = CollectorRegistry()
    members = Gauge(
        "gateway_audience_members", "E-mails that a connection keeps in its audience", ["connection"], registry=registry
    )
    waiting = Gauge(
        "gateway_audience_waiting", "1: the connection waits for the operator", ["connection"], registry=registry
    )
    full = Gauge(
        "gateway_audience_full_timestamp_seconds", "End of the last full pass, Unix time", ["connection"],
        registry=registry,
    )  # fmt: skip
    for one in connections:
        label = str(one.id)
        members.labels(label).set(one.in_audience)
        waiting.labels(label).set(one.state in _WAITING)
        full.labels(label).set(one.last_full_at or 0.0)
    return generate_latest(registry)
