"""Steps of an event as pages show them: a title and lines of label and text, masked."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.event import Struct
from gateway.explain import Explanation, Step
from gateway.hit import Hit
from gateway.livestream import shorten
from gateway.operator.veil import veiled

_MOST_LINES, _MOST_TEXT = 80, 300
#: 1 January 2100, Unix seconds.
_LAST = 4_102_444_800
_TITLES = {
    "normalized": "Normalised", "recalled from memory": "Recalled from memory", "received": "Received",
    "normalised": "Normalised", "decided": "Decided", "waits": "Waits", "sent": "Sent", "not sent": "Not sent",
    "answer": "Answer",
}  # fmt: skip
_TIMES = frozenset({"at", "time", "accepted_at", "event_time", "install_time"})

Lines = Sequence[tuple[str, str]]


class Stage(Struct, frozen=True, kw_only=True):
    """One step on a page."""

    title: str
    lines: Lines = ()
    hint: str = ""


def stages_of(steps: Sequence[Step]) -> list[Stage]:
    """Return the steps of one outcome (:func:`gateway.steps.steps_of`)."""
    return [Stage(title=_title(step.name), lines=lines_of(step.detail)) for step in steps]


def explained(hit: Hit, explanation: Explanation) -> list[Stage]:
    """Return the steps of a request; of one with a single event, each step shows what it changed."""
    found = [_received(hit)]
    before: Lines | None = None
    single = _is_single(explanation.steps)
    for step in explanation.steps:
        detail = step.detail[0] if step.name == "normalized" and single else step.detail
        lines = lines_of(detail)
        changed = step.name.startswith(("enriched", "recalled"))
        if changed and single and before is not None and isinstance(detail, Mapping):
            new = [line for line in lines if line not in before]
            gone = [(label, "(taken away)") for label, _ in before if label not in dict(lines)]
            found.append(Stage(title=_title(step.name), lines=[*new, *gone], hint="" if new or gone else "No change."))
        else:
            hint = "Not sent on." if changed and detail is None else ""
            found.append(Stage(title=_title(step.name), lines=lines, hint=hint))
        before = lines
    return found


def _is_single(steps: Sequence[Step]) -> bool:
    first = steps[0].detail if steps else None
    return isinstance(first, list | tuple) and len(first) == 1


def _received(hit: Hit) -> Stage:
    """Tell of the request without its content: names of headers, sizes."""
    lines = [
        ("method", hit.method),
        ("source", hit.source.name),
        ("path after the source", veiled(shorten(hit.tail)) or "-"),
        ("headers", ", ".join(shorten(name, 40) for name in list(hit.headers)[:40]) or "-"),
        ("query", f"{len(hit.query):,} characters" if hit.query else "-"),
        ("body", f"{len(hit.body):,} bytes"),
    ]
    return Stage(title="Received", lines=lines)


def lines_of(detail: Any) -> Lines:
    """Return plain objects as labels and texts, at most 80; what is empty is left out."""
    found: list[tuple[str, str]] = []
    for label, value in _flat(veiled(detail)):
        if len(found) >= _MOST_LINES:
            found.append(("…", "and more"))
            break
        found.append((shorten(label, 80), shorten(value, _MOST_TEXT)))
    return found


def _flat(value: Any, label: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _TIMES and isinstance(item, int | float) and 0 <= item < _LAST:
                yield _below(label, key), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(item))
            else:
                yield from _flat(item, _below(label, str(key)))
    elif isinstance(value, list | tuple):
        if all(not isinstance(item, Mapping | list | tuple) for item in value):
            if value:
                yield label, ", ".join(map(_text, value))
        else:
            for number, item in enumerate(value, 1):
                yield from _flat(item, _below(label, str(number)))
    elif value is not None:
        yield label, _text(value)


def _below(label: str, key: str) -> str:
    return f"{label}.{key}" if label else key


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _title(name: str) -> str:
    return _TITLES.get(name) or shorten(name[:1].upper() + name[1:])


def payload_text(payload: Any) -> str:
    """Return what is sent as indented JSON, masked."""
    return msgspec.json.format(msgspec.json.encode(veiled(payload)), indent=2).decode()
