"""What the store holds, counted on a reading connection beside the writer."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from gateway.outbox import Counts, Lane, LaneCount
from gateway.outbox.schema import connect_reader


def count_lanes(
    path: Path,
    lanes: Mapping[Lane, int],
    waiting: Callable[[Lane], int],
    leased: Callable[[Lane], int],
    dead: Mapping[int, int],
) -> Counts:
    """Count by lane; ``waiting``, ``leased`` and ``dead`` are the counters that the store keeps in memory."""
    found = []
    with closing(connect_reader(path)) as reader:
        for lane, number in lanes.items():
            oldest = reader.execute(
                "SELECT accepted_at FROM unit WHERE lane = ? AND state = 0 ORDER BY id LIMIT 1", (number,)
            ).fetchone()
            twice = reader.execute(
                "SELECT count(*) FROM unit WHERE lane = ? AND state = 1 AND twice = 1", (number,)
            ).fetchone()
            found.append(
                LaneCount(
                    destination=lane.destination,
                    kind=lane.kind,
                    waiting=max(0, waiting(lane)),
                    leased=leased(lane),
                    dead=dead.get(number, 0),
                    maybe_twice=twice[0],
                    oldest_at=oldest[0] if oldest else None,
                )
            )
    return Counts(lanes=tuple(found), file_bytes=path.stat().st_size)
