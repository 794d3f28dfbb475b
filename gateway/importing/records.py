"""
Reading a file record by record, each with its place in the file.

CSV records may span lines. One that cannot be read costs its first line only: reading goes on with the second, so that
a stray quote does not swallow the rows after it.
"""

import csv
import hashlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from gateway.event import Struct
from gateway.importing import ImportStopped

Format = Literal["csv", "jsonl"]
#: Far more than one conversion needs; a longer record is a stray quote or no text file.
MAX_RECORD = 262_144
DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
_OTHER_TEXT = (b"\xff\xfe", b"\xfe\xff")
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})


class Problem(Struct, frozen=True, kw_only=True):
    """Why a row is not sent: a stable reason, the field if it is one field's, and what to do. Never a value."""

    reason: str
    message: str
    field: str = ""


class Place(Struct, frozen=True, kw_only=True):
    """Where to go on: the byte, and the number of the line that begins there, the file's first being 1."""

    offset: int
    line: int


class Record(Struct, frozen=True, kw_only=True):
    """
    One record: its cells or its object, or a problem.

    ``line`` is the one on which it begins, ``after`` where the next begins; ``mark`` tells this row from every other: a
    hash of its bytes, and its place.
    """

    line: int
    after: Place
    mark: str = ""
    value: Any = None
    problem: Problem | None = None


class TooLong(Exception):
    """A record is longer than :data:`MAX_RECORD`."""


class Lines:
    """Gives lines as text and remembers the bytes of those that the current record took."""

    def __init__(self, file: BinaryIO, place: Place) -> None:
        file.seek(place.offset)
        self._file = file
        self._again: deque[bytes] = deque()
        self.offset = place.offset
        self.line = place.line
        self.taken: list[bytes] = []
        self.is_utf8 = True
        self._size = 0

    def __iter__(self) -> "Lines":
        """Return itself: the csv module reads from it."""
        return self

    def __next__(self) -> str:
        """Return the next line with its end."""
        raw = self._again.popleft() if self._again else self._file.readline(MAX_RECORD + 1)
        if not raw:
            raise StopIteration
        self.taken.append(raw)
        self._size += len(raw)
        if self._size > MAX_RECORD:
            if len(self.taken) == 1:
                self._skip_line(raw)
            raise TooLong
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.is_utf8 = False
            return raw.decode("utf-8", "replace")

    def _skip_line(self, raw: bytes) -> None:
        """Read to the end of an endless line, keeping its length only."""
        while raw and not raw.endswith(b"\n"):
            raw = self._file.readline(MAX_RECORD)
            self.offset += len(raw)

    def keep_first(self) -> None:
        """Give every line but the first back."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def record(self, value: Any = None, problem: Problem | None = None) -> Record:
        """Close the current record: what was taken is its own."""
        raw = b"".join(self.taken)
        offset, line = self.offset, self.line
        self.offset += len(raw)
        self.line += len(self.taken)
        if problem is None and not self.is_utf8:
            problem = Problem(reason="not_utf8", message="The row is not UTF-8: save the file as UTF-8.")
        mark = "" if problem else f"{hashlib.sha256(raw.rstrip()).hexdigest()}@{offset}"
        self.taken.clear()
        self._size = 0
        self.is_utf8 = True
        after = Place(offset=self.offset, line=self.line)
        return Record(line=line, after=after, mark=mark, value=value, problem=problem)


class Source(Struct, frozen=True, kw_only=True):
    """A file as it begins: its format, and for CSV delimiter and header. ``start`` is where its first row is."""

    format: Format
    start: Place
    delimiter: str = ""
    header: tuple[str, ...] = ()


def inspect(path: Path, file: BinaryIO, delimiter: str | None) -> Source:
    """
    Read the beginning of a file.

    Raises:
        ImportStopped: It is empty, or is neither CSV nor JSON lines in UTF-8.
    """
    file.seek(0)
    head = file.read(4_096)
    if not head.strip():
        raise ImportStopped(f"{path} is empty.")
    if head.startswith(_OTHER_TEXT) or b"\0" in head:
        raise ImportStopped(f"{path} is not text in UTF-8: export it as CSV in UTF-8.")
    start = len(_BOM) if head.startswith(_BOM) else 0
    first = head[start:].lstrip()[:1]
    if first == b"[" and path.suffix.lower() in _JSON_SUFFIXES:
        raise ImportStopped(f"{path} is one JSON array: write one object a line (jq -c '.[]').")
    if first == b"{":
        return Source(format="jsonl", start=Place(offset=start, line=1))
    lines = Lines(file, Place(offset=start, line=1))
    try:
        text = next(lines)
        lines.keep_first()
        chosen = _delimiter(delimiter) or max(DELIMITERS, key=text.count)
        lines = Lines(file, Place(offset=start, line=1))
        header = tuple(next(csv.reader(lines, delimiter=chosen, strict=True)))
        if not lines.is_utf8:
            raise ImportStopped(f"{path}: the header is not UTF-8: export the file as CSV in UTF-8.")
    except (TooLong, csv.Error, StopIteration):
        raise ImportStopped(
            f"{path}: the first line is no header of a CSV file. Lines must end with LF or CRLF, and quotes be closed."
        ) from None
    record = lines.record()
    return Source(format="csv", delimiter=chosen, header=header, start=record.after)


def _delimiter(given: str | None) -> str | None:
    found = "\t" if given in ("tab", "\\t") else given
    if found is not None and (len(found) != 1 or found in '"\r\n'):
        raise ImportStopped("--delimiter: give one character, or the word tab.")
    return found


def records(file: BinaryIO, source: Source, place: Place) -> Iterator[Record]:
    """Yield the records from a place on; blank ones are passed over."""
    lines = Lines(file, place)
    return _objects(lines) if source.format == "jsonl" else _rows(lines, source)


def _rows(lines: Lines, source: Source) -> Iterator[Record]:
    width = len(source.header)
    reader = csv.reader(lines, delimiter=source.delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except TooLong:
            yield _first_alone(
                lines, "too_long", f"The row is longer than {MAX_RECORD >> 10} KB; is a quote not closed?"
            )
            continue
        except csv.Error:
            yield _first_alone(lines, "malformed_csv", "Quotes are not closed, or stand inside of a cell.")
            continue
        if not any(cells):
            lines.record()
        elif len(cells) == width:
            yield lines.record(cells)
        else:
            yield _first_alone(lines, "wrong_columns", f"The header has {width} columns, the row {len(cells)}.")


def _first_alone(lines: Lines, reason: str, message: str) -> Record:
    lines.keep_first()
    return lines.record(problem=Problem(reason=reason, message=message))


def _objects(lines: Lines) -> Iterator[Record]:
    decode = msgspec.json.decode
    while True:
        try:
            text = next(lines)
        except StopIteration:
            return
        except TooLong:
            yield _first_alone(lines, "too_long", f"The row is longer than {MAX_RECORD >> 10} KB.")
            continue
        if not text.strip():
            lines.record()
            continue
        try:
            value = decode(text)
        except (msgspec.DecodeError, RecursionError):
            yield lines.record(problem=Problem(reason="malformed_json", message="The line is not JSON."))
            continue
        if isinstance(value, dict):
            yield lines.record(value)
        else:
            yield lines.record(problem=Problem(reason="not_an_object", message="The line is no JSON object."))
