"""What senders ask of the store: units that are due, and what became of them."""

import json
import sqlite3
from collections.abc import Sequence

from gateway.history import Cell, delivered, ends
from gateway.outbox import Claimed, Lane, Lease, Settlement
from gateway.outbox.holdings import Holdings
from gateway.outbox.leases import After, Ledger
from gateway.outbox.rollups import Rollups
from gateway.outbox.writer import Writer
from gateway.outcome import Settled
from gateway.steady import Steady

_READ = 192
#: A sender that does not settle in this time has lost its units; longer than any call may take.
LEASE_S = 180.0


class Claims:
    """Leases units to senders, on the writer's thread."""

    def __init__(
        self, connection: sqlite3.Connection, writer: Writer, ledger: Ledger, holdings: Holdings, steady: Steady,
        rollups: Rollups,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._writer = writer
        self._ledger = ledger
        self._holdings = holdings
        self._steady = steady
        self._rollups = rollups

    async def claim(self, lane: Lane, limit: int, now: float) -> Lease | None:
        """Lease due units, after giving up leases that were lost."""
        number = self._holdings.lanes.get(lane)
        overdue = self._ledger.overdue(now)
        if overdue:
            await self._writer.run(lambda: self._ledger.give_up(overdue))
        if number is None or self.waiting(lane) <= 0:
            return None
        claim = await self._writer.run(lambda: self._ledger.claim(lane, number, limit, now, LEASE_S))
        if claim is None:
            return None
        units: list[Claimed] = []
        for start in range(0, len(claim.units), _READ):
            # in slices: hits that wait for a commit come in between
            part = claim.units[start : start + _READ]
            units += await self._writer.run(lambda part=part: (self._ledger.read(part), None))  # type: ignore[misc]
        return Lease(token=claim.token, lane=lane, units=tuple(units), deadline=claim.deadline)

    async def settle(self, lease: Lease, settlements: Sequence[Settlement]) -> list[Settled]:
        """End or put back the units of a lease."""
        number = self._holdings.lanes[lease.lane]

        def job() -> tuple[list[Settled], After]:
            ended, release = self._ledger.settle(lease, settlements, self._steady.guarded())
            cells: dict[Cell, int] = {}
            ends(cells, ended.settled)
            delivered(cells, lease.lane.destination, ((event, sent.signals) for event, sent in ended.delivered))
            counted = self._rollups.write(cells)

            def after() -> None:
                release()
                counted()
                self._holdings.add({number: ended.waiting}, {number: ended.dead})

            return list(ended.settled), after

        return await self._writer.run(job)

    def waiting(self, lane: Lane) -> int:
        """Return how many units wait and are not leased."""
        number = self._holdings.lanes.get(lane)
        return 0 if number is None else self._holdings.waiting.get(number, 0) - self._ledger.leased(lane)

    async def next_due(self, lane: Lane) -> float | None:
        """Return the earliest due time of the lane's waiting units."""
        number = self._holdings.lanes.get(lane)
        if number is None:
            return None
        held = json.dumps(list(self._ledger.units))

        def job() -> tuple[float | None, None]:
            row = self._connection.execute(
                "SELECT min(due) FROM unit WHERE state = 0 AND lane = ? AND id NOT IN (SELECT value FROM json_each(?))",
                (number, held),
            ).fetchone()
            return row[0], None

        return await self._writer.run(job)
