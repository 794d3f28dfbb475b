"""Reading facts that may stand under several names, in several places."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

#: What tag managers write where a variable has no value.
_SILENCE = frozenset({"", "undefined", "null", "none", "nan", "(not set)", "[object object]"})


class Fact(NamedTuple):
    """
    One fact of an event.

    ``convert`` gives None (or an empty tuple) for what it cannot read, ``note`` is then added to the event's notes.
    ``names`` are its names in each place of its table, the best first; None as a note: nobody needs to know.
    """

    convert: Callable[[Any], Any]
    note: str | None
    names: tuple[tuple[str, ...], ...]


class Table:
    """Facts by their field; reading costs by what a payload holds, not by what it might hold."""

    def __init__(self, facts: Mapping[str, Fact]) -> None:
        self._facts = facts
        places = max(len(fact.names) for fact in facts.values())
        self._indexes: list[dict[str, tuple[str, int]]] = [{} for _ in range(places)]
        for field, fact in facts.items():
            for place, names in enumerate(fact.names):
                for rank, name in enumerate(names):
                    self._indexes[place][name] = (field, place * 100 + rank)

    @property
    def names(self) -> frozenset[str]:
        """Every name that the table knows, in any place."""
        return frozenset(name for index in self._indexes for name in index)

    def read(self, notes: list[str], *places: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the places tell, each from the best name that can be read."""
        ranked: dict[str, list[tuple[int, Any]]] = {}
        for place, index in zip(places, self._indexes, strict=True):
            for name, value in place.items():
                if name in index and value is not None:
                    field, rank = index[name]
                    ranked.setdefault(field, []).append((rank, value))
        found: dict[str, Any] = {}
        for field, candidates in ranked.items():
            if len(candidates) > 1:
                candidates.sort(key=_rank)
            fact = self._facts[field]
            read = first_of(notes, fact.note, fact.convert, [value for _, value in candidates])
            if read is not None:
                found[field] = read
        return found


def _rank(candidate: tuple[int, Any]) -> int:
    return candidate[0]


def first_of(notes: list[str], note: str | None, convert: Callable[[Any], T | None], values: Sequence[Any]) -> T | None:
    """
    Return the first value that ``convert`` can read, None when there is none.

    When something was said and none of it could be read, ``note`` is added to ``notes``.
    """
    unread = False
    for value in values:
        if value is None:
            continue
        found = convert(value)
        if found is not None and found != ():
            return found
        unread = unread or _says(value)
    if unread and note is not None:
        notes.append(note)
    return None


def _says(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in _SILENCE
    if isinstance(value, list):
        return any(item is not None and _says(item) for item in value)
    return bool(value != {})


def object_of(value: Any) -> dict[str, Any]:
    """Return the object, or the first object of a list; an empty one for anything else."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), None)
    return value if isinstance(value, dict) else {}
