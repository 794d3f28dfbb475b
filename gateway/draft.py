"""One item of a hit between reading and reply."""

from collections.abc import Sequence

from gateway.merge import provenance
from gateway.outbox import Admission, Memorandum, Unit
from gateway.outcome import FATES, Fate, Outcome


class Draft:
    """
    One item on its way: either decided, or with units to admit, each with the event id and notes of its outcome.

    ``memories`` is what an event without a unit leaves for later ones.
    """

    __slots__ = ("memories", "message", "outcomes", "units")

    def __init__(self, *outcomes: Outcome, message: str = "") -> None:
        self.outcomes = list(outcomes)
        self.units: list[tuple[str, Unit, tuple[str, ...]]] = []
        self.memories: tuple[Memorandum, ...] = ()
        self.message = message


def outcome_of(event_id: str, unit: Unit, notes: tuple[str, ...], admission: Admission) -> Outcome:
    """Return the outcome of an admitted unit."""
    return Outcome(
        fate=admission.fate, event_id=event_id, event_name=unit.event.event_name, destination=unit.lane.destination,
        reason=admission.reason, of=admission.of, unit=admission.unit, notes=notes, is_test=unit.event.test,
        signals=_signals(unit, admission), missed=admission.missed,
    )  # fmt: skip


def _signals(unit: Unit, admission: Admission) -> dict[str, list[str]]:
    """Return where the signals of the event came from, when not all of them from this hit."""
    if admission.event is not None:
        return provenance(admission.event)
    return provenance(unit.event) if unit.event.origins and admission.fate == "accepted" else {}


def best_of(outcomes: Sequence[Outcome]) -> Fate:
    """Return the fate that an event counts under."""
    if len(outcomes) == 1:
        return outcomes[0].fate
    found = {outcome.fate for outcome in outcomes}
    return next((fate for fate in FATES if fate in found), "dropped")
