"""
What counting adds to an event, piece by piece: at the door, in the ring of outcomes, in the commit, at the end.

A gateway with and without it differs by less than two runs of the same gateway do, so the pieces are measured alone.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machine import MEASURED, folder, pinned
from gateway.event import SealedEvent
from gateway.history import Cell, delivered, ends, hit
from gateway.merge import signals
from gateway.outbox import Admission, Lane, Mark, Unit, schema
from gateway.outbox.door import Door
from gateway.outbox.rollups import Rollups
from gateway.outcome import Outcome, Settled
from gateway.recent import Recent
from gateway.steady import Steady

_ROUNDS, _TRIES = 10, 60
_COMMIT = 64
_LANE = Lane(destination="pinterest", kind="live")


def _best(piece: Callable[[], object], tries: int = _TRIES) -> float:
    """Return µs of one run: the least, what other programs take is never negative."""
    least = 1e9
    for _ in range(tries):
        started = time.perf_counter()
        piece()
        least = min(least, time.perf_counter() - started)
    return least * 1e6


class Pieces:
    """A commit's worth of events, and what is done for them."""

    def __init__(self, place: Path) -> None:
        self._units = [
            Unit(
                lane=_LANE,
                event=SealedEvent(
                    event_id=f"e{number}", event_name="checkout", event_time=1, accepted_at=1.0, source="api",
                    site="shop", born="server", user={"em": ("0" * 64,), "ph": ("1" * 64,)},
                    source_url="https://shop.example/",
                ),
                marks=(Mark(digest=b"0" * 12, lifetime_s=1),),
            )
            for number in range(_COMMIT)
        ]  # fmt: skip
        self._admissions = [Admission(fate="accepted", unit=format(number, "x")) for number in range(_COMMIT)]
        self._outcomes = [
            Outcome(fate="accepted", event_id=f"e{number}", event_name="checkout", unit=format(number, "x"))
            for number in range(_COMMIT)
        ]
        self._settled = [
            Settled(
                unit=format(number, "x"), destination="pinterest", event_id=f"e{number}", event_name="checkout",
                source="api", end="delivered",
            )
            for number in range(_COMMIT)
        ]  # fmt: skip
        self._carried = [(unit.event, signals(unit.event)) for unit in self._units]
        self._recent = Recent()
        self._connection = schema.connect(place / "counting.db")
        self._rollups = Rollups(self._connection, place / "counting.db", time.time, Steady(), 1e9)
        self._cells = {Cell("api", "pinterest", "checkout", "accepted"): _COMMIT}
        self._rollups.write(self._cells)()
        for _ in range(12_000 // _COMMIT):
            self.ring()

    def door(self) -> None:
        """Count fates."""
        door = Door({})
        for unit, admission in zip(self._units, self._admissions, strict=True):
            door.decided(unit, admission)

    def ring(self) -> None:
        """Keep outcomes, and count answers."""
        for unit, outcome in zip(self._units, self._outcomes, strict=True):
            self._recent.add("api", outcome, unit.event)

    def answers(self) -> None:
        """Count answers to hits."""
        for _ in range(_COMMIT):
            self._rollups.count({hit("api", 200): 1})

    def end(self) -> None:
        """Count ends and what was carried, and let the ring know."""
        cells: dict[Cell, int] = {}
        ends(cells, self._settled)
        delivered(cells, "pinterest", self._carried)
        for one in self._settled:
            self._recent.settled(one, 1.0)

    def commit(self) -> None:
        """Write counts."""
        self._connection.execute("BEGIN")
        self._rollups.write(self._cells)()
        self._connection.execute("ROLLBACK")

    def empty(self) -> None:
        """Write nothing."""
        self._connection.execute("BEGIN")
        self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Release the store."""
        self._connection.close()


def run(rounds: int = _ROUNDS) -> Iterator[Figure]:
    """Measure every piece; a commit of 64 events shares its part."""
    each, alone = [], []
    with folder() as place, pinned(MEASURED):
        pieces = Pieces(place)
        for _ in range(rounds):
            many = sum(map(_best, (pieces.door, pieces.ring, pieces.answers, pieces.end)))
            alone.append(_best(pieces.commit) - _best(pieces.empty))
            each.append((many + 2 * alone[-1]) / _COMMIT)
        pieces.close()
    yield Figure(
        name="counting: an event from its hit to its end", values=each, unit=" µs", target=5, at_most=True,
        reference=f"{_COMMIT} in a commit",
    )  # fmt: skip
    yield Figure(name="counting: a commit's part", values=alone, unit=" µs", reference="one kind of event")


if __name__ == "__main__":
    for figure in run():
        print(figure, flush=True)
