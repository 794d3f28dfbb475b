"""
Runs the command line with something changed from outside; the product has no switch for any of it.

``HARNESS_PLANT=NAME`` plants one of :data:`PLANTS`, a fault that a test must find. ``HARNESS_CAP_S`` shortens the
longest back-off, so that an outage can be a short one. ``HARNESS_FAILPOINT`` and ``HARNESS_REACHED``: see
:mod:`tests.harness.failpoints`. ``HARNESS_PLUGINS=module,module`` loads plugins that are not installed.
"""

import asyncio
import importlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import cli, runtime, sender
from gateway.outbox import (
    Admission,
    Join,
    Lease,
    Memorandum,
    Settlement,
    Unit,
    admission,
    leases,
    opening,
    schema,
    statements,
)
from gateway.outbox.sqlite import SqliteOutbox
from tests.harness import failpoints

#: Sets an attribute: ``setattr``, or pytest's, which takes it back.
Put = Callable[[Any, str, Any], None]

#: How long the planted fault leaves answered hits unwritten.
DELAY_S = 0.2


def plant_ack_before_commit(put: Put = setattr) -> None:
    """Let the outbox say "accepted" at once, and write a little later."""
    commit = SqliteOutbox.admit
    later: set[asyncio.Task[None]] = set()

    async def write(
        outbox: SqliteOutbox, units: Sequence[Unit], join: Join | None, memories: Sequence[Memorandum]
    ) -> None:
        await asyncio.sleep(DELAY_S)
        await commit(outbox, units, join, memories)

    async def admit(
        self: SqliteOutbox, units: Sequence[Unit], join: Join | None = None, memories: Sequence[Memorandum] = ()
    ) -> list[Admission]:
        task = asyncio.create_task(write(self, units, join, memories))
        later.add(task)
        task.add_done_callback(later.discard)
        return [Admission(fate="accepted", unit="0") for _ in units]

    put(SqliteOutbox, "admit", admit)


def plant_mark_without_row(put: Put = setattr) -> None:
    """Now and then a commit writes the marks of its events, and not the events."""
    insert, number = statements.insert_rows, 0

    def forgetful(
        connection: sqlite3.Connection, head: str, row: str, tail: str, rows: Sequence[Sequence[Any]]
    ) -> None:
        nonlocal number
        if head == "INSERT INTO unit" and rows:
            number += 1
            if number % 10 == 0:
                return
        insert(connection, head, row, tail, rows)

    put(admission, "insert_rows", forgetful)


def plant_settle_before_send(put: Put = setattr) -> None:
    """Count a batch as delivered before it is sent."""
    send, settle = sender.DestinationLane._send, sender.DestinationLane._settle

    async def early(self: sender.DestinationLane, lease: Lease, units: Sequence[Any]) -> list[Settlement]:
        ended = [Settlement(unit=unit.unit, end="delivered") for unit in units]
        await settle(self, lease, ended)
        await send(self, lease, units)
        return ended

    put(sender.DestinationLane, "_send", early)


def plant_forget_leases(put: Put = setattr) -> None:
    """Forget what is leased, so that it is claimed again at once."""
    claim = leases.Ledger.claim

    def forgetful(self: leases.Ledger, *args: Any) -> Any:
        found, after = claim(self, *args)
        if found is None:
            return found, after

        def forget() -> None:
            after()
            for unit in found.units:
                self.units.pop(unit, None)
            self._leases[found.token][1].clear()

        return found, forget

    put(leases.Ledger, "claim", forgetful)


def plant_dedupe_in_memory_only(put: Put = setattr) -> None:
    """Keep marks in a table that ends with the process."""
    connect = schema.connect

    def shadowed(path: Path, key: bytes | None = None) -> sqlite3.Connection:
        connection = connect(path, key)
        connection.execute(
            "CREATE TEMP TABLE mark (digest BLOB PRIMARY KEY, unit INTEGER, expires INTEGER, event_id TEXT)"
        )
        return connection

    put(opening, "connect", shadowed)


def plant_synchronous_off(put: Put = setattr) -> None:
    """Let no commit wait for the disk."""
    connect = schema.connect

    def hasty(path: Path, key: bytes | None = None) -> sqlite3.Connection:
        connection = connect(path, key)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    put(opening, "connect", hasty)


#: Each a fault that loses or doubles events.
PLANTS: dict[str, Callable[..., None]] = {
    "ack_before_commit": plant_ack_before_commit,
    "mark_without_row": plant_mark_without_row,
    "settle_before_send": plant_settle_before_send,
    "forget_leases": plant_forget_leases,
    "dedupe_in_memory_only": plant_dedupe_in_memory_only,
    "synchronous_off": plant_synchronous_off,
}


def load_plugins(names: Sequence[str]) -> None:
    """Let every gateway of this process load these modules as strangers' plugins."""
    assemble: Any = runtime.assemble

    def more(config: Any, http: Any, extra: Any = None, *rest: Any, **named: Any) -> Any:
        return assemble(
            config, http, {**(extra or {}), **{one: importlib.import_module(one) for one in names}}, *rest, **named
        )

    setattr(runtime, "assemble", more)  # noqa: B010 - the type checker sees no function there


def main() -> None:
    """Plant what the environment says, then run the command line."""
    if "HARNESS_PLANT" in os.environ:
        PLANTS[os.environ["HARNESS_PLANT"]]()
    if "HARNESS_PLUGINS" in os.environ:
        load_plugins(os.environ["HARNESS_PLUGINS"].split(","))
    failpoints.from_environment()
    if "HARNESS_CAP_S" in os.environ:
        sender._CAP_S = float(os.environ["HARNESS_CAP_S"])
    cli.main()


if __name__ == "__main__":
    main()
