"""
Health of what was delivered, as Pinterest judges a set-up of its Conversions API. Pure: from roll-ups to figures.

Source of thresholds and weights: Pinterest's help page on the API for Conversions (*Conversion health*, resilience):
Good by option 1 (identifiers) or option 2 (match rate), with the overlap where a tag exists; Weak otherwise.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from gateway.event import Struct

if TYPE_CHECKING:
    from gateway.history import Rolled

#: Acts of a person on the way to a purchase or a contact. Pinterest names no list; its API description asks for
#: identifiers "on checkout" first of all. Not among them: looking (``PAGE_EVENTS``), a wish, opening or installing an
#: app, and names without a standard meaning (``custom`` and advertiser-defined ones).
LOWER_FUNNEL = frozenset(
    {
        "add_payment_info", "add_to_cart", "checkout", "contact", "initiate_checkout", "lead", "schedule", "signup",
        "start_trial", "submit_application", "subscribe",
    }
)  # fmt: skip
#: Fewer delivered events are not judged: one event more or less would turn the verdict.
ENOUGH = 50
#: Percent that each criterion needs.
IP_UA, IDENTITY, EXTERNAL_ID, OVERLAP, MATCH_RATE = 90, 10, 10, 90, 60
#: Kinds of roll-ups that :func:`judge` reads.
WHATS = ("delivered", "signal", "tag_seen", "tag_met")

Standing = Literal["good", "weak", "few"]
#: Counts of one source's events of one name: delivered, tag_seen, tag_met, and each signal.
Counts = dict[str, int]
Cells = Mapping[tuple[str, str], Counts]


class Signal(NamedTuple):
    """One signal: the name it is counted under, in words, and its weight at Pinterest."""

    name: str
    label: str
    weight: Literal["high", "low", "detail"]


SIGNALS = (
    Signal("ip_ua", "IP address and user agent", "high"),
    Signal("em", "e-mail address", "high"),
    Signal("external_id", "external id", "high"),
    Signal("hashed_maids", "mobile ad id", "high"),
    Signal("click_id", "click id", "high"),
    Signal("fn_ln", "first and last name", "low"),
    Signal("ph", "phone number", "low"),
    Signal("ge", "gender", "low"),
    Signal("db", "date of birth", "low"),
    Signal("ct", "city", "low"),
    Signal("st", "state", "low"),
    Signal("zp", "postal code", "low"),
    Signal("country", "country", "low"),
    Signal("value", "value", "detail"),
    Signal("order_id", "order id", "detail"),
    Signal("source_url", "page address", "detail"),
)


class Place(Struct, frozen=True, kw_only=True):
    """What advice must know of a source."""

    adapter: str
    is_server: bool


class Coverage(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """How many of ``of`` events carry a signal; ``percent`` is None for no events."""

    name: str
    label: str
    weight: str
    have: int
    of: int
    percent: float | None


class Criterion(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One condition: ``have`` of ``of`` against ``needed`` percent; ``met`` is None where there is nothing to judge."""

    name: Literal["ip_ua", "identity", "external_id", "overlap", "match_rate"]
    label: str
    have: int
    of: int
    percent: float | None
    needed: int
    met: bool | None


class Step(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What to do at one source; ``doc`` is a path in the project's documents."""

    source: str
    adapter: str
    text: str
    doc: str


class Advice(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What would meet one criterion: ``missing`` events in exact numbers, and the steps towards them."""

    criterion: str
    missing: int
    text: str
    steps: tuple[Step, ...] = ()


class Judged(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The verdict on some events of a destination: all, those of one source, or those of one name."""

    source: str | None
    event: str | None
    events: int
    lower_funnel: int
    status: Standing
    option: int | None
    why: str
    criteria: tuple[Criterion, ...]
    signals: tuple[Coverage, ...]
    advice: tuple[Advice, ...] = ()


class Health(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One destination: the verdict on all of its events, then by source, by event, and by both."""

    destination: str
    total: Judged
    sources: tuple[Judged, ...] = ()
    events: tuple[Judged, ...] = ()
    parts: tuple[Judged, ...] = ()


def cells_of(rolled: Iterable["Rolled"]) -> dict[str, dict[tuple[str, str], Counts]]:
    """Return counts by destination, then by (source, event)."""
    found: dict[str, dict[tuple[str, str], Counts]] = {}
    for row in rolled:
        if row.what not in WHATS or not row.destination:
            continue
        cell = found.setdefault(row.destination, {}).setdefault((row.source, row.event), {})
        name = f"signal:{row.detail}" if row.what == "signal" else row.what
        cell[name] = cell.get(name, 0) + row.count
    return found


def judge(
    cells: Cells, match_rate: float | None = None, *, source: str | None = None, event: str | None = None
) -> Judged:
    """
    Judge the events in ``cells``, without advice.

    Args:
        cells: By (source, event); only those of ``source`` and ``event`` count where these are given.
        match_rate: What Ads Manager shows, 0 to 1; None: unknown.
    """
    chosen = {key: counts for key, counts in cells.items() if source in (None, key[0]) and event in (None, key[1])}
    lower = {key: counts for key, counts in chosen.items() if key[1] in LOWER_FUNNEL}
    total, low = total_of(chosen, "delivered"), total_of(lower, "delivered")
    criteria: tuple[Criterion, ...] = (
        _criterion("ip_ua", "IP address and user agent", total_of(chosen, "signal:ip_ua"), total, IP_UA),
        _criterion("identity", "e-mail or mobile ad id", total_of(lower, "signal:em_or_maid"), low, IDENTITY),
        _criterion("external_id", "external id", total_of(chosen, "signal:external_id"), total, EXTERNAL_ID),
        _criterion(
            "overlap", "overlap with the page's own tag", total_of(chosen, "tag_met"), total_of(chosen, "tag_seen"),
            OVERLAP,
        ),
    )  # fmt: skip
    if match_rate is not None:
        criteria = (*criteria, _criterion("match_rate", "match rate", round(match_rate * 1000), 1000, MATCH_RATE))
    status, option, why = _standing(criteria, total, low)
    return Judged(
        source=source, event=event, events=total, lower_funnel=low, status=status, option=option, why=why,
        criteria=criteria, signals=_signals(chosen, total),
    )  # fmt: skip


def _standing(criteria: tuple[Criterion, ...], total: int, low: int) -> tuple[Standing, int | None, str]:
    if total < ENOUGH:
        return "few", None, f"{total:,} delivered events are too few to judge: {ENOUGH} are needed."
    by_name = {one.name: one for one in criteria}
    unmet = [one.label for one in criteria if one.name != "match_rate" and one.met is False]
    if not unmet:
        aside = "" if low else " There were no events of the lower funnel, so their identifiers are not judged."
        return "good", 1, f"Option 1: enough events carry identifiers.{aside}"
    rate = by_name.get("match_rate")
    if rate is not None and rate.met and by_name["overlap"].met is not False:
        return "good", 2, f"Option 2: the match rate is {rate.percent:g} %. Too low: {', '.join(unmet)}."
    return "weak", None, f"Too low: {', '.join(unmet)}."


def _criterion(
    name: Literal["ip_ua", "identity", "external_id", "overlap", "match_rate"],
    label: str,
    have: int,
    of: int,
    needed: int,
) -> Criterion:
    met = have * 100 >= needed * of if of else None
    return Criterion(name=name, label=label, have=have, of=of, percent=percent_of(have, of), needed=needed, met=met)


def _signals(cells: Cells, total: int) -> tuple[Coverage, ...]:
    found = []
    for one in SIGNALS:
        have = total_of(cells, f"signal:{one.name}")
        found.append(
            Coverage(
                name=one.name, label=one.label, weight=one.weight, have=have, of=total, percent=percent_of(have, total)
            )
        )
    return tuple(found)


def total_of(cells: Cells, name: str) -> int:
    """Return the sum of one count."""
    return sum(counts.get(name, 0) for counts in cells.values())


def percent_of(have: int, of: int) -> float | None:
    """Return a percentage with one decimal, cut and not rounded: 89.96 is not 90; None for nothing."""
    return have * 1000 // of / 10 if of else None
