"""
The steps of one outcome, in the form of ``explain``: received, normalised, enriched, joined, sent, answered.

They are told from what was kept (:mod:`gateway.recent`): identifiers are hashes of which six digits are shown, and
addresses are shortened.
"""

from typing import Any

import msgspec

from gateway.event import SealedEvent
from gateway.explain import Step, mask
from gateway.merge import origin_of, signals
from gateway.recent import Entry

#: What the sealed event tells of itself, not of the conversion.
_OWN = frozenset({"event_id", "event_name", "event_time", "accepted_at", "source", "site", "born", "origins", "notes"})


def steps_of(entry: Entry) -> tuple[Step, ...]:
    """Return what happened to the event, in order; nothing in it identifies a person."""
    told: list[tuple[str, dict[str, Any]]] = [("received", _received(entry))]
    event = entry.event
    if event is not None:
        told.append(("normalised", _normalised(entry, event)))
        told += [(f"enriched by {by}", {"signals": names}) for by, names in _given(event, "memory")]
    told += [(f"joined with {_named(entry)}", _joined(entry))] if entry.of is not None else []
    if event is not None and entry.of is None:
        others = _given(event, "browser", "server")
        told += [(f"joined with a copy of {by}", {"signals": names}) for by, names in others]
    told.append(("decided", {"fate": entry.fate, "reason": entry.reason, "notes": entry.notes or None}))
    if entry.unit is not None and entry.fate in ("accepted", "merged"):
        told.append(_sent(entry))
    if entry.ended_at is not None:
        told.append(("answer", _answer(entry)))
    return tuple(
        Step(name=name, detail=mask({key: value for key, value in detail.items() if value is not None}))
        for name, detail in told
    )


def event_of(event: SealedEvent) -> dict[str, Any]:
    """Return a sealed event as it is shown: hashes and addresses shortened, only what it has."""
    shown: dict[str, Any] = msgspec.to_builtins(event)
    shown["click_ids"] = {name: f"{value[:6]}…" for name, value in event.click_ids.items()}
    masked: dict[str, Any] = mask({key: value for key, value in shown.items() if value not in ({}, [], (), None, "")})
    return masked


def _received(entry: Entry) -> dict[str, Any]:
    return {
        "at": entry.at, "source": entry.source, "destination": entry.destination, "status": entry.status,
        "test": entry.is_test or None,
    }  # fmt: skip


def _normalised(entry: Entry, event: SealedEvent) -> dict[str, Any]:
    content = {key: value for key, value in event_of(event).items() if key not in _OWN}
    times = {"event_time": event.event_time, "site": event.site, "side": event.born}
    return {"event_name": entry.event_name, "event_id": entry.event_id, **times, **content}


def _given(event: SealedEvent, *sides: str) -> list[tuple[str, list[str]]]:
    """Return who else gave signals, each with their names."""
    found: dict[str, list[str]] = {}
    own = f"{event.born}:{event.source}"
    for signal in sorted({*signals(event), *event.origins}):
        by = origin_of(event, signal)
        if by != own and by.partition(":")[0] in sides:
            found.setdefault(by, []).append(signal)
    return sorted(found.items())


def _named(entry: Entry) -> str:
    return "an event that waits" if entry.fate == "merged" else "an event that is known"


def _joined(entry: Entry) -> dict[str, Any]:
    return {"of": entry.of, "signals": entry.signals or None, "missed": entry.missed or None}


def _sent(entry: Entry) -> tuple[str, dict[str, Any]]:
    if entry.ended_at is None:
        return "waits", {"destination": entry.destination, "unit": entry.unit}
    if entry.end in ("delivered", "dead"):
        return "sent", {"destination": entry.destination, "unit": entry.unit}
    return "not sent", {"destination": entry.destination, "unit": entry.unit}


def _answer(entry: Entry) -> dict[str, Any]:
    return {
        "end": entry.end, "reason": entry.end_reason, "at": entry.ended_at, "warning": entry.warning,
        "may have arrived twice": entry.maybe_twice or None,
    }  # fmt: skip
