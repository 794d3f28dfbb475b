"""The soak's own parts: the report, each bound, the account, and a run of seconds from end to end."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.sandbox import Fault
from soak import account, bounds, report
from soak.__main__ import main, parsed, plan_of
from soak.account import Account
from soak.figures import Figures
from soak.fuzzing import inputs
from soak.kills import Pace
from soak.limits import NOT_TESTED
from soak.machine import Machine, commit
from soak.report import Control, Report
from soak.run import Plan, run
from soak.steady import Rhythm
from soak.traffic import (
    API,
    CODES,
    DENIED,
    INVALID,
    ORDERS,
    POISON,
    PREFIXES,
    SOURCES,
    TAG,
    WEIGHTS,
    copy_of,
    id_of,
    is_as_told,
    number_of,
)  # fmt: skip
from soak.vendor import Line, is_doubtful
from soak.watch import Log, Sample, growth, slope_per_h

linux = pytest.mark.skipif(sys.platform != "linux", reason="the soak reads /proc")
MACHINE = Machine(cores=2, memory_gb=8.0, system="Linux", python="3.11.7", sqlite="3.40.1", engine="hypercorn")
#: A good run: every bound holds.
GOOD: dict[str, Any] = {
    "kills": 300, "kills_with_calls_in_flight": 250, "stops": 30, "accepted": 1_000_000, "delivered": 999_000,
    "dead": 1_000, "duplicated_out": 40, "copies_out": 41, "copies_out_bound": 9_000, "largest_recovery_s": 1.9,
    "peak_rss_mb": 140.0, "rss_growth_mb": 2.0, "fds_first": 42, "fds_last": 43, "wal_peak_mb": 64.2,
    "slowest_answer_s": 0.4, "p99_ms": 20.0, "fault_recovery_s": {"outage (503)": 12.5, "5xx": 3.0},
    "faults": {"5xx": 10}, "fuzz_inputs": 10_000,
    "fuzz_statuses": {"0": 4, "200": 9_000, "400": 990, "503": 6},
}  # fmt: skip


def made_up(*, is_complete: bool = True, **changes: Any) -> Report:
    """Return the report of a run that never was."""
    figures = Figures(**{**GOOD, **changes})
    verdicts = bounds.judge(figures, bounds.bounds_of(30))
    return Report(
        is_complete=is_complete, is_good=not bounds.broken(verdicts), commit="0" * 40, dirty=False,
        date="2026-01-02 03:04 UTC", seed=7, duration_s=1_800.0, machine=MACHINE, figures=figures,
        loss_per_kill_upper=report.upper_bound(figures.lost, figures.kills), bounds=verdicts,
        controls=[
            Control(plant="ack_before_commit", is_caught=True, found={"lost": 12.0}),
            Control(plant="nothing_at_all", is_caught=False, found={}),
        ],
    )  # fmt: skip


# -- report


def test_both_files_say_the_same(tmp_path: Path) -> None:
    """The JSON is read back as it was, and the page is made from it alone."""
    written = made_up()
    data, page = report.write(written, tmp_path / "new" / "folder")
    assert report.read(data) == written
    assert page.read_text() == report.render(report.read(data))
    told = json.loads(data.read_text())
    assert told["format"] == report.FORMAT
    assert (told["figures"]["lost"], told["figures"]["kills"], told["loss_per_kill_upper"]) == (0, 300, 0.01)


def test_the_page_has_what_a_reader_looks_for() -> None:
    """Kills, accepted, lost, recovery, memory, bugs caught and missed, and what was not tested."""
    page = report.render(made_up())
    for text in (
        "30 minutes, seed 7", "every bound held", "| accepted events | 1000000 |", "| **lost** | **0** |",
        "fewer than 1.00% of kills", "| lost | 0 | 0 | held |", "12.5 s at the longest (outage (503))",
        "10000, 0 failed, 6 with 5xx",
        "| `ack_before_commit` | caught | lost: 12 |", "| `nothing_at_all` | **missed** | nothing |",
        *(one.what for one in NOT_TESTED),
    ):  # fmt: skip
        assert text in page, text
    assert "Incomplete" not in page
    assert "not committed" not in page


def test_the_page_does_not_hide_trouble() -> None:
    """A loss, an early end and a changed tree are said; no rule of three where something was lost."""
    broken = made_up(lost=2, details={"lost": ["e-8", "e-16"]}, is_complete=False)
    page = report.render(msgspec.structs.replace(broken, dirty=True))
    assert not broken.is_good
    for text in (
        "a bound was broken", "Incomplete", "not committed", "| **lost** | **2** |", "**broken**", "`e-8`, `e-16`"
    ):  # fmt: skip
        assert text in page, text
    assert "95 %" not in page


def test_the_report_names_no_machine(tmp_path: Path) -> None:
    """Neither a host's name nor a path stands in the files."""
    data, page = report.write(made_up(), tmp_path)
    for text in (data.read_text(), page.read_text()):
        assert str(tmp_path) not in text
        assert "/home" not in text
        assert "/tmp" not in text


def test_a_cell_keeps_its_row() -> None:
    """Text with bars and line breaks does not break the table."""
    page = report.render(made_up(details={"wrong answers": ["a | b\nc"]}))
    assert r"`a \| b c`" in page


def test_the_commit_is_of_this_tree() -> None:
    """The report names a commit, or says that there is none."""
    name, dirty = commit()
    assert (len(name) == 40 and dirty is not None) or (name, dirty) == ("unknown", None)


# -- bounds

#: For each bound what breaks it.
BREAKS: dict[str, dict[str, Any]] = {
    "lost": {"lost": 1},
    "corrupt": {"corrupt": 1},
    "phantom": {"phantom": 1},
    "still queued after the drain": {"queued": 1},
    "arrived again without a kill or lost answer": {"unexplained": 1},
    "one conversion under two ids": {"two_ids": 1},
    "dead without the vendor's refusal": {"dead_without_cause": 1},
    "both delivered and dead without a doubtful call": {"delivered_and_dead": 1},
    "ten kills or more, and none met a call in flight": {"kills_with_calls_in_flight": 0},
    "damaged store files": {"unsound": 1},
    "events that a calm SIGTERM left in flight": {"cut_calls": 1},
    "SIGTERM over time": {"slow_stops": 1},
    "SIGTERM with an exit code other than 0": {"bad_exits": 1},
    "unexpected 5xx": {"unexpected_5xx": 1},
    "other wrong answers": {"wrong_answers": 1},
    "errors in the log": {"log_errors": 1},
    "operator's actions that failed": {"broken_operations": 1},
    "planted bugs not caught": {"plants_missed": 1},
    "failed fuzz inputs": {"fuzz_failures": 1},
    "largest recovery after a kill": {"largest_recovery_s": 10.01},
    "faults after which the backlog stayed": {"not_recovered": 1},
    "peak memory": {"peak_rss_mb": 300.1},
    "growth of memory": {"rss_growth_mb": 30.1},
    "open files more than at first, without clients": {"fds_last": 53},
    "largest WAL": {"wal_peak_mb": 80.1},
    "slowest answer in the steady phase": {"slowest_answer_s": 4.1},
}


@pytest.mark.parametrize("name", [one.name for one in bounds.bounds_of(30)])
def test_each_bound_can_break(name: str) -> None:
    """A good run holds every bound; one changed figure breaks exactly one."""
    assert made_up().is_good
    assert [one.bound for one in made_up(**BREAKS[name]).bounds if not one.is_held] == [name]


def test_a_short_run_is_not_judged_by_time_and_memory() -> None:
    """Bounds of events hold for the shortest run, those of time and memory from five minutes on."""
    assert bounds.bounds_of(0.1) == bounds.CONSERVATION
    assert {one.name for one in bounds.bounds_of(5)} == BREAKS.keys()


def test_the_rule_of_three() -> None:
    """300 kills without a loss: at most one in a hundred; after a loss nothing is claimed."""
    assert report.upper_bound(0, 300) == 0.01
    assert report.upper_bound(1, 300) is None
    assert report.upper_bound(0, 0) is None


# -- account


def arrived(event_id: str, **changes: Any) -> Line:
    """Return a line of the vendor's ledger."""
    plain = {"kept": True, "name": "checkout", "event_id": event_id, "sound": True, "doubtful": False, "late": False}
    return Line(**{**plain, **changes})


def settled(folder: Path, accepted: list[int], lines: list[Line], dead: tuple[str, ...] = (), **more: Any) -> Any:
    """Return the balance of a run in which these were accepted and these lines were written."""
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    book = Account(ledger)
    book.sent([*accepted, *more.get("sent", ())])
    for number in accepted:
        book.answered(number, "accepted")
    book.unknown(more.get("unknown", ()))
    book.disowned(more.get("disowned", ()))
    book.in_flight(more.get("in_flight", ()))
    return book.settle(dead, more.get("queued", 0))


TROUBLE = (
    "lost", "phantom", "corrupt", "unexplained", "two_ids", "dead_without_cause", "delivered_and_dead", "queued",
    "late", "disowned",
)  # fmt: skip
PAIR = 3 * CODES + min(ORDERS)
ACCOUNTS: dict[str, tuple[Any, ...]] = {
    "delivered": ([8], [arrived("e-8")], ()),
    "lost": ([8, 16], [arrived("e-8")], (), "lost"),
    "dead, refused by the vendor": ([8], [arrived("e-8", kept=False)], ("e-8",)),
    "dead for nothing": ([8], [], ("e-8",), "dead_without_cause"),
    "never accepted": ([], [arrived("e-8")], (), "phantom", {"sent": [8]}),
    "never sent": ([], [arrived("e-8")], (), "phantom"),
    "of nobody": ([], [arrived("who")], (), "phantom"),
    "told to try again": ([], [arrived("e-8")], (), "disowned", {"sent": [8], "disowned": [8]}),
    "answer lost": ([], [arrived("e-8")], (), None, {"sent": [8], "unknown": [8]}),
    "a refused consent": ([DENIED], [arrived(f"d-{DENIED}")], (), "phantom"),
    "not what was told": ([8], [arrived("e-8", sound=False)], (), "corrupt"),
    "twice": ([8], [arrived("e-8"), arrived("e-8")], (), "unexplained"),
    "twice, in flight at a kill": ([8], [arrived("e-8")] * 2, (), None, {"in_flight": ["e-8"]}),
    "thrice, in flight at one kill": ([8], [arrived("e-8")] * 3, (), "unexplained", {"in_flight": ["e-8"]}),
    "twice, the first answer was lost": ([8], [arrived("e-8", doubtful=True), arrived("e-8")], ()),
    "under two ids": ([PAIR], [arrived(f"sh-{PAIR}", doubtful=True), arrived(f"shop-{PAIR}")], (), "two_ids"),
    "delivered and dead": (
        [8], [arrived("e-8"), arrived("e-8", kept=False)], ("e-8",), "delivered_and_dead",
    ),
    "waiting": ([8], [arrived("e-8")], (), "queued", {"queued": 1}),
    "late": ([8], [arrived("e-8", late=True)], (), "late"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCOUNTS)
def test_the_account_finds(tmp_path: Path, name: str) -> None:
    """Each kind of trouble is found as what it is, and what may happen is no trouble."""
    accepted, lines, dead, *rest = ACCOUNTS[name]
    balance = settled(tmp_path, accepted, lines, dead, **(rest[1] if len(rest) > 1 else {}))
    expected = rest[0] if rest else None
    assert [what for what in TROUBLE if getattr(balance, what)] == ([expected] if expected else [])


def test_the_account_grows_and_reads_on(tmp_path: Path) -> None:
    """Numbers beyond the first arrays, and a ledger that is read while it is written."""
    far = CODES * account._GROW
    ledger = tmp_path / "ledger.jsonl"
    book = Account(ledger)
    book.look()
    book.sent([far])
    book.answered(far, "accepted")
    line = msgspec.json.encode(arrived(f"e-{far}")) + b"\n"
    ledger.write_bytes(line[:20])
    book.look()
    assert book.arrived == 0
    ledger.write_bytes(line)
    book.look()
    book.look()
    assert book.arrived == 1
    assert book.settle((), 0).lost == 0


# -- parts


def test_kinds_have_sources_weights_and_ids() -> None:
    """Every kind of event can be sent, and its id leads back to its number."""
    assert SOURCES.keys() == WEIGHTS.keys() == PREFIXES.keys() == set(range(CODES))
    for code in range(CODES):
        for number in (code, 5 * CODES + code):
            assert number_of(id_of(number)) == number
            for source in SOURCES[code]:
                assert copy_of(source, number, 1_800_000_000.0)
    assert number_of("who") == number_of("e-") == number_of("e-²") == number_of("e-" + "9" * 40) == -1


def test_only_what_was_told_is_as_told() -> None:
    """Another value, name, person or prefix is noticed."""
    number = 40 * CODES + API
    told = copy_of("api", number, 0.0)
    hashed = "7" * 64
    event = {
        "event_id": told["event_id"], "event_name": told["event_name"], "user_data": {"em": [hashed]},
        "custom_data": {"value": told["value"], "currency": "USD"},
    }  # fmt: skip
    assert not is_as_told(event), "somebody else's e-mail"
    visit = 40 * CODES + TAG
    seen = copy_of("tag", visit, 0.0)
    page = {
        "event_id": seen["event_id"], "event_name": seen["event_name"], "event_source_url": seen["event_source_url"],
        "user_data": {
            "client_ip_address": "8.0.1.65", "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        },
    }  # fmt: skip
    assert is_as_told(page)
    assert not is_as_told({**page, "event_name": "checkout"})
    assert not is_as_told({**page, "event_id": f"e-{visit}"})
    assert not is_as_told({**page, "event_id": f"d-{visit}"})
    assert not is_as_told({**page, "user_data": {}})
    assert not is_as_told({**page, "custom_data": {"value": "1"}})
    assert PREFIXES[INVALID] != PREFIXES[POISON]


def test_which_faults_leave_doubt() -> None:
    """A call that was processed although its answer was lost may come again; one that was refused may not count so."""
    assert not is_doubtful(None)
    assert not is_doubtful(Fault(kind="delay", delay_s=0.02))
    assert not is_doubtful(Fault(kind="status"))
    assert not is_doubtful(Fault(kind="partial"))
    assert all(is_doubtful(fault) for fault in (Fault(kind="reset_after"), Fault(kind="hang"), Fault(kind="answer")))
    assert is_doubtful(Fault(kind="delay", delay_s=10.0))


def test_growth_and_slope() -> None:
    """Memory that grows by 1 MB a second is 3,600 an hour; flat is 0; too few samples say nothing."""
    rising = [Sample(at=at, rss_mb=100.0 + at, fds=1, wal_mb=0.0, db_mb=0.0) for at in range(40)]
    assert slope_per_h(rising) == pytest.approx(3_600)
    assert growth([one.rss_mb for one in rising]) == pytest.approx(20)
    assert growth([5.0] * 40) == growth([]) == slope_per_h(rising[:2]) == 0


def test_the_log_is_searched_for_errors(tmp_path: Path) -> None:
    """Errors are counted by name, a traceback as strange, a hit and a cut last line not at all."""
    path = tmp_path / "log"
    path.write_bytes(
        b'{"time":"x","level":"info","event":"hit"}\n'
        b'{"time":"x","level":"error","event":"hit_failed","exception":"KeyError"}\n'
        b'{"time":"x","level":"error","event":"lane_paused"}\n'
        b"Traceback (most recent call last):\n"
        b'{"time":"x","lev'
    )
    log = Log(path)
    log.look()
    log.look()
    assert log.errors == {"hit_failed (KeyError)": 1, "lane_paused": 1}
    assert log.strange == 1


def test_fuzz_inputs_follow_the_seed() -> None:
    """So many inputs as were asked for, of each kind, and the same ones again."""
    first, again, other = (list(inputs(60, seed)) for seed in (1, 1, 2))
    assert len(first) == 60
    assert first == again != other
    assert {one.listener for one in first} == {"public", "operator"}
    assert sum(one.label.startswith("mutation") for one in first) == 30


def test_the_command_line() -> None:
    """Half an hour and 300 kills, or two minutes and 20; a seed that is given is kept."""
    plan = plan_of(parsed([]))
    assert (plan.minutes, plan.kills, plan.engine, plan.fuzz, plan.plants) == (30.0, 300, "hypercorn", 0, None)
    quick = plan_of(parsed(["--quick", "--seed", "5", "--kills", "3", "--no-controls", "--fuzz", "9"]))
    assert (quick.minutes, quick.kills, quick.seed, quick.plants, quick.fuzz) == (2.0, 3, 5, (), 9)


# -- a run

SHORT = Plan(
    minutes=0.01, kills=2, seed=11, engine="hypercorn", fuzz=0, out=Path(), plants=(),
    pace=Pace(up_s=(0.4, 0.6), gap_s=(60.0, 60.0), acts_s=(60.0, 60.0)), rhythm=Rhythm(measure_s=0.3), share=100.0,
)  # fmt: skip


def changed(**changes: Any) -> Plan:
    """Return the short plan with something else."""
    return msgspec.structs.replace(SHORT, **changes)


@linux
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """Two kills on one store, a moment of steady load, a settled account: nothing is lost, and the report says so."""
    done = asyncio.run(run(changed(folder=tmp_path, out=tmp_path)))
    figures = done.figures
    assert [one for one in done.bounds if not one.is_held] == []
    assert done.is_good
    assert done.is_complete
    assert figures.kills == 2
    assert figures.accepted > 50
    assert figures.delivered + figures.dead >= figures.accepted
    assert figures.merged > 0
    assert figures.dropped > 0
    assert 0 < figures.peak_rss_mb < 500
    assert report.read(tmp_path / report.JSON_NAME) == done


@linux
def test_a_planted_bug_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that answers before it writes loses events: the command names the broken bound, and its code is 1."""
    plan = changed(plant="ack_before_commit", kills=1, out=tmp_path, folder=tmp_path)
    monkeypatch.setattr("soak.__main__.plan_of", lambda _: plan)
    monkeypatch.setattr("sys.argv", ["soak"])
    assert main() == 1
    assert "BROKEN  lost" in capsys.readouterr().out
    written = report.read(tmp_path / report.JSON_NAME)
    assert written.figures.lost > 0
    assert not written.is_good
    assert written.figures.details["lost"]
