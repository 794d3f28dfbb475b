"""Opening the file: under the lock, checked when its last stop was not clean, moved aside when it is damaged."""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.errors import StoreError
from gateway.event import Struct
from gateway.outbox import damage
from gateway.outbox.failures import failure_of, words_of
from gateway.outbox.schema import FileLock, connect
from gateway.outbox.space import Space, network_file_system

T = TypeVar("T")
_log = logging.getLogger("gateway.store")


class Opened(Struct, frozen=True, kw_only=True):
    """
    The writing connection and the damaged stores that wait for the operator. ``is_unchecked``: the file is so large
    that it is to be checked beside the running gateway.
    """

    connection: sqlite3.Connection
    notices: tuple[damage.Notice, ...]
    is_unchecked: bool


def open_store(path: Path, space: Space) -> Opened:
    """
    Open the store; the caller holds its lock.

    Raises:
        StoreTooNew: The file was written by a newer program.
        StoreError: It cannot be used, for a reason that is no damage.
    """
    kind = network_file_system(path.parent)
    if kind is not None:
        detail = f"The store is on a network file system ({kind}): locks may not hold, and damage is likely."
        _log.warning("network_file_system", extra={"detail": detail, "remedy": "Put it on a local disk."})
    unchecked, problem = False, None
    if not damage.is_untouched(path):
        unchecked, problem = with_ballast(space, lambda: _examine(path))
    notice, key = None, None
    if problem is not None:
        key, notice = damage.find_key(path), damage.set_aside(path, problem)
    path.touch(mode=0o600)  # the files beside it get the same mode from SQLite
    try:
        connection = with_ballast(space, lambda: connect(path, key))
    except StoreError as error:
        if notice is not None or failure_of(error.__cause__ or error) != "damaged":
            raise
        key, notice = damage.find_key(path), damage.set_aside(path, words_of(error.__cause__ or error))
        path.touch(mode=0o600)
        connection = connect(path, key)
    path.chmod(0o600)
    damage.write_state(path, "none")
    kept = damage.notices(connection)
    if notice is not None:
        kept.append(notice)
        damage.keep_notices(connection, kept)
    return Opened(connection=connection, notices=tuple(kept), is_unchecked=unchecked)


def inspect(path: Path) -> str | None:
    """
    Return what is wrong with a store that nobody uses, None for a sound one; nothing is moved.

    Raises:
        StoreError: It is in use, or cannot be read for a reason that is no damage.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    if not path.parent.exists():
        return None
    lock.acquire()
    try:
        return damage.examine(path, thorough=not path.exists() or path.stat().st_size <= damage.THOROUGH_BYTES)
    finally:
        lock.release()


def with_ballast(space: Space, work: Callable[[], T]) -> T:
    """Do something that a full disk may prevent; then give the ballast up and do it once more."""
    try:
        return work()
    except (sqlite3.Error, StoreError) as error:
        if failure_of(error.__cause__ or error) != "full" or not space.give_up():
            raise
    return work()


def _examine(path: Path) -> tuple[bool, str | None]:
    state = damage.read_state(path)
    size = path.stat().st_size if path.exists() else 0
    is_suspect = state is not None and state.stop == "suspect"
    if size > damage.AT_START_BYTES and not is_suspect:
        _log.warning("check_beside", extra={"bytes": size, "detail": "The store is checked while it is in use."})
        return True, None
    return False, damage.examine(path, thorough=is_suspect or size <= damage.THOROUGH_BYTES)
