"""
How far an import has come, in a small file beside the report: written after each committed batch, in one step.

It holds places and counts, never a value of the file.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.event import Struct
from gateway.importing import ImportStopped
from gateway.importing.records import Place
from gateway.importing.totals import Totals

FORMAT = 1
_SAMPLE = 65_536


class Fingerprint(Struct, frozen=True, kw_only=True):
    """What tells a file from a changed one: size, time of its last change (ns), and a hash of both its ends."""

    size: int
    mtime_ns: int
    ends: str


class State(Struct, frozen=True, kw_only=True):
    """
    Everything before ``place`` is decided and committed. ``settings`` is a hash of the options that shape events;
    ``report_bytes`` is the length of the report at that time.
    """

    format: int
    file: Fingerprint
    source: str
    settings: str
    place: Place
    totals: Totals
    report_bytes: int = 0
    is_finished: bool = False


def fingerprint(file: BinaryIO) -> Fingerprint:
    """Return the fingerprint of an open file."""
    found = os.fstat(file.fileno())
    file.seek(0)
    hashed = hashlib.sha256(file.read(_SAMPLE))
    file.seek(max(0, found.st_size - _SAMPLE))
    hashed.update(file.read(_SAMPLE))
    return Fingerprint(size=found.st_size, mtime_ns=found.st_mtime_ns, ends=hashed.hexdigest())


def settings_of(parts: Iterable[object]) -> str:
    """Return a hash of options."""
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:32]


def load(path: Path, file: Fingerprint, source: str, settings: str) -> State | None:
    """
    Return the state of an earlier run of the same import, None when there is none that has sent a row.

    Raises:
        ImportStopped: The file was changed since, or the options or the source are others: the remedy is named.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImportStopped(f"{path} cannot be read ({error.strerror}).") from error
    try:
        found = msgspec.json.decode(raw, type=State)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ImportStopped(f"{path} is no import state of this version: {_AGAIN}") from None
    if found.format != FORMAT:
        raise ImportStopped(f"{path} was written by another version: {_AGAIN}")
    if not found.totals.rows:
        return None  # nothing was sent: file and options may be others
    if found.source != source:
        raise ImportStopped(f"This file was being imported for the source '{found.source}': name that one, or {_AGAIN}")
    if found.file != file:
        raise ImportStopped(
            f"The file was changed since its import was begun: restore it, or {_AGAIN} Rows that have an event_id or "
            "an order_id, and rows that stand where they stood, are not counted twice within business_key_s."
        )
    if found.settings != settings:
        raise ImportStopped(f"This import was begun with other options: use the same ones, or {_AGAIN}")
    return found


_AGAIN = "say --restart to read it from its beginning."


def save(path: Path, state: State) -> None:
    """
    Replace the state in one step; mode 600.

    Raises:
        ImportStopped: The folder cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise ImportStopped(
            f"{path} cannot be written ({error.strerror}): name a folder that can be by --report."
        ) from error
