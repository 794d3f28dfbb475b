"""What a run must hold to; each bound reads one figure of the report."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.event import Struct


class Bound(Struct, frozen=True, kw_only=True):
    """``limit`` is the most that is allowed; ``read`` takes the report's figures."""

    name: str
    limit: float
    read: Callable[[Any], float]
    unit: str = ""


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One bound and what was found."""

    bound: str
    limit: float
    found: float
    unit: str
    is_held: bool


def _shows_nothing(figures: Any) -> float:
    return float(figures.kills >= 10 and not figures.kills_with_calls_in_flight)


#: Of the balance and the processes: they hold for the shortest run, and are what a planted bug must break.
CONSERVATION: Final = (
    Bound(name="lost", limit=0, read=lambda f: f.lost),
    Bound(name="corrupt", limit=0, read=lambda f: f.corrupt),
    Bound(name="phantom", limit=0, read=lambda f: f.phantom),
    Bound(name="still queued after the drain", limit=0, read=lambda f: f.queued),
    Bound(name="arrived again without a kill or lost answer", limit=0, read=lambda f: f.unexplained),
    Bound(name="one conversion under two ids", limit=0, read=lambda f: f.two_ids),
    Bound(name="dead without the vendor's refusal", limit=0, read=lambda f: f.dead_without_cause),
    Bound(name="both delivered and dead without a doubtful call", limit=0, read=lambda f: f.delivered_and_dead),
    Bound(name="ten kills or more, and none met a call in flight", limit=0, read=_shows_nothing),
    Bound(name="damaged store files", limit=0, read=lambda f: f.unsound),
    Bound(name="events that a calm SIGTERM left in flight", limit=0, read=lambda f: f.cut_calls),
    Bound(name="SIGTERM over time", limit=0, read=lambda f: f.slow_stops),
    Bound(name="SIGTERM with an exit code other than 0", limit=0, read=lambda f: f.bad_exits),
    Bound(name="unexpected 5xx", limit=0, read=lambda f: f.unexpected_5xx),
    Bound(name="other wrong answers", limit=0, read=lambda f: f.wrong_answers),
    Bound(name="errors in the log", limit=0, read=lambda f: f.log_errors),
    Bound(name="operator's actions that failed", limit=0, read=lambda f: f.broken_operations),
    Bound(name="planted bugs not caught", limit=0, read=lambda f: f.plants_missed),
    Bound(name="failed fuzz inputs", limit=0, read=lambda f: f.fuzz_failures),
)
#: Of time and memory: shorter runs say too little about them to be judged.
MEASURED_FROM_MINUTES: Final = 5.0
MEASURED: Final = (
    Bound(name="largest recovery after a kill", limit=10.0, unit="s", read=lambda f: f.largest_recovery_s),
    Bound(name="faults after which the backlog stayed", limit=0, read=lambda f: f.not_recovered),
    Bound(name="peak memory", limit=300.0, unit="MB", read=lambda f: f.peak_rss_mb),
    Bound(name="growth of memory", limit=30.0, unit="MB", read=lambda f: f.rss_growth_mb),
    Bound(name="open files more than at first, without clients", limit=10, read=lambda f: f.fds_last - f.fds_first),
    Bound(name="largest WAL", limit=80.0, unit="MB", read=lambda f: f.wal_peak_mb),
    Bound(name="slowest answer in the steady phase", limit=4.0, unit="s", read=lambda f: f.slowest_answer_s),
)


def bounds_of(minutes: float) -> Sequence[Bound]:
    """Return the bounds of a run of so many minutes."""
    return (*CONSERVATION, *MEASURED) if minutes >= MEASURED_FROM_MINUTES else CONSERVATION


def judge(figures: Any, bounds: Sequence[Bound]) -> list[Verdict]:
    """Return the verdict on each bound."""
    return [
        Verdict(
            bound=one.name, limit=one.limit, unit=one.unit, found=round(found, 3), is_held=found <= one.limit
        )
        for one in bounds
        for found in [float(one.read(figures))]
    ]  # fmt: skip


def broken(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return those that do not hold."""
    return [one for one in verdicts if not one.is_held]
