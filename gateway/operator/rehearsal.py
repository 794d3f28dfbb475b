"""
What replaying a dead letter would send today, and what is known of the difference to what was refused.

The store keeps events, not the bytes of a call: what was refused is known by the vendor's words alone, and these may
name fields. Everything here is masked.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.event import Struct
from gateway.interfaces import Destination
from gateway.operator.veil import veiled
from gateway.outbox import DeadLetter
from gateway.outbox.census import parts_of

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:(?:\.|\[)[A-Za-z0-9_]+\]?)*")
#: Field names that are everyday words count only where the vendor's words set them apart from a sentence.
_EVERYDAY = frozenset({"id", "type", "value", "test", "language", "state", "country", "data", "name", "brand"})
_MARKED = re.compile(r"[\"'`]([A-Za-z_][A-Za-z0-9_.]*)[\"'`]")
#: Letters of a group that are looked at one by one.
LOOKED_AT = 1_000


class Line(Struct, frozen=True, kw_only=True):
    """One field of a payload: its path, its masked value as JSON, and whether the vendor's words name it."""

    path: str
    value: str
    is_named: bool = False


class Rehearsal(Struct, frozen=True, kw_only=True):
    """
    One letter as it would be sent now.

    ``lines``: today's payload. ``missing``: fields that the vendor named and that today's payload does not have.
    ``problem``: why it would not be sent, with its reason in ``code``.
    """

    letter: DeadLetter
    lines: tuple[Line, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    code: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """Return the fields of today's payload that the vendor named."""
        return tuple(line.path for line in self.lines if line.is_named)


def rehearse(letter: DeadLetter, destination: Destination | None, now: float) -> Rehearsal:
    """Encode a letter by today's code; ``destination`` None: it is not configured any more."""
    if destination is None:
        problem = f"[destinations.{letter.destination}] is not configured: replayed, it waits until it is again."
        return Rehearsal(letter=letter, problem=problem, code="no_destination")
    try:
        refusal = destination.refuse(letter.event, now)
        payload = destination.encode(letter.event)
        plain = msgspec.to_builtins(payload)
    except Exception as error:  # noqa: BLE001 - a plugin's encoding may fail in any way; the page goes on
        problem = f"The plugin of [destinations.{letter.destination}] fails on this event ({type(error).__name__})."
        return Rehearsal(letter=letter, problem=problem, code="plugin_failed")
    words = parts_of(letter.reason)[1]
    known = set(_fields_of(type(payload))).union(*(_parts(path) for path, _ in _flat(plain)))
    named = _named(words, known)
    lines = tuple(
        Line(path=path, value=msgspec.json.encode(value).decode(), is_named=_is_named(path, named))
        for path, value in _flat(veiled(plain))
    )
    there = {part for line in lines for part in _parts(line.path)}
    problem = "" if refusal is None else f"It would not be sent: {refusal}."
    return Rehearsal(
        letter=letter, lines=lines, missing=tuple(sorted(named - there)), problem=problem, code=refusal or ""
    )


def verdicts(letters: Iterable[DeadLetter], destinations: Mapping[str, Destination], now: float) -> Counter[str]:
    """Count what would become of letters: "" for those that would be sent, else the code of what is in the way."""
    return Counter(rehearse(one, destinations.get(one.destination), now).code for one in letters)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every leaf, in order; an empty object or list is one."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and value:
        for number, item in enumerate(value):
            yield from _flat(item, f"{path}[{number}]")
    else:
        yield path, value


def _parts(path: str) -> set[str]:
    return {part for part in re.split(r"[.\[\]]+", path) if part and not part.isdigit()}


def _is_named(path: str, named: set[str]) -> bool:
    return not named.isdisjoint(_parts(path))


def _named(words: str, known: set[str]) -> set[str]:
    """Return the field names that are among a vendor's words: of dotted paths the last part that is one."""
    found = set()
    apart = {part for text in _MARKED.findall(words) for part in _parts(text)}
    for text in _WORD.findall(words):
        parts = [part for part in re.split(r"[.\[\]]+", text) if part in known]
        if parts and (parts[-1] not in _EVERYDAY or len(parts) > 1 or parts[-1] in apart):
            found.add(parts[-1])
    return found


def _fields_of(kind: Any, depth: int = 4) -> Iterator[str]:
    """Yield the names of a Struct's fields and of those inside it."""
    if depth and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield field.encode_name
            for inner in [field.type, *_arguments(field.type)]:
                yield from _fields_of(inner, depth - 1)


def _arguments(kind: Any) -> Iterator[Any]:
    for one in getattr(kind, "__args__", ()):
        yield one
        yield from _arguments(one)
