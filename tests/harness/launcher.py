"""
Runs the command line with something changed from outside; the product has no switch for any of it.

``HARNESS_PLANT=ack_before_commit`` plants the fault that a kill test must find: hits are answered before they are
written. ``HARNESS_CAP_S`` shortens the longest back-off, so that an outage can be a short one.
"""

import asyncio
import os
from collections.abc import Sequence

from gateway import cli, sender
from gateway.outbox import Admission, Join, Memorandum, Unit
from gateway.outbox.sqlite import SqliteOutbox

#: How long the planted fault leaves answered hits unwritten.
DELAY_S = 0.2


def plant_ack_before_commit() -> None:
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

    SqliteOutbox.admit = admit  # type: ignore[method-assign]


if __name__ == "__main__":
    if os.environ.get("HARNESS_PLANT") == "ack_before_commit":
        plant_ack_before_commit()
    if "HARNESS_CAP_S" in os.environ:
        sender._CAP_S = float(os.environ["HARNESS_CAP_S"])
    cli.main()
