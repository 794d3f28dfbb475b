"""Admission on the writer's thread: the requests of one commit decided, counted and written, or decided only."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from gateway.outbox import Admission, Join, Lane, Unit
from gateway.outbox.admission import Batch
from gateway.outbox.gathering import Admitted, Request
from gateway.outbox.holdings import Holdings
from gateway.outbox.leases import After, Ledger
from gateway.outbox.memories import Memories
from gateway.outbox.rollups import Rollups
from gateway.steady import Steady


class Deciding:
    """
    Decides batches; its parts are the outbox's own.

    Args:
        remembered: Called after a commit with what it remembers.
    """

    def __init__(
        self, connection: sqlite3.Connection, ledger: Ledger, holdings: Holdings, memories: Memories, rollups: Rollups,
        erasures: Mapping[bytes, float], steady: Steady, remembered: Callable[[dict[bytes, int]], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._ledger = ledger
        self._holdings = holdings
        self._memories = memories
        self._rollups = rollups
        self._erasures = erasures
        self._steady = steady
        self._remembered = remembered

    def admit(self, requests: Sequence[Request]) -> tuple[Admitted, After]:
        """Decide and write the requests of one commit."""
        batch, lanes = self._batch([units for units, _, _ in requests])
        result = []
        for units, join, memories in requests:
            batch.remember(memories)
            result.append([batch.admit(unit, join) for unit in units])
        batch.flush()
        counted = self._rollups.write(batch.door.cells)

        def after() -> None:
            counted()
            self._holdings.lanes = lanes
            self._holdings.next_unit = batch.next_unit
            if batch.remembered:
                self._remembered(batch.remembered)
            self._ledger.doomed |= batch.doomed
            self._ledger.sent.update(batch.door.tagged)
            self._holdings.add(batch.waiting, batch.dead)

        return result, after

    def rehearse(self, units: Sequence[Unit], join: Join | None) -> tuple[list[Admission], None]:
        """Decide, and take everything back."""
        self._connection.execute("SAVEPOINT rehearsal")
        try:
            batch, _ = self._batch([units])
            return [batch.admit(unit, join) for unit in units], None
        finally:
            self._connection.execute("ROLLBACK TO rehearsal")
            self._connection.execute("RELEASE rehearsal")

    def _batch(self, requests: Sequence[Sequence[Unit]]) -> tuple[Batch, dict[Lane, int]]:
        holdings, ledger = self._holdings, self._ledger
        lanes = holdings.with_lanes(self._connection, {unit.lane for units in requests for unit in units})
        batch = Batch(
            self._connection, lanes, holdings.next_unit, self._steady.now(), ledger.units, self._erasures, ledger.sent,
            self._memories,
        )  # fmt: skip
        batch.load(requests)
        return batch, lanes
