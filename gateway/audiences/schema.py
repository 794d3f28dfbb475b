"""
``audiences.db``: its tables, its version, its lock.

Durability as the outbox has it: WAL with ``synchronous=FULL``, and one connection that does everything, checkpoints
too. An e-mail is the 32 bytes of its SHA-256; nothing else of a person is kept but the source's own id of the profile.
"""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.errors import StoreError, StoreTooNew

#: Grows by one with each entry of MIGRATIONS.
VERSION = 1

#: Wanted, and the sink was not told so for certain.
ADD_DUE = "members > 0 AND barred = 0 AND told <> 1"
#: Not wanted, and the sink may have been told otherwise.
REMOVE_DUE = "(members = 0 OR barred = 1) AND told <> 0"

TABLES = f"""
-- one to one: a group feeds one audience, a feed takes one group; what is being created has no feed yet.
-- scan: the number of the last full scan; scanning: 0 none is open, 1 it goes on at cursor, 2 it has ended but who left
-- was not taken out; seen: members it told. since: quick passes ask from there. allowed: removals that were confirmed.
-- leaving: 0 no, 1 forget, 2 remove, then forget. hold: what a guard said. status: JSON of what only status shows
CREATE TABLE connection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL, kind TEXT NOT NULL, "group" TEXT NOT NULL, group_name TEXT NOT NULL,
    sink TEXT NOT NULL, account TEXT NOT NULL, feed TEXT, audience TEXT, audience_name TEXT NOT NULL,
    remove INTEGER NOT NULL, connected_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'new', message TEXT NOT NULL DEFAULT '', hold TEXT NOT NULL DEFAULT '',
    leaving INTEGER NOT NULL DEFAULT 0, allowed INTEGER NOT NULL DEFAULT 0,
    scan INTEGER NOT NULL DEFAULT 0, scanning INTEGER NOT NULL DEFAULT 0, cursor TEXT,
    scan_began REAL NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0, since REAL,
    members INTEGER NOT NULL DEFAULT 0, applied INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0,
    quick_at REAL, full_at REAL, next_at REAL, status TEXT NOT NULL DEFAULT '{{}}',
    UNIQUE (source, kind, "group"), UNIQUE (sink, account, feed)
);
CREATE UNIQUE INDEX connection_name ON connection (sink, account, audience_name) WHERE audience IS NULL;
-- the mirror: email is NULL where reason says why the member is left out; scan: the last one that told of it
CREATE TABLE member (
    connection INTEGER NOT NULL, profile TEXT NOT NULL, email BLOB, reason TEXT, scan INTEGER NOT NULL,
    PRIMARY KEY (connection, profile)
) WITHOUT ROWID;
CREATE INDEX member_left_out ON member (connection, reason) WHERE reason IS NOT NULL;
-- the ledger: how many members have the e-mail, and what the sink was told: 0 nothing or to remove it, 1 to add it,
-- 2 either may be true (a call was under way)
CREATE TABLE person (
    connection INTEGER NOT NULL, email BLOB NOT NULL, members INTEGER NOT NULL,
    barred INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (connection, email)
) WITHOUT ROWID;
CREATE INDEX person_add ON person (connection, email) WHERE {ADD_DUE};
CREATE INDEX person_remove ON person (connection, email) WHERE {REMOVE_DUE};
CREATE INDEX person_barred ON person (connection, email) WHERE barred = 1;
"""

Migration = Callable[[sqlite3.Connection], None]
#: MIGRATIONS[n] turns version n + 1 into n + 2. Each runs in its own transaction, after a copy of the file was made.
MIGRATIONS: Sequence[Migration] = ()


def connect(path: Path) -> sqlite3.Connection:
    """
    Open the one connection, creating (mode 600) or migrating the file as needed.

    Raises:
        StoreTooNew: The file was written by a newer program.
        StoreError: The file is not a store of audiences, or is damaged.
    """
    try:
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    try:
        _configure(connection)
        _upgrade(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"The audiences' store {path} cannot be opened ({error}): restore a backup, or move the file away and connect "
        "the lists anew (who was added so far then stays in the audiences)."
    )


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "wal_autocheckpoint = 16000",  # pages; checkpoints by the connection that writes, never beside it
        "journal_size_limit = 134217728",
        "secure_delete = ON",
        "cache_size = -98304",  # KiB: of the mirror of millions only what is in use
        "busy_timeout = 3000",
        "temp_store = FILE",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreTooNew(
            f"The audiences' store {path} has format {version}, this program knows {VERSION}: "
            "run the newer version that wrote it, or restore the copy that was made before the upgrade."
        )
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    elif version < VERSION:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy2(path, path.with_name(f"{path.name}.before-{VERSION}"))
        for step in range(version, VERSION):
            connection.execute("BEGIN IMMEDIATE")
            MIGRATIONS[step - 1](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")
            connection.execute("COMMIT")
