"""
The audit log: who changed what, how much, and when. JSON lines beside the store, only ever appended to.

A line holds a role, an address, the name of an action and a count: never a person's data, a payload or a secret.
"""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.event import Struct

_log = logging.getLogger("gateway.audit")
_MAX_DETAIL = 200
#: How much of the file's end is read for the last lines.
_TAIL_BYTES = 128 << 10


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    One line.

    Args:
        at: When, in ISO 8601, UTC.
        who: A role (``operator``, ``viewer``), ``command`` for the command line, ``signal``, or ``-`` for nobody known.
        address: From where; None for what did not come over a network.
        what: The action: ``replay``, ``discard``, ``erase``, ``login``, ``login_failed`` …
        count: How many were changed, None where nothing is counted.
        detail: Which ones, in a few words; never personal.
    """

    at: str
    who: str
    what: str
    address: str | None = None
    count: int | None = None
    detail: str = ""


class Audit:
    """
    The log of one store.

    Args:
        path: The file; made with mode 600 by the first line.
        clock: Returns Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock

    def note(
        self, who: str, what: str, *, address: str | None = None, count: int | None = None, detail: str = ""
    ) -> None:
        """Append one line; a disk that takes none is said in the log, and stops no change."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        line = msgspec.json.encode(
            Entry(at=at, who=who, what=what, address=address, count=count, detail=detail[:_MAX_DETAIL])
        )
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, line + b"\n")  # one write: lines of two processes do not mix
            finally:
                os.close(file)
        except OSError as error:
            _log.error("audit_not_written", extra={"what": what, "detail": error.strerror})

    def last(self, number: int = 50) -> list[Entry]:
        """Return the last lines, newest first; what is no line of ours is passed over."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return []
        found: list[Entry] = []
        for line in reversed(lines):
            if len(found) >= number:
                break
            try:
                found.append(msgspec.json.decode(line, type=Entry))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        return found
