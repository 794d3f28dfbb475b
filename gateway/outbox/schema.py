"""
The SQLite file: its tables, its version, its lock.

Durability: WAL with ``synchronous=FULL``; one connection does all writes and all checkpoints, because SQLite up to
    3.51.2 can
corrupt a WAL database when one connection checkpoints while another commits (the WAL-reset bug, fixed in 3.51.3).
"""

import fcntl
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.errors import StoreError, StoreLocked, StoreTooNew

#: Grows by one with each entry of MIGRATIONS.
VERSION = 3
#: Bytes of the store's secret.
KEY_BYTES = 32

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE lane (id INTEGER PRIMARY KEY, destination TEXT NOT NULL, kind TEXT NOT NULL, UNIQUE (destination, kind));
-- state: 0 waiting (leased ones too: leases live in memory), 1 dead, 2 doomed (withdrawn or erased while leased)
CREATE TABLE unit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane INTEGER NOT NULL,
    state INTEGER NOT NULL,
    event_time INTEGER NOT NULL,
    due REAL NOT NULL,
    accepted_at REAL NOT NULL,
    attempts INTEGER NOT NULL,
    twice INTEGER NOT NULL,
    ended_at REAL,
    reason TEXT,
    marks BLOB NOT NULL,
    subjects BLOB NOT NULL,
    event BLOB NOT NULL
);
CREATE INDEX unit_waiting ON unit (lane, event_time, due) WHERE state = 0;
CREATE INDEX unit_ended ON unit (ended_at) WHERE state <> 0;
-- counts dead letters by reason without reading them
CREATE INDEX unit_dead ON unit (lane, reason, ended_at, twice, state) WHERE state = 1;
-- unit: the id of the unit the mark stands for (gone from the table: delivered),
-- or minus the Unix second of a refused consent
CREATE TABLE mark (
    digest BLOB PRIMARY KEY, unit INTEGER NOT NULL, expires INTEGER NOT NULL, event_id TEXT
) WITHOUT ROWID;
-- what later events may need of earlier hits: click ids as JSON, address and browser, and the person's choices;
-- subjects: whose it is; times in Unix seconds, sale as in gateway.outbox. Rows are appended; memory_key finds the
-- newest of a key, except for rows beyond meta's memory_indexed
CREATE TABLE memory (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, expires INTEGER NOT NULL, subjects BLOB NOT NULL,
    clicks TEXT, click_at REAL NOT NULL, ip TEXT, user_agent TEXT, seen_at REAL NOT NULL,
    marketing INTEGER, marketing_at REAL NOT NULL, sale INTEGER, sale_at REAL NOT NULL
);
CREATE TABLE memory_key (digest BLOB PRIMARY KEY, record INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lease (token TEXT PRIMARY KEY, units BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE erased (subject BLOB PRIMARY KEY, before REAL NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
-- how many of what: gateway.history has the words; hour: Unix seconds / 3600, day: hour / 24, of days that are over
CREATE TABLE rollup_key (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, destination TEXT NOT NULL, event TEXT NOT NULL, what TEXT NOT NULL,
    detail TEXT NOT NULL, UNIQUE (source, destination, event, what, detail)
);
CREATE TABLE rollup (hour INTEGER, key INTEGER, count INTEGER NOT NULL, PRIMARY KEY (hour, key)) WITHOUT ROWID;
CREATE TABLE rollup_day (day INTEGER, key INTEGER, count INTEGER NOT NULL, PRIMARY KEY (day, key)) WITHOUT ROWID;
"""

Migration = Callable[[sqlite3.Connection], None]


def _add_tables(connection: sqlite3.Connection, name: str) -> None:
    for table in TABLES.split(";\n"):
        if f"CREATE TABLE {name}" in table:
            connection.execute(table)


def _add_memory(connection: sqlite3.Connection) -> None:
    """Version 2 remembers: click ids, clients, choices."""
    _add_tables(connection, "memory")


def _add_rollups(connection: sqlite3.Connection) -> None:
    """Version 3 counts by hour (what was before is not counted), and dead letters by their index alone."""
    _add_tables(connection, "rollup")
    for table in TABLES.split(";\n"):
        if "CREATE INDEX unit_dead" in table:
            connection.execute(table)


#: MIGRATIONS[n] turns version n + 1 into n + 2. Each runs in its own transaction, after a copy of the file was made.
MIGRATIONS: Sequence[Migration] = (_add_memory, _add_rollups)


class FileLock:
    """An exclusive lock beside the store: released by the system when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """
        Take the lock at once.

        Raises:
            StoreLocked: Another process holds it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreLocked(
                f"The store {self._path.with_suffix('')} is in use by another process: "
                "stop the other gateway, or give this one its own [store] url."
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def connect(path: Path, key: bytes | None = None) -> sqlite3.Connection:
    """
    Open the one writing connection, creating or migrating the file as needed; ``key`` is the digest key of a new one.

    Raises:
        StoreTooNew: The file was written by a newer program.
        StoreError: The file is not a store, or cannot be used; its cause is what SQLite said.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _configure(connection)
        _upgrade(connection, path, key)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(path, error) from error
    return connection


def _unusable(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(
        f"The store {path} cannot be opened ({error}): restore a backup, "
        "or move the file away to start with an empty store."
    )


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that can only read; it never checkpoints."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # upkeep decides, off the commit path where it can
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA cache_size = -32768")  # KiB
    connection.execute("PRAGMA busy_timeout = 2000")  # see gateway.outbox.writer
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")


def _upgrade(connection: sqlite3.Connection, path: Path, key: bytes | None) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        connection.close()
        raise StoreTooNew(
            f"The store {path} has format {version}, this program knows {VERSION}: "
            "run the newer version that wrote it, or restore the copy that was made before the upgrade."
        )
    if version == 0:
        _create(connection, key or secrets.token_bytes(KEY_BYTES))
    elif version < VERSION:
        _migrate(connection, path, version)


def _create(connection: sqlite3.Connection, key: bytes) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('digest_key', ?)", (key,))
    _set_version(connection, VERSION)
    connection.execute("COMMIT")


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy2(path, path.with_name(f"{path.name}.before-{VERSION}"))
    for step in range(version, VERSION):
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[step - 1](connection)
        _set_version(connection, step + 1)
        connection.execute("COMMIT")


def _set_version(connection: sqlite3.Connection, version: int) -> None:
    """Write the version in the header, and in a row that tells a newer store from a damaged header."""
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (version,))


def digest_key(connection: sqlite3.Connection) -> bytes:
    """Return the store's secret for keyed hashes; made with the file, never shown."""
    (key,) = connection.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    return bytes(key)


def copy_store(path: Path, target: Path) -> int:
    """
    Write a consistent copy of a store that may be in use; returns its bytes.

    Raises:
        StoreError: It cannot be written.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists: choose a new file name.")
    reader = connect_reader(path)
    try:
        reader.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise StoreError(f"{target} cannot be written ({error}): choose a file in an existing folder.") from error
    finally:
        reader.close()
    target.chmod(0o600)
    return target.stat().st_size


def sqlite_version() -> tuple[str, bool]:
    """
    Return SQLite's version and whether it has the WAL-reset bug (harmless here: one connection writes and checkpoints).
    """
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return sqlite3.sqlite_version, not fixed
