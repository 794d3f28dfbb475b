"""``tag-gateway import``."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from gateway import config as configuration
from gateway.commands.control import Busy, Caller, call
from gateway.commands.render import fate, plain_json
from gateway.errors import CommandFailed
from gateway.importing import ImportStopped
from gateway.importing.job import Answer, Job, NotTaken, Options, batch_of, opened
from gateway.importing.progress import progress
from gateway.importing.report import Report
from gateway.importing.rows import Defaults
from gateway.importing.totals import Totals
from gateway.interfaces import Unreachable
from gateway.operator.imports import ADAPTER, wrong_adapter

__all__ = ["Defaults", "Options", "import_file"]

#: How long a busy gateway, or one that is being restarted, is waited for without any row being taken.
PATIENCE_S = 120.0
_RESTART_S = 1.0

_REMEDIES = {
    "too_old": "Pinterest's window is what max_event_age_s says, in [pipeline] or the destination's table.",
    "no_identity": "A row needs an e-mail address or a mobile ad id, or IP address and user agent: is it mapped?",
    "unmapped": "[sources.NAME.event_names] maps that name to nothing.",
}


class Sender:
    """Hands batches to the gateway, and waits while it is busy or restarts."""

    def __init__(self, caller: Caller, source: str, *, dry_run: bool, say: Callable[[str], None]) -> None:
        self._caller = caller
        self._path = f"/api/import/{source}"
        self._dry_run = dry_run
        self._say = say

    async def __call__(self, rows: list[bytes]) -> Answer:
        """
        Send rows; returns the fate of each.

        Raises:
            ImportStopped: The gateway refused the batch, or took nothing for :data:`PATIENCE_S`.
        """
        fates: list[str] = []
        not_taken: list[NotTaken] = []
        notes: dict[str, int] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(fates) < len(rows):
            done = len(fates)
            try:
                given = await self._caller.post(self._path, batch_of(rows[done:], dry_run=self._dry_run))
            except (Busy, Unreachable) as error:
                await self._wait(error, deadline)
                continue
            except CommandFailed as error:
                raise ImportStopped(str(error)) from error
            answer = msgspec.convert(given, Answer)
            fates += answer.fates
            not_taken += [msgspec.structs.replace(one, row=one.row + done) for one in answer.not_taken]
            for note, count in answer.notes.items():
                notes[note] = notes.get(note, 0) + count
            deadline = time.monotonic() + PATIENCE_S
            if answer.retry_after_s is not None:
                await asyncio.sleep(answer.retry_after_s)
        return Answer(fates=tuple(fates), not_taken=tuple(not_taken), notes=notes)

    async def _wait(self, error: Busy | Unreachable, deadline: float) -> None:
        seconds = error.retry_after_s if isinstance(error, Busy) else _RESTART_S
        if time.monotonic() + seconds > deadline:
            raise ImportStopped(f"{str(error).rstrip('.')}. Run the same command again: it goes on where it stopped.")
        self._say(f"{str(error).rstrip('.')}: waiting.")
        await asyncio.sleep(seconds)


def import_file(path: Path, options: Options, *, out: Console, err: Console, as_json: bool) -> int:
    """
    Import a file; returns the exit code: 0, or 1 when some rows were not taken.

    Args:
        path: The configuration. ``out`` gets the summary, ``err`` the progress.

    Raises:
        ImportStopped: The file, the options or the gateway do not let it go on.
    """
    _check_source(path, options.source)
    with opened(options.file) as file:
        job = Job(options, file)
        for warning in job.warnings:
            err.print(warning, highlight=False, markup=False)
        earlier = job.earlier
        if earlier is not None and earlier.is_finished:
            err.print("This file was imported before, and is not sent again: --restart reads it anew.", highlight=False)
            return _finish(earlier.totals, options, out, as_json=as_json)
        if earlier is not None:
            err.print(f"Going on after {earlier.totals.rows:,} rows.", highlight=False)
        totals = _run(path, job, options, err, earlier.report_bytes if earlier else 0)
    return _finish(totals, options, out, as_json=as_json)


def _check_source(path: Path, source: str) -> None:
    config = configuration.load(path)
    table = config.sources.get(source)
    if table is None:
        raise ImportStopped(f"There is no source '{source}'. Known are {', '.join(sorted(config.sources))}.")
    if table.adapter != ADAPTER:
        raise ImportStopped(wrong_adapter(source, table.adapter))


def _run(path: Path, job: Job, options: Options, err: Console, report_bytes: int) -> Totals:
    shown = progress(err, options.file.name, job.fingerprint.size, job.offset)

    async def work(caller: Caller) -> Totals:
        send = Sender(caller, options.source, dry_run=options.dry_run, say=shown.say)
        return await job.run(send, report, shown)

    with Report(options.report_path, report_bytes) as report, shown:
        try:
            return call(path, work)
        except KeyboardInterrupt:
            shown.say(f"Stopped after {job.totals.rows:,} rows: the same command goes on from there.")
            raise


def _finish(totals: Totals, options: Options, out: Console, *, as_json: bool) -> int:
    report = str(options.report_path) if totals.rejected or totals.dropped else None
    if as_json:
        out.print(
            plain_json({**_whole(totals), "report": report, "dry_run": options.dry_run}),
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return totals.exit_code
    table = Table("rows", "count", "", box=None, header_style="bold", show_edge=False)
    table.add_row("read", f"{totals.rows:,}")
    for name in ("accepted", "merged", "duplicate"):
        table.add_row(fate(name), f"{getattr(totals, name):,}")
    for name in ("dropped", "rejected"):
        by_reason: dict[str, int] = getattr(totals, name)
        for reason, count in sorted(by_reason.items(), key=lambda item: -item[1]):
            table.add_row(f"{fate(name)} {reason}", f"{count:,}", _REMEDIES.get(reason, ""))
        if not by_reason:
            table.add_row(fate(name), "0")
    for note, count in sorted(totals.notes.items(), key=lambda item: -item[1]):
        table.add_row(f"[dim]note[/] {note}", f"{count:,}")
    out.print(table)
    if report is not None:
        out.print(f"Each row that was not taken: {report}", highlight=False, markup=False, soft_wrap=True)
    if options.dry_run:
        out.print("A rehearsal: nothing was committed, and duplicates were not looked for.", highlight=False)
    return totals.exit_code


def _whole(totals: Totals) -> dict[str, Any]:
    """Return every count, those of nothing too."""
    return {name: getattr(totals, name) for name in totals.__struct_fields__}
