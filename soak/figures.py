"""The figures of a run, flat: what the report's JSON holds, and what the bounds read."""

import statistics
from collections.abc import Sequence

import msgspec

from gateway.event import Struct
from soak.account import Balance
from soak.kills import Kills
from soak.steady import Steady, quantile_ms
from soak.watch import Sample, growth, slope_per_h
from soak.world import World


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    Numbers are of events unless they say otherwise.

    ``accepted`` counts conversions, ``merged`` and ``duplicates_in`` the copies of them that were answered so.
    """

    kills: int = 0
    kills_with_calls_in_flight: int = 0
    stops: int = 0
    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    queued: int = 0
    dropped: int = 0
    rejected: int = 0
    merged: int = 0
    duplicates_in: int = 0
    lost: int = 0
    corrupt: int = 0
    phantom: int = 0
    disowned: int = 0
    late: int = 0
    duplicated_out: int = 0
    copies_out: int = 0
    copies_out_bound: int = 0
    unexplained: int = 0
    two_ids: int = 0
    dead_without_cause: int = 0
    delivered_and_dead: int = 0
    store_checks: int = 0
    unsound: int = 0
    cut_calls: int = 0
    slow_stops: int = 0
    bad_exits: int = 0
    largest_recovery_s: float = 0.0
    median_recovery_s: float = 0.0
    largest_stop_s: float = 0.0
    unanswered_requests: int = 0
    answers: dict[str, int] = msgspec.field(default_factory=dict)
    unexpected_5xx: int = 0
    wrong_answers: int = 0
    log_errors: int = 0
    broken_operations: int = 0
    steady_s: float = 0.0
    capacity_per_s: float = 0.0
    rate_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    slowest_answer_s: float = 0.0
    not_recovered: int = 0
    fault_recovery_s: dict[str, float] = msgspec.field(default_factory=dict)
    peak_rss_mb: float = 0.0
    rss_slope_mb_per_h: float = 0.0
    rss_growth_mb: float = 0.0
    fds_first: int = 0
    fds_peak: int = 0
    fds_last: int = 0
    fds_growth: float = 0.0
    wal_peak_mb: float = 0.0
    db_peak_mb: float = 0.0
    plants_missed: int = 0
    fuzz_inputs: int = 0
    fuzz_failures: int = 0
    fuzz_statuses: dict[str, int] = msgspec.field(default_factory=dict)
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    details: dict[str, list[str]] = msgspec.field(default_factory=dict)


#: Said once in the log for each time that it is played here, and no fault of the gateway's.
_EXPECTED = frozenset({"lane_paused"})


def figures(
    world: World, balance: Balance, kills: Kills, steady: Steady, first: Sequence[Sample], *,
    plants_missed: int = 0, fuzz_inputs: int = 0, fuzz_failures: int = 0,
) -> Figures:  # fmt: skip
    """Gather them; ``first`` are the samples of the kill phase."""
    load, outcomes = world.load, world.account.outcomes
    errors = {name: count for name, count in world.log.errors.items() if name not in _EXPECTED}
    wrong = [*world.load.problems, *(f"{name} ({count})" for name, count in world.nuisance.wrong.items())]
    samples, every = steady.samples, [*first, *steady.samples]
    details = {
        **balance.examples,
        "unexpected 5xx": [f"{name} ({count})" for name, count in load.unexpected.items()],
        "wrong answers": wrong[:10],
        "errors in the log": [f"{name} ({count})" for name, count in errors.items()][:10],
        "operator's actions": [f"{name} ({count})" for name, count in world.operations.broken.items()],
        "backlog stayed": steady.not_recovered,
    }
    return Figures(
        kills=kills.kills, kills_with_calls_in_flight=kills.met_in_flight, stops=kills.stops,
        accepted=balance.accepted, delivered=balance.delivered, dead=balance.dead, queued=balance.queued,
        dropped=outcomes["dropped"], rejected=outcomes["rejected"], merged=outcomes["merged"],
        duplicates_in=outcomes["duplicate"], lost=balance.lost, corrupt=balance.corrupt, phantom=balance.phantom,
        disowned=balance.disowned,
        late=balance.late, duplicated_out=balance.duplicated_out, copies_out=balance.copies,
        copies_out_bound=balance.copies_bound, unexplained=balance.unexplained, two_ids=balance.two_ids,
        dead_without_cause=balance.dead_without_cause, delivered_and_dead=balance.delivered_and_dead,
        store_checks=kills.checks, unsound=kills.unsound, cut_calls=kills.cut_calls, slow_stops=kills.slow_stops,
        bad_exits=kills.bad_exits, largest_recovery_s=_most(kills.recovered_s),
        median_recovery_s=round(statistics.median(kills.recovered_s), 2) if kills.recovered_s else 0.0,
        largest_stop_s=_most(kills.stop_s), unanswered_requests=load.unanswered,
        answers={str(status): count for status, count in sorted(load.answers.items())},
        unexpected_5xx=sum(load.unexpected.values()), wrong_answers=len(wrong),
        log_errors=sum(errors.values()) + world.log.strange, broken_operations=sum(world.operations.broken.values()),
        steady_s=round(steady.seconds, 1), capacity_per_s=round(steady.capacity), rate_per_s=round(steady.rate),
        p50_ms=round(quantile_ms(steady.latencies_ms, 50), 1), p99_ms=round(quantile_ms(steady.latencies_ms, 99), 1),
        slowest_answer_s=round(steady.slowest_s, 2), not_recovered=len(steady.not_recovered),
        fault_recovery_s={name: _most(seconds) for name, seconds in sorted(steady.recovered_s.items())},
        peak_rss_mb=round(max((one.rss_mb for one in every), default=0.0), 1),
        rss_slope_mb_per_h=round(slope_per_h(samples), 1),
        rss_growth_mb=round(growth([one.rss_mb for one in samples]), 1),
        fds_first=steady.fds_before, fds_peak=max((one.fds for one in samples), default=0),
        fds_last=steady.fds_after,
        wal_peak_mb=round(max((one.wal_mb for one in every), default=0.0), 1),
        db_peak_mb=round(max((one.db_mb for one in every), default=0.0), 1),
        plants_missed=plants_missed, fuzz_inputs=fuzz_inputs, fuzz_failures=fuzz_failures,
        faults=dict(sorted((world.spells + world.nuisance.counts + world.operations.counts).items())),
        details={name: found for name, found in details.items() if found},
    )  # fmt: skip


def _most(seconds: Sequence[float]) -> float:
    return round(max(seconds, default=0.0), 2)
