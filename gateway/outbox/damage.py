"""
Damage: a file that is not what was written is moved aside, never deleted, and the gateway goes on with a fresh store.

After a stop that was not clean, or a change from outside, the file is checked before it is used:

* ``integrity_check`` up to :data:`THOROUGH_BYTES`, ``quick_check`` beyond (no look at indexes), and every event's
  checksum; beyond :data:`AT_START_BYTES` it starts first, and the check runs beside it.
* The write-ahead log: SQLite takes what comes before a damaged frame and says nothing of the rest. What the shared
  memory of the last process says was committed is held against what SQLite found.

What the last stop left is in ``PATH.state``.
"""

import contextlib
import logging
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from gateway.errors import StoreError
from gateway.event import Struct
from gateway.outbox.failures import failure_of, words_of
from gateway.outbox.records import DIGEST_SIZE, is_sound
from gateway.outbox.schema import KEY_BYTES, VERSION, connect_reader
from gateway.steady import boot_id

_log = logging.getLogger("gateway.store")
#: Measured on two slow cores, for a gigabyte of a million events: 10 s of processor time thoroughly, 8 s quickly.
THOROUGH_BYTES = 256 << 20
AT_START_BYTES = 512 << 20
_SUFFIXES = ("", "-wal", "-shm")
#: As a row of ``meta`` looks in the file: key, type of a text of 10 bytes and of a blob of 32.
_KEY_HEAD = b"\x03\x21\x4cdigest_key"
_PIECE = 8 << 20
#: A unit whose lane or state is none is never sent; a mark or subject is of one length.
_UNITS = "SELECT lane, state, typeof(due), typeof(accepted_at), marks, subjects, event FROM unit"


class State(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What the last process left; ``suspect``: it found damage itself, so that the file is checked, however large.

    ``boot`` names the boot it ran on: shared memory of another boot says nothing, it is never synced.
    """

    stop: Literal["clean", "none", "suspect"]
    boot: str = ""
    size: int = 0
    mtime_ns: int = 0


class Notice(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A store that was moved aside: the file's name, when (ISO 8601), and what was found."""

    file: str
    at: str
    problem: str


def state_path(path: Path) -> Path:
    """Return where the state is kept."""
    return path.with_name(path.name + ".state")


def read_state(path: Path) -> State | None:
    """Return what the last process left; None when there was none, or it cannot be read."""
    try:
        return msgspec.json.decode(state_path(path).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


def write_state(path: Path, stop: Literal["clean", "none", "suspect"]) -> None:
    """Keep how it stands with the file; a disk that takes nothing only costs a check at the next start."""
    found = path.stat() if path.exists() else None
    state = State(
        stop=stop, boot=boot_id(), size=found.st_size if found else 0, mtime_ns=found.st_mtime_ns if found else 0
    )
    with contextlib.suppress(OSError):
        target = state_path(path)
        target.touch(mode=0o600)
        target.write_bytes(msgspec.json.encode(state))


def is_untouched(path: Path) -> bool:
    """Whether the last stop was clean and nobody wrote the file since."""
    state, log = read_state(path), path.with_name(path.name + "-wal")
    if state is None or state.stop != "clean" or not path.exists() or (log.exists() and log.stat().st_size):
        return False
    found = path.stat()
    return (found.st_size, found.st_mtime_ns) == (state.size, state.mtime_ns)


class WalIndex(Struct, frozen=True, kw_only=True):
    """
    What the shared memory says of the log: frames committed, frames copied back, and which log it is of.

    Source: sqlite.org, "WAL-mode File Format", section 2.
    """

    frames: int
    copied: int
    salt: bytes


def wal_index(path: Path) -> WalIndex | None:
    """Return the header of ``PATH-shm``; None when it is not there or not whole."""
    try:
        with path.with_name(path.name + "-shm").open("rb") as file:
            head = file.read(100)
    except OSError:
        return None
    if len(head) < 100 or head[:48] != head[48:96]:
        return None
    (frames,), (copied,) = struct.unpack_from("=I", head, 16), struct.unpack_from("=I", head, 96)
    return WalIndex(frames=frames, copied=copied, salt=head[32:40])


def _lost_frames(path: Path, before: WalIndex | None) -> int:
    """Return how many committed frames of the log SQLite did not find, after it has read it."""
    if before is None or before.frames <= before.copied:
        return 0
    log = path.with_name(path.name + "-wal")
    head = b""
    with contextlib.suppress(OSError), log.open("rb") as file:
        head = file.read(48)
    # the salt of the header, or, where that is damaged, of the first frame; another log's memory says nothing
    if len(head) >= 48 and before.salt not in (head[16:24], head[40:48]):
        return 0
    after = wal_index(path)
    found = after.frames if after is not None and after.salt == before.salt else 0
    return max(0, before.frames - max(found, before.copied))


def examine(path: Path, *, thorough: bool) -> str | None:
    """
    Check a store that nobody writes, in place; returns what is wrong with it, None for a sound one.

    Raises:
        StoreError: It cannot be read now, for a reason that is no damage.
    """
    if not path.exists() or not path.stat().st_size:
        return _examine_nothing(path)
    state = read_state(path)
    before = wal_index(path) if state is None or state.boot == boot_id() else None
    try:
        with closing(connect_reader(path)) as reader:
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # reads the log
            lost = _lost_frames(path, before)
            return f"{lost} frames of the write-ahead log are damaged" if lost else check(reader, thorough=thorough)
    except (sqlite3.Error, StoreError) as error:
        if failure_of(error) != "damaged":
            raise StoreError(
                f"The store {path} cannot be read ({words_of(error)}): see that nothing else uses it."
            ) from error
        return words_of(error)


def _examine_nothing(path: Path) -> str | None:
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return "the file is empty or gone, its log is not"
    if not state_path(path).exists():
        return None
    if path.exists():
        return "the file is empty"
    _log.warning("store_gone", extra={"detail": "There was a store, and it is gone. A new one is made."})
    return None


def check(reader: sqlite3.Connection, *, thorough: bool) -> str | None:
    """Return what is wrong with an open store, None for a sound one; raises sqlite3.Error for what cannot be read."""
    reader.execute("BEGIN")  # one state of it for all looks
    (version,) = reader.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if problem := _check_version(reader, version, tables):
        return problem
    if version > VERSION or not tables:
        return None  # refused, or made anew, by whoever opens it
    (problem,) = reader.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").fetchone()
    return _check_rows(reader) if problem == "ok" else str(problem).splitlines()[0][:200]


def _check_version(reader: sqlite3.Connection, version: int, tables: set[str]) -> str | None:
    if version == 0 and not tables:
        return None
    if "meta" not in tables:
        return None if version > VERSION else "its tables are gone"
    found = reader.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    if version <= 0 or (found is not None and found[0] != version):
        return "the version in its header is damaged"
    return None


def _check_rows(reader: sqlite3.Connection) -> str | None:
    key = reader.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    if key is None or not isinstance(key[0], bytes) or len(key[0]) != KEY_BYTES:
        return "its key is gone"
    lanes = {number for (number,) in reader.execute("SELECT id FROM lane")}
    for lane, state, due, accepted, marks, subjects, event in reader.execute(_UNITS):
        is_whole = lane in lanes and state in (0, 1, 2) and due == accepted == "real"
        digests = (marks, subjects)
        is_whole &= all(isinstance(one, bytes) and len(one) % DIGEST_SIZE == 0 for one in digests)
        if not is_whole or not is_sound(event):
            return "a stored event is not what was written"
    return None


def find_key(path: Path) -> bytes | None:
    """Return the digest key of a damaged store: by its pattern, so that neither header nor tables are needed."""
    for suffix in _SUFFIXES[:2]:
        try:
            with path.with_name(path.name + suffix).open("rb") as file:
                rest = b""
                while piece := file.read(_PIECE):
                    rest += piece
                    at = rest.find(_KEY_HEAD)
                    key = rest[at + len(_KEY_HEAD) : at + len(_KEY_HEAD) + KEY_BYTES]
                    if at >= 0 and len(key) == KEY_BYTES:
                        return key
                    rest = rest[-len(_KEY_HEAD) - KEY_BYTES :]
        except OSError:
            continue
    return None


def set_aside(path: Path, problem: str) -> Notice:
    """Move the file, its log and its shared memory aside, and say so loudly; returns what to remember of it."""
    now = datetime.now(UTC)
    name, number = f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}", 1
    while any(path.with_name(name + suffix).exists() for suffix in _SUFFIXES):
        number += 1
        name = f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}-{number}"
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    _log.error(
        "store_damaged",
        extra={
            "detail": problem,
            "moved_to": name,
            "remedy": f"Hits are taken in a fresh store. Bring back what can be read: tag-gateway salvage {name}",
        },
    )
    return Notice(file=name, at=now.isoformat(timespec="seconds"), problem=problem)


def notices(connection: sqlite3.Connection) -> list[Notice]:
    """Return the damaged stores that were neither salvaged nor acknowledged."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'damaged'").fetchone()
    return msgspec.json.decode(found[0], type=list[Notice]) if found else []


def keep_notices(connection: sqlite3.Connection, kept: list[Notice]) -> None:
    """Remember these."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('damaged', ?)", (msgspec.json.encode(kept),))
