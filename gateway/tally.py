"""
Counting: one dictionary for events and one for everything else, exposed to Prometheus and to the status page.

Every label value is bounded: names of events are canonical ones, reasons come from code, never from a payload.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.event import STANDARD_NAMES
from gateway.history import code_of
from gateway.outcome import Outcome, Settled

#: Source: Pinterest help page "The Pinterest API for Conversions": later than one hour counts as offline.
LATE_S = 3_600
_BUCKETS = (1, 5, 15, 60, 300, 900, LATE_S, 21_600, 86_400)


class Event(NamedTuple):
    """One row of the table of events."""

    source: str
    destination: str
    event: str
    fate: str
    reason: str


class Tally(Collector):
    """Counts since start; ``registry`` holds everything that ``/metrics`` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        #: Fates at admission and ends, by source, destination, event and reason.
        self.events: Counter[Event] = Counter()
        #: Answers to hits by (source, status).
        self.hits: Counter[tuple[str, ...]] = Counter()
        #: Refused hits whose cause is known, by (source, cause).
        self.refusals: Counter[tuple[str, ...]] = Counter()
        #: Hits refused for want of room, by (source, why).
        self.shed: Counter[tuple[str, ...]] = Counter()
        #: Calls to vendors by (destination, result).
        self.calls: Counter[tuple[str, ...]] = Counter()
        #: Failed plugin calls by (plugin,).
        self.plugin_failures: Counter[tuple[str, ...]] = Counter()
        #: What an operator must hear of, by (reason, source).
        self.alarms: Counter[tuple[str, ...]] = Counter()
        #: Delivered later than an hour after the event, by (destination,).
        self.late: Counter[tuple[str, ...]] = Counter()
        #: Offline events that may have arrived twice, by (destination,).
        self.maybe_twice: Counter[tuple[str, ...]] = Counter()
        #: What passes of audiences did, by (connection, what).
        self.audiences: Counter[tuple[str, ...]] = Counter()
        #: Hits that could not be read, by (source, what): kept, full, failed, expired, replayed, discarded, erased.
        self.quarantine: Counter[tuple[str, ...]] = Counter()
        #: Deliveries by destination: how many in each bucket of lateness, and the sum of seconds.
        self._lateness: dict[str, list[int]] = {}
        self._lateness_s: dict[str, float] = {}

    def admitted(self, source: str, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes of one item of a hit."""
        for outcome in outcomes:
            name = outcome.event_name if outcome.destination or outcome.event_name in STANDARD_NAMES else "-"
            fate = f"test_{outcome.fate}" if outcome.is_test else outcome.fate
            self.events[Event(source, outcome.destination or "-", name, fate, outcome.reason or "")] += 1

    def settled(self, settled: Settled) -> None:
        """Count the end of one unit; test events count as such and in nothing else."""
        end = f"test_{settled.end}" if settled.is_test else settled.end
        self.events[Event(settled.source, settled.destination, settled.event_name, end, code_of(settled.reason))] += 1
        if settled.is_test:
            return
        if settled.end == "delivered":
            buckets = self._lateness.setdefault(settled.destination, [0] * (len(_BUCKETS) + 1))
            buckets[bisect_left(_BUCKETS, settled.lateness_s)] += 1
            total = self._lateness_s.get(settled.destination, 0.0)
            self._lateness_s[settled.destination] = total + max(0.0, settled.lateness_s)
            if settled.lateness_s > LATE_S:
                self.late[(settled.destination,)] += 1
        if settled.maybe_twice:
            self.maybe_twice[(settled.destination,)] += 1

    def mirrored(self, what: str, connection: int, number: int) -> None:
        """Count what a pass of a connection did."""
        self.audiences[(str(connection), what)] += number

    def kept(self, source: str, what: str, number: int) -> None:
        """Count what became of hits that could not be read."""
        self.quarantine[(source, what)] += number

    def collect(self) -> Iterable[Metric]:
        """Yield the counters in Prometheus' form."""
        yield _family("gateway_events", "Events by fate", Event._fields, self.events)
        yield _family("gateway_hits", "Hits by answer", ("source", "status"), self.hits)
        yield _family("gateway_shed", "Hits refused for want of room", ("source", "why"), self.shed)
        yield _family("gateway_refusals", "Refused hits by cause", ("source", "cause"), self.refusals)
        yield _family("gateway_calls", "Calls to vendors by result", ("destination", "result"), self.calls)
        yield _family("gateway_plugin_failures", "Plugin calls that failed", ("plugin",), self.plugin_failures)
        yield _family("gateway_alarms", "What an operator must hear of", ("reason", "source"), self.alarms)
        yield self._histogram()
        yield _family("gateway_late", "Delivered more than an hour after the event", ("destination",), self.late)
        yield _family(
            "gateway_maybe_twice", "Offline events that may have arrived twice", ("destination",), self.maybe_twice
        )
        yield _family(
            "gateway_quarantine", "What became of hits that could not be read", ("source", "what"), self.quarantine
        )
        yield _family("gateway_audience", "What passes of audiences did", ("connection", "what"), self.audiences)

    def _histogram(self) -> Metric:
        family = HistogramMetricFamily(
            "gateway_delivery_lateness_seconds", "From event time to delivery", labels=["destination"]
        )
        for destination, counts in list(self._lateness.items()):
            total = list(accumulate(counts))
            edges = [*map(floatToGoString, _BUCKETS), "+Inf"]
            family.add_metric([destination], list(zip(edges, total, strict=True)), self._lateness_s[destination])
        return family


def _family(name: str, text: str, labels: Iterable[str], rows: Counter[tuple[str, ...]] | Counter[Event]) -> Metric:
    family = CounterMetricFamily(name, text, labels=list(labels))
    for values, count in list(rows.items()):
        family.add_metric(list(values), count)
    return family
