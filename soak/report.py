"""The report of a run: ``reliability-report.json``, and the same as a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from gateway.event import Struct
from soak.bounds import Verdict
from soak.figures import Figures
from soak.limits import NOT_TESTED, NotTested
from soak.machine import Machine

FORMAT = 1
JSON_NAME, PAGE_NAME = "reliability-report.json", "reliability-report.md"


class Control(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One planted bug; ``found`` are the bounds that it broke, with what was found."""

    plant: str
    is_caught: bool
    found: dict[str, float]


class Report(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    Everything that is written.

    ``is_complete`` is false when the run was ended early; ``dirty`` says whether the tree differed from the commit
    (None: not known); ``loss_per_kill_upper`` is the upper end of the 95 % interval when nothing was lost, else None.
    """

    format: int = FORMAT
    is_complete: bool
    is_good: bool
    commit: str
    dirty: bool | None
    date: str
    seed: int
    duration_s: float
    machine: Machine
    figures: Figures
    loss_per_kill_upper: float | None
    bounds: list[Verdict]
    controls: list[Control]
    not_tested: tuple[NotTested, ...] = NOT_TESTED


def upper_bound(lost: int, kills: int) -> float | None:
    """Return 3/n, the 95 % upper bound of losses per kill when none was seen in n kills (the rule of three)."""
    return round(3 / kills, 5) if kills and not lost else None


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write both files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / JSON_NAME, folder / PAGE_NAME
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    page.write_text(render(read(data)), encoding="utf-8")
    return data, page


def read(path: Path) -> Report:
    """Read the JSON. Raises msgspec.ValidationError when it is none of ours."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def render(report: Report) -> str:
    """Return the page."""
    state = "every bound held" if report.is_good else "a bound was broken"
    done = "" if report.is_complete else " **Incomplete: the run was ended early.**"
    tree = {True: ", with changes that are not committed", False: "", None: ""}[report.dirty]
    machine = report.machine
    parts = [
        "# Reliability report",
        f"{report.duration_s / 60:.0f} minutes, seed {report.seed}, {report.date}: {state}.{done}",
        (
            f"Commit `{report.commit}`{tree}. {machine.cores} cores, {machine.memory_gb:g} GB, {machine.system}, Python"
            f" {machine.python}, SQLite {machine.sqlite}, engine {machine.engine}; clients, vendor and gateway on the"
            " same machine."
        ),
        "## Events", _table(("", "number"), _events(report.figures)),
        _loss(report),
        "## Bounds",
        _table(("bound", "limit", "found", ""), ((one.bound, f"{one.limit:g} {one.unit}".strip(),
                f"{one.found:g} {one.unit}".strip(), "held" if one.is_held else "**broken**")
               for one in report.bounds)),
        "## Time and memory", _table(("", "figure"), _measures(report.figures)),
        "## Faults played", _table(("fault", "times"), report.figures.faults.items()),
        "## Planted bugs", _controls(report),
    ]  # fmt: skip
    if report.figures.details:
        rows = ((name, ", ".join(f"`{text}`" for text in found)) for name, found in report.figures.details.items())
        parts += ["## What was found", _table(("", "first of them"), rows)]
    parts += ["## Not tested", _table(("what", "why"), ((one.what, one.why) for one in report.not_tested))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(head), "|" + "---|" * len(head)]
    return "\n".join(lines + [_row(row) for row in rows])


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _events(figures: Figures) -> list[tuple[str, object]]:
    return [
        ("kills (`kill -9`)", f"{figures.kills}, {figures.kills_with_calls_in_flight} of them with calls in flight"),
        ("stops (SIGTERM)", figures.stops),
        ("accepted events", figures.accepted),
        ("delivered", figures.delivered),
        ("dead", figures.dead),
        ("dropped, as they should be", figures.dropped),
        ("rejected, as they should be", figures.rejected),
        ("copies merged", figures.merged),
        ("copies recognised as duplicates", figures.duplicates_in),
        ("**lost**", f"**{figures.lost}**"),
        ("**corrupt**", f"**{figures.corrupt}**"),
        ("**phantom**", f"**{figures.phantom}**"),
        (
            "arrived more than once",
            (
                f"{figures.duplicated_out}, in {figures.copies_out} further copies;"
                f" kills and lost answers allow for {figures.copies_out_bound}"
            ),
        ),
        ("of these unexplained", figures.unexplained),
        ("delivered although every answer was 503", figures.disowned),
        ("late (more than an hour)", figures.late),
        ("requests without an answer", figures.unanswered_requests),
        ("unexpected 5xx", figures.unexpected_5xx),
        ("fuzzed inputs", f"{figures.fuzz_inputs}, {figures.fuzz_failures} failed, {_server_errors(figures)} with 5xx"),
        ("checks of the store's file", f"{figures.store_checks}, {figures.unsound} found damage"),
    ]


def _server_errors(figures: Figures) -> int:
    return sum(number for status, number in figures.fuzz_statuses.items() if status >= "500")


def _measures(figures: Figures) -> list[tuple[str, object]]:
    worst = max(figures.fault_recovery_s.items(), key=lambda one: one[1], default=("none", 0.0))
    return [
        (
            "accepting again after a kill",
            f"{figures.median_recovery_s:g} s (median), {figures.largest_recovery_s:g} s (largest)",
        ),
        ("longest stop by SIGTERM", f"{figures.largest_stop_s:g} s"),
        ("backlog gone after a vendor's fault", f"{worst[1]:g} s at the longest ({worst[0]})"),
        (
            "steady phase",
            (
                f"{figures.steady_s:g} s at {figures.rate_per_s:g} requests/s, of {figures.capacity_per_s:g}/s"
                " that the machine takes with clients and vendor on it"
            ),
        ),
        (
            "answers",
            f"{figures.p50_ms:g} ms (p50), {figures.p99_ms:g} ms (p99), {figures.slowest_answer_s:g} s (slowest)",
        ),
        (
            "memory",
            (
                f"{figures.peak_rss_mb:g} MB at the most; {figures.rss_growth_mb:+g} MB from the second to the last"
                f" quarter of the steady phase, slope {figures.rss_slope_mb_per_h:+g} MB/h"
            ),
        ),
        ("open files", f"{figures.fds_first} at first, {figures.fds_last} at the end, {figures.fds_peak} at the most"),
        ("WAL and store", f"{figures.wal_peak_mb:g} MB and {figures.db_peak_mb:g} MB at the most"),
    ]  # fmt: skip


def _loss(report: Report) -> str:
    if report.loss_per_kill_upper is None:
        return ""
    share = min(1.0, report.loss_per_kill_upper)
    return (
        f"No loss in {report.figures.kills} kills: with 95 % confidence fewer than {share:.2%} of kills lose an event"
        " (3/n)."
    )


def _controls(report: Report) -> str:
    if not report.controls:
        return "None was planted in this run."
    return _table(
        ("bug", "", "what the account said"),
        (
            (
                f"`{one.plant}`",
                "caught" if one.is_caught else "**missed**",
                ", ".join(f"{name}: {found:g}" for name, found in one.found.items()) or "nothing",
            )
            for one in report.controls
        ),
    )
