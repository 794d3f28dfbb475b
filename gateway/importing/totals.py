"""What became of the rows so far."""

from collections.abc import Mapping

import msgspec

from gateway.event import Struct

#: Reasons of ``dropped`` that somebody can mend: an import that met one is not all fine.
MENDABLE = frozenset({"too_old", "no_identity", "unmapped"})
#: Distinct notes that are counted.
_MAX_NOTES = 50


class Totals(Struct, frozen=True, kw_only=True):
    """
    Counts of rows; ``dropped`` and ``rejected`` by reason, ``notes`` how many rows have a remark about a field.

    They belong to the whole import, over all its runs.
    """

    rows: int = 0
    accepted: int = 0
    merged: int = 0
    duplicate: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    notes: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: every row was taken, or left out by its owner's will; 1: some were not."""
        return 1 if self.rejected or self.dropped.keys() & MENDABLE else 0


class Count:
    """Counts rows as they are decided."""

    def __init__(self, begun: Totals | None = None) -> None:
        begun = begun or Totals()
        self._plain = {name: getattr(begun, name) for name in ("accepted", "merged", "duplicate")}
        self._reasons = {"dropped": dict(begun.dropped), "rejected": dict(begun.rejected)}
        self._notes = dict(begun.notes)
        self.rows = begun.rows

    def row(self, fate: str, reason: str | None = None) -> None:
        """Count one row."""
        self.rows += 1
        if fate in self._plain:
            self._plain[fate] += 1
        else:
            by_reason = self._reasons[fate]
            by_reason[reason or "other"] = by_reason.get(reason or "other", 0) + 1

    def remarks(self, notes: Mapping[str, int]) -> None:
        """Count what was said of fields."""
        for note, count in notes.items():
            name = note if note in self._notes or len(self._notes) < _MAX_NOTES else "other notes"
            self._notes[name] = self._notes.get(name, 0) + count

    def totals(self) -> Totals:
        """Return the counts so far."""
        return Totals(
            rows=self.rows,
            **self._plain,
            dropped=dict(self._reasons["dropped"]),
            rejected=dict(self._reasons["rejected"]),
            notes=dict(self._notes),
        )
