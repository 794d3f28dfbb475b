"""
The ledger: what the sink was told. Functions run on the writer's thread, each call in one transaction.

A chunk is marked before the call and recorded after the answer. Between the two a kill leaves it marked: whatever the
sink did, a marked person is told again, to be added or to be removed, as the mirror wants it then.
"""

import sqlite3
from collections.abc import Sequence
from typing import Literal

from gateway.audiences.schema import ADD_DUE, REMOVE_DUE

Operation = Literal["add", "remove"]
#: A person's e-mail (32 bytes) and what the sink had been told before the mark.
Told = tuple[bytes, int]

_DUE = {
    "add": f"person INDEXED BY person_add WHERE connection = ? AND {ADD_DUE}",
    "remove": f"person INDEXED BY person_remove WHERE connection = ? AND {REMOVE_DUE}",
}
_KEPT = "person WHERE connection = ? AND told <> 0"


def due(db: sqlite3.Connection, connection: int, operation: Operation) -> int:
    """Return how many people the sink must be told of."""
    (number,) = db.execute(f"SELECT count(*) FROM {_DUE[operation]}", (connection,)).fetchone()
    return int(number)


def kept(db: sqlite3.Connection, connection: int) -> int:
    """Return how many people the sink has from this connection, or may have."""
    (number,) = db.execute(f"SELECT count(*) FROM {_KEPT}", (connection,)).fetchone()
    return int(number)


def mark(db: sqlite3.Connection, connection: int, operation: Operation, limit: int) -> list[Told]:
    """Mark and return the next people to tell of."""
    return _mark(db, connection, _DUE[operation], limit)


def mark_kept(db: sqlite3.Connection, connection: int, limit: int) -> list[Told]:
    """Mark and return the next of those whom the sink has from this connection, wanted or not."""
    return _mark(db, connection, _KEPT, limit)


def _mark(db: sqlite3.Connection, connection: int, people: str, limit: int) -> list[Told]:
    rows = db.execute(f"SELECT email, told FROM {people} ORDER BY email LIMIT ?", (connection, limit)).fetchall()
    _tell(db, connection, 2, [(email, told) for email, told in rows if told != 2])
    _applied(db, connection, -sum(told == 1 for _, told in rows))
    return rows


def record(db: sqlite3.Connection, connection: int, operation: Operation, rows: Sequence[Told]) -> None:
    """Note that the sink took a chunk; who is neither wanted nor kept is forgotten."""
    _tell(db, connection, 1 if operation == "add" else 0, rows)
    if operation == "add":
        _applied(db, connection, len(rows))
    else:
        db.executemany(
            "DELETE FROM person WHERE connection = ? AND email = ? AND members = 0 AND told = 0",
            [(connection, email) for email, _ in rows],
        )
    column = "added" if operation == "add" else "removed"
    db.execute(
        f"UPDATE connection SET {column} = {column} + ?, allowed = max(0, allowed - ?) WHERE id = ?",
        (len(rows), len(rows) if operation == "remove" else 0, connection),
    )


def restore(db: sqlite3.Connection, connection: int, rows: Sequence[Told]) -> None:
    """Take a mark back: the sink was not told."""
    db.executemany(
        "UPDATE person SET told = ? WHERE connection = ? AND email = ?",
        [(told, connection, email) for email, told in rows],
    )
    _applied(db, connection, sum(told == 1 for _, told in rows))


def bar(db: sqlite3.Connection, emails: Sequence[bytes]) -> int:
    """Have people removed from wherever they are; returns how many there were."""
    connections = [row[0] for row in db.execute("SELECT id FROM connection WHERE leaving = 0")]
    before = db.total_changes
    db.executemany(
        "UPDATE person SET barred = 1 WHERE connection = ? AND email = ? AND barred = 0",
        [(connection, email) for connection in connections for email in emails],
    )
    return db.total_changes - before


def _tell(db: sqlite3.Connection, connection: int, told: int, rows: Sequence[Told]) -> None:
    db.executemany(
        "UPDATE person SET told = ? WHERE connection = ? AND email = ?",
        [(told, connection, email) for email, _ in rows],
    )


def _applied(db: sqlite3.Connection, connection: int, by: int) -> None:
    if by:
        db.execute("UPDATE connection SET applied = applied + ? WHERE id = ?", (by, connection))
