"""The mirror: what the source told of its members. Functions run on the writer's thread, each in one transaction."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from gateway.event import Struct

#: So many members are taken out in one transaction.
SWEEP = 5_000


class Entry(Struct, frozen=True, kw_only=True):
    """A member as it is kept: ``email`` is 32 bytes, None where ``reason`` says why the member is left out."""

    profile: str
    email: bytes | None = None
    reason: str | None = None


def take(db: sqlite3.Connection, connection: int, scan: int, entries: Sequence[Entry], *, unbar: bool) -> int:
    """
    Take in what was read; returns how many members this scan had not told yet.

    With ``unbar`` those who have an e-mail are known not to be barred any more.
    """
    latest = {entry.profile: entry for entry in entries}
    known = {
        profile: (email, told)
        for profile, email, told in db.execute(
            "SELECT profile, email, scan FROM member"
            " WHERE connection = ? AND profile IN (SELECT value FROM json_each(?))",
            (connection, json.dumps(list(latest))),
        )
    }
    change: Counter[bytes] = Counter()
    for entry in latest.values():
        before = known[entry.profile][0] if entry.profile in known else None
        if before != entry.email:
            if before is not None:
                change[before] -= 1
            if entry.email is not None:
                change[entry.email] += 1
    db.executemany(
        "INSERT INTO member VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET email = excluded.email, reason = excluded.reason, scan = excluded.scan",
        sorted((connection, entry.profile, entry.email, entry.reason, scan) for entry in latest.values()),
    )
    _count(db, connection, change)
    if unbar:
        _unbar(db, connection, {entry.email for entry in latest.values() if entry.email is not None})
    new = len(latest) - len(known)
    db.execute("UPDATE connection SET members = members + ? WHERE id = ?", (new, connection))
    return new + sum(int(told != scan) for _, told in known.values())


def _count(db: sqlite3.Connection, connection: int, change: Counter[bytes]) -> None:
    """Note how many members have each e-mail now; who is not wanted and was never told is forgotten."""
    more = [(connection, email, by) for email, by in change.items() if by > 0]
    fewer = [(by, connection, email) for email, by in change.items() if by < 0]
    db.executemany(
        "INSERT INTO person (connection, email, members) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET members = members + excluded.members",
        sorted(more),
    )
    db.executemany("UPDATE person SET members = members + ? WHERE connection = ? AND email = ?", fewer)
    db.executemany(
        "DELETE FROM person WHERE connection = ? AND email = ? AND members = 0 AND told = 0",
        [row[1:] for row in fewer],
    )


def _unbar(db: sqlite3.Connection, connection: int, emails: set[bytes]) -> None:
    barred = db.execute("SELECT email FROM person WHERE connection = ? AND barred = 1", (connection,))
    db.executemany(
        "UPDATE person SET barred = 0 WHERE connection = ? AND email = ?",
        [(connection, email) for (email,) in barred.fetchall() if email in emails],
    )


def sweep(db: sqlite3.Connection, *, number: int, scan: int, after: str) -> tuple[str | None, int]:
    """
    Take out members after the profile ``after`` whom the scan did not tell, at most ``SWEEP``.

    Returns where to go on (None: that were all) and how many they were.
    """
    gone = db.execute(
        "SELECT profile, email FROM member WHERE connection = ? AND profile > ? AND scan <> ? ORDER BY profile LIMIT ?",
        (number, after, scan, SWEEP),
    ).fetchall()
    db.executemany("DELETE FROM member WHERE connection = ? AND profile = ?", [(number, row[0]) for row in gone])
    change: Counter[bytes] = Counter()
    change.subtract(email for _, email in gone if email is not None)
    _count(db, number, change)
    db.execute("UPDATE connection SET members = members - ? WHERE id = ?", (len(gone), number))
    return (gone[-1][0] if len(gone) == SWEEP else None), len(gone)


def left_out(db: sqlite3.Connection, connection: int) -> dict[str, int]:
    """Return how many members are left out, by reason."""
    return dict(
        db.execute(
            "SELECT reason, count(*) FROM member WHERE connection = ? AND reason IS NOT NULL GROUP BY reason",
            (connection,),
        ).fetchall()
    )


def forget(db: sqlite3.Connection, connection: int) -> bool:
    """Delete some of what is kept of a connection, at last itself; returns whether it is gone."""
    for table, key in (("member", "profile"), ("person", "email")):
        rows = db.execute(f"SELECT {key} FROM {table} WHERE connection = ? LIMIT ?", (connection, SWEEP)).fetchall()
        if rows:
            db.executemany(
                f"DELETE FROM {table} WHERE connection = ? AND {key} = ?", [(connection, row[0]) for row in rows]
            )
            return False
    db.execute("DELETE FROM connection WHERE id = ?", (connection,))
    return True
