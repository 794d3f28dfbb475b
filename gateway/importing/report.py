"""The report: one CSV line for each row that was not taken; row, field, reason, message, and never a value."""

import csv
import io
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway.importing import ImportStopped
from gateway.importing.records import Problem

_HEADER = "row,fate,field,reason,message\r\n"


class Report:
    """
    Written from ``length`` on: what an interrupted run had said after its last batch is said again.

    The file is made with its first line, mode 600.

    Raises:
        ImportStopped: The path holds something else than a report.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        self.length = length
        self._file: BinaryIO | None = None
        self._check()
        if not length:
            path.unlink(missing_ok=True)

    def _check(self) -> None:
        try:
            with self.path.open("rb") as file:
                if file.read(len(_HEADER)) not in (b"", _HEADER.encode()):
                    raise ImportStopped(f"{self.path} is no report of an import: name another file by --report.")
        except FileNotFoundError:
            self.length = 0
        except OSError as error:
            raise ImportStopped(f"{self.path} cannot be read ({error.strerror}): name another by --report.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def row(self, line: int, fate: str, problem: Problem) -> None:
        """Report one row by the line on which it begins."""
        text = io.StringIO()
        csv.writer(text).writerow((line, fate, problem.field, problem.reason, problem.message))
        self._open().write(text.getvalue().encode())

    def flush(self) -> int:
        """Hand everything to the system; returns the length."""
        if self._file is not None:
            self._file.flush()
            self.length = self._file.tell()
        return self.length

    def _open(self) -> BinaryIO:
        if self._file is None:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                self._file = os.fdopen(handle, "r+b")
                self._file.truncate(self.length)
                self._file.seek(self.length)
                if not self.length:
                    self._file.write(_HEADER.encode())
            except OSError as error:
                raise ImportStopped(
                    f"{self.path} cannot be written ({error.strerror}): name another by --report."
                ) from error
        return self._file
