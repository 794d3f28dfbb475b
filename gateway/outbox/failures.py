"""What SQLite's errors mean for the store."""

import sqlite3
from typing import Literal

from gateway.errors import StoreError

#: ``full``: the disk is; ``busy``: another process holds the file; ``damaged``: its content is not what was written;
#: ``broken``: a write or a sync failed; ``refused``: anything else, which may pass.
Failure = Literal["full", "busy", "damaged", "broken", "refused"]
#: Shared memory that cannot grow is a full disk in other words. Source: sqlite.org, "Result and Error Codes".
_SHM_SIZE = 4_874
_SHORT_READ = 522
_PRIMARY: dict[int, Failure] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_IOERR: "broken",
}
_TEXTS: tuple[tuple[str, Failure], ...] = (
    ("is full", "full"), ("locked", "busy"), ("malformed", "damaged"), ("not a database", "damaged"),
    ("disk I/O error", "broken"), ("Could not decode", "damaged"),
)  # fmt: skip


class DamagedRow(StoreError):
    """A stored event is not what was written."""


def words_of(error: BaseException) -> str:
    """Return what an error says, for people and logs: Python's own words on a damaged text quote it."""
    text = str(error)
    return "a text in it is damaged" if text.startswith("Could not decode") else text


def failure_of(error: BaseException) -> Failure:
    """Return what an error of the store means."""
    if isinstance(error, DamagedRow):
        return "damaged"
    if not isinstance(error, sqlite3.Error):
        return "refused"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return next((failure for text, failure in _TEXTS if text in str(error)), "refused")
    if code == _SHM_SIZE:
        return "full"
    if code == _SHORT_READ:
        return "damaged"
    return _PRIMARY.get(code & 0xFF, "refused")
