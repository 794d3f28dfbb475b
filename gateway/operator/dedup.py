"""Deduplication in numbers, from roll-ups: what came in, what was a copy of what, and ids that never meet. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.event import Struct
from gateway.operator.health import percent_of

if TYPE_CHECKING:
    from gateway.history import Rolled

WHATS = ("accepted", "merged", "duplicate", "ended", "pair", "keyless")
#: Two sources of a site, each with so many events of one name, of which less than this percent met: random ids.
ENOUGH, MEETING = 20, 50
_COPIES = ("merged", "duplicate")


class Flow(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Events of one source, destination and name; ``unique`` is ``received`` without its copies."""

    source: str
    destination: str
    event: str
    received: int = 0
    unique: int = 0
    merged: int = 0
    duplicate: int = 0
    keyless: int = 0


class Pair(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Copies of ``source`` that met events of ``other`` (``?``: not known any more)."""

    source: str
    other: str
    destination: str
    event: str
    merged: int = 0
    duplicate: int = 0


class Moment(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One hour or UTC day that began at ``start`` (Unix s)."""

    start: int
    received: int = 0
    unique: int = 0
    merged: int = 0
    duplicate: int = 0


class Unmet(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Two sources of a site whose events of one name seldom meet; ``percent`` is of the smaller side."""

    site: str
    destination: str
    event: str
    sources: tuple[str, str]
    events: tuple[int, int]
    met: int
    percent: float


class Deduplication(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Everything of one period."""

    flows: tuple[Flow, ...]
    pairs: tuple[Pair, ...]
    moments: tuple[Moment, ...]
    unmet: tuple[Unmet, ...]
    total: Flow


def deduplication_of(rolled: Iterable["Rolled"], sites: Mapping[str, str]) -> Deduplication:
    """
    Add roll-ups of :data:`WHATS` up.

    Args:
        rolled: By hour or day. ``sites``: the site of each configured source.
    """
    flows: dict[tuple[str, str, str], dict[str, int]] = {}
    pairs: dict[tuple[str, str, str, str], dict[str, int]] = {}
    moments: dict[int, dict[str, int]] = {}
    for row in rolled:
        if row.what == "pair":
            how, _, other = row.detail.partition(":")
            _add(pairs.setdefault((row.source, other, row.destination, row.event), {}), how, row.count)
        elif row.what in WHATS:
            if row.what == "ended" and row.detail not in _COPIES:
                continue
            for counts in (
                flows.setdefault((row.source, row.destination, row.event), {}),
                moments.setdefault(row.start, {}),
            ):
                _add(counts, row.what if row.what != "ended" else f"ended:{row.detail}", row.count)
    found_pairs = [
        Pair(source=source, other=other, destination=destination, event=event, **_copies(counts))
        for (source, other, destination, event), counts in sorted(pairs.items())
    ]
    found_flows = [
        Flow(source=source, destination=destination, event=event, keyless=counts.get("keyless", 0), **_figures(counts))
        for (source, destination, event), counts in sorted(flows.items())
    ]
    return Deduplication(
        flows=tuple(found_flows),
        pairs=tuple(found_pairs),
        moments=tuple(Moment(start=start, **_figures(counts)) for start, counts in sorted(moments.items())),
        unmet=tuple(_unmet(found_flows, found_pairs, sites)),
        total=_sum(found_flows),
    )


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count


def _copies(counts: Mapping[str, int]) -> dict[str, int]:
    return {how: counts.get(how, 0) for how in _COPIES}


def _figures(counts: Mapping[str, int]) -> dict[str, int]:
    """Return received, unique and copies; one that was accepted and turned out to be a copy later is one."""
    later = {how: counts.get(f"ended:{how}", 0) for how in _COPIES}
    accepted, copies = counts.get("accepted", 0), _copies(counts)
    return {
        "received": accepted + sum(copies.values()),
        "unique": accepted - sum(later.values()),
        **{how: copies[how] + later[how] for how in _COPIES},
    }


def _sum(flows: Sequence[Flow]) -> Flow:
    names = ("received", "unique", "merged", "duplicate", "keyless")
    counts = {name: sum(getattr(one, name) for one in flows) for name in names}
    return Flow(source="", destination="", event="", **counts)


def _unmet(flows: Sequence[Flow], pairs: Sequence[Pair], sites: Mapping[str, str]) -> Iterable[Unmet]:
    """Find pairs of sources of one site that tell of the same things and hardly ever of the same one."""
    met: dict[tuple[str, frozenset[str], str], int] = {}
    again: dict[tuple[str, str, str], int] = {}
    for pair in pairs:
        count = pair.merged + pair.duplicate
        if pair.source == pair.other:
            again[pair.source, pair.destination, pair.event] = count
        else:
            key = (pair.destination, frozenset((pair.source, pair.other)), pair.event)
            met[key] = met.get(key, 0) + count
    told: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for flow in flows:
        if flow.source in sites:
            own = flow.received - again.get((flow.source, flow.destination, flow.event), 0)
            told.setdefault((sites[flow.source], flow.destination, flow.event), []).append((flow.source, own))
    for (site, destination, event), sources in sorted(told.items()):
        for index, (one, count) in enumerate(sources):
            for other, others in sources[index + 1 :]:
                together = met.get((destination, frozenset((one, other)), event), 0)
                smaller = min(count, others)
                if smaller >= ENOUGH and together * 100 < MEETING * smaller:
                    yield Unmet(
                        site=site, destination=destination, event=event, sources=(one, other), events=(count, others),
                        met=together, percent=percent_of(together, smaller) or 0.0,
                    )  # fmt: skip
