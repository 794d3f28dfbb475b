"""Limited data and refused consent in numbers, from roll-ups. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.event import Struct
from gateway.operator.health import percent_of

if TYPE_CHECKING:
    from gateway.history import Rolled

WHATS = ("delivered", "limited", "dropped", "ended", "discarded", "aside")
_CONSENT, _ERASED = "consent", "erased"
#: Signals of ``limited``, in words.
SIGNALS = {
    "gpc": "Global Privacy Control",
    "us_privacy": "US privacy string",
    "gpp": "GPP string",
    "sale_of_data": "sale or sharing refused",
    "source": "the source said so",
    "?": "not known any more",
}


class Limited(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Delivered events with limited data of one state (``?``: not known) by one signal (several joined with ``+``)."""

    state: str
    signal: str
    label: str
    count: int
    percent: float | None


class Share(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Of one source: how many delivered events were limited; events dropped for consent, withdrawn, and erased."""

    source: str
    delivered: int
    limited: int
    percent: float | None
    dropped: int
    withdrawn: int
    erased: int


class PrivacyFigures(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    Everything of one period: ``requests`` are requests for erasure and ``exports`` requests for data that came from
    sources.
    """

    delivered: int
    limited: int
    percent: float | None
    rows: tuple[Limited, ...]
    sources: tuple[Share, ...]
    requests: int
    exports: int


def privacy_of(rolled: Iterable["Rolled"]) -> PrivacyFigures:
    """Add roll-ups of :data:`WHATS` up."""
    by_source: dict[str, dict[str, int]] = {}
    by_detail: dict[str, int] = {}
    for row in rolled:
        name = _name(row.what, row.detail)
        if name is None:
            continue
        counts = by_source.setdefault(row.source, {})
        counts[name] = counts.get(name, 0) + row.count
        if name == "limited":
            by_detail[row.detail] = by_detail.get(row.detail, 0) + row.count
    delivered = sum(counts.get("delivered", 0) for counts in by_source.values())
    limited = sum(by_detail.values())
    return PrivacyFigures(
        delivered=delivered,
        limited=limited,
        percent=percent_of(limited, delivered),
        rows=tuple(
            _limited(detail, count, delivered)
            for detail, count in sorted(by_detail.items(), key=lambda one: (-one[1], one[0]))
        ),
        sources=tuple(_share(source, counts) for source, counts in sorted(by_source.items())),
        requests=sum(counts.get("erasure", 0) for counts in by_source.values()),
        exports=sum(counts.get("export", 0) for counts in by_source.values()),
    )


def _name(what: str, detail: str) -> str | None:
    if what in ("delivered", "limited"):
        return what
    if what == "aside":
        return detail if detail in ("erasure", "export") else None
    if detail == _ERASED:
        return "erased"
    if detail == _CONSENT:
        return "dropped" if what == "dropped" else "withdrawn"
    return None


def _limited(detail: str, count: int, delivered: int) -> Limited:
    state, _, signal = detail.partition(":")
    label = ", ".join(SIGNALS.get(one, one) for one in signal.split("+"))
    return Limited(state=state, signal=signal, label=label, count=count, percent=percent_of(count, delivered))


def _share(source: str, counts: dict[str, int]) -> Share:
    get = counts.get
    return Share(
        source=source, delivered=get("delivered", 0), limited=get("limited", 0),
        percent=percent_of(get("limited", 0), get("delivered", 0)), dropped=get("dropped", 0),
        withdrawn=get("withdrawn", 0), erased=get("erased", 0),
    )  # fmt: skip
