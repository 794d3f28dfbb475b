"""The import itself: read, send a batch, write down how far it is, and so on to the end."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.event import Struct
from gateway.importing import ImportStopped, state
from gateway.importing.columns import field_of, layout, parse_map, shown
from gateway.importing.progress import Shown
from gateway.importing.records import Problem, Record, Source, inspect, records
from gateway.importing.report import Report
from gateway.importing.rows import Defaults, Reader, zone_of
from gateway.importing.state import Fingerprint, State
from gateway.importing.totals import Count, Totals

BATCH_ROWS = 500
BATCH_BYTES = 1 << 20

_encode = msgspec.json.Encoder().encode


class NotTaken(Struct, frozen=True, kw_only=True):
    """A row of a batch, by its position, that was dropped or rejected."""

    row: int
    fate: str
    reason: str
    message: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """What the gateway says of a batch: the fate of its first rows, all of them unless ``retry_after_s`` is given."""

    fates: tuple[str, ...]
    not_taken: tuple[NotTaken, ...] = ()
    notes: dict[str, int] = msgspec.field(default_factory=dict)
    retry_after_s: int | None = None


#: Hands the rows of a batch to the gateway, waiting where it is told to; the answer covers every row.
Send = Callable[[list[bytes]], Awaitable[Answer]]


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    file: Path
    source: str
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    timezone: str | None = None
    defaults: Defaults = Defaults()
    report: Path | None = None
    dry_run: bool = False
    restart: bool = False

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        if self.report is not None:
            return self.report
        return self.file.with_name(f"{self.file.name}{'.dry-run' if self.dry_run else ''}.errors.csv")

    @property
    def state_path(self) -> Path:
        """Where the state is: beside the report."""
        return self.report_path.with_name(f"{self.file.name}.import-state")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file for this import alone.

    Raises:
        ImportStopped: It cannot be read, or is being imported.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImportStopped(f"{path} cannot be read ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ImportStopped(f"{path} is being imported: wait for the other import to end.") from None
        yield file


class Job:
    """
    One import of an open file.

    ``earlier`` is the state that an earlier run left, None for a beginning. ``warnings`` are for the person who runs
    it.

    Raises:
        ImportStopped: File and options do not fit each other, or an earlier run.
    """

    def __init__(self, options: Options, file: BinaryIO) -> None:
        self._options = options
        self._file = file
        given = parse_map(options.columns)
        self._source: Source = inspect(options.file, file, options.delimiter)
        self.warnings: list[str] = []
        columns = layout(self._source.header, given) if self._source.format == "csv" else None
        if columns is not None and columns.unknown:
            self.warnings.append(f"Not read, as no field has such a name: {shown(columns.unknown)}.")
        self._reader = Reader(columns, given, options.defaults, zone_of(options.timezone))
        self.fingerprint: Fingerprint = state.fingerprint(file)
        self._settings = state.settings_of(
            (self._source.format, self._source.delimiter, sorted(given.items()), options.timezone, options.defaults)
        )
        self.earlier = None
        if not options.dry_run and not options.restart:
            self.earlier = state.load(options.state_path, self.fingerprint, options.source, self._settings)
        begun = self.earlier
        self._place = begun.place if begun else self._source.start
        self._count = Count(begun.totals if begun else None)
        self._before = self._count.rows

    @property
    def offset(self) -> int:
        """Where it goes on, in bytes."""
        return self._place.offset

    @property
    def totals(self) -> Totals:
        """The counts so far."""
        return self._count.totals()

    async def run(self, send: Send, report: Report, shown_on: Shown) -> Totals:
        """
        Send every row that is left; returns the counts of all runs.

        Raises:
            ImportStopped: The file was changed meanwhile, or all rows of the first batch fail for one reason.
        """
        told: set[str] = set()
        self._save(report, is_finished=False)  # a folder that cannot be written is found before a row is sent
        for batch in self._batches():
            await self._send(batch, send, report)
            self._check(batch)
            self._save(report, is_finished=False)
            shown_on.update(self._place.offset, self._count.rows - self._before)
            news = self._reader.unknown - told
            if news:
                shown_on.say(f"Not read, as no field has such a name: {shown(sorted(news))}.")
                told |= news
            await asyncio.sleep(0)
        self._save(report, is_finished=True)
        return self.totals

    def _batches(self) -> Iterator[Sequence[Record]]:
        batch: list[Record] = []
        first = self._place.offset
        for record in records(self._file, self._source, self._place):
            batch.append(record)
            if len(batch) >= BATCH_ROWS or record.after.offset - first >= BATCH_BYTES:
                yield batch
                first = record.after.offset
                batch = []
        if batch:
            yield batch

    async def _send(self, batch: Sequence[Record], send: Send, report: Report) -> None:
        """Send what can be read, and note the fate of every row in the order of the file."""
        decided: dict[int, tuple[str, Problem | None]] = {}
        rows: list[bytes] = []
        positions: list[int] = []
        for position, record in enumerate(batch):
            event = self._reader.event(record)
            if isinstance(event, Problem):
                decided[position] = ("rejected", event)
            else:
                rows.append(b'{"mark":"%b","event":%b}' % (record.mark.encode(), _encode(event)))
                positions.append(position)
        if rows:
            answer = await send(rows)
            not_taken = {positions[one.row]: one for one in answer.not_taken}
            for position, fate in zip(positions, answer.fates, strict=True):
                found = not_taken.get(position)
                decided[position] = (fate, None if found is None else _problem(found))
            self._count.remarks(answer.notes)
        for position, record in enumerate(batch):
            fate, problem = decided[position]
            self._count.row(fate, None if problem is None else problem.reason)
            if problem is not None:
                report.row(record.line, fate, problem)
        self._place = batch[-1].after

    def _check(self, batch: Sequence[Record]) -> None:
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.fingerprint.size, self.fingerprint.mtime_ns):
            raise ImportStopped(
                f"{self._options.file} was changed while it was read: let it be written to its end, then --restart."
            )
        totals = self.totals
        if len(batch) == BATCH_ROWS == totals.rows and list(totals.rejected.values()) == [BATCH_ROWS]:
            raise ImportStopped(
                f"The first {BATCH_ROWS} rows were all rejected as {next(iter(totals.rejected))}: "
                f"see {self._options.report_path}. Nothing was sent."
            )

    def _save(self, report: Report, *, is_finished: bool) -> None:
        length = report.flush()
        if self._options.dry_run:
            return
        state.save(
            self._options.state_path,
            State(
                format=state.FORMAT, file=self.fingerprint, source=self._options.source, settings=self._settings,
                place=self._place, totals=self.totals, report_bytes=length, is_finished=is_finished,
            ),
        )  # fmt: skip


def _problem(found: NotTaken) -> Problem:
    """Return what the gateway said of a row; its message begins with the field's name, where one is at fault."""
    first = found.message.split(maxsplit=1)[0].rstrip(":") if found.message else ""
    field = first if first and field_of(first) else ""
    message = found.message or _MEANINGS.get(found.reason, "")
    return Problem(reason=found.reason, field=field, message=message)


_MEANINGS = {
    "too_old": "Older than max_event_age_s.",
    "no_identity": "No e-mail address, mobile ad id, or IP address with user agent that can be used.",
    "consent": "Marketing was refused.",
    "unmapped": "event_names maps this name to nothing.",
    "erased": "The person's data was erased after this event.",
}


def batch_of(rows: Sequence[bytes], *, dry_run: bool) -> bytes:
    """Return the body of ``POST /api/import/{source}``."""
    return b'{"dry_run":%b,"rows":[%b]}' % (b"true" if dry_run else b"false", b",".join(rows))
