"""Reading the fields of one JSON object, and noting which of them could not be read."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway import Event, coerce

Value = TypeVar("Value")

#: The parts of an event that says nothing: sharing them keeps them out of what is encoded.
SILENT = Event(name="")
#: A hostile payload must not fill the log with notes.
_MAX_NOTES = 40


class Reader:
    """
    Reads one object; every complaint goes to ``notes``, under our own field name and without any value.

    Args:
        values: The object.
        notes: Where complaints are collected, shared by the readers of one event.
        prefix: What stands before a field's name in a note (``consent.``).
    """

    __slots__ = ("notes", "prefix", "values")

    def __init__(self, values: Mapping[str, Any], notes: list[str], prefix: str = "") -> None:
        self.values = values
        self.notes = notes
        self.prefix = prefix

    def read(
        self,
        name: str,
        convert: Callable[[Any], Value | None],
        alias: str = "",
        complaint: str = "unreadable",
    ) -> Value | None:
        """Return the field, or else its alias, as ``convert`` reads it; note one that cannot be read."""
        for key in (name, alias) if alias else (name,):
            given = self.values.get(key)
            if given is None:
                continue
            found = convert(given)
            if found is not None:
                return found
            if not is_blank(given):
                self.note(name, complaint)
        return None

    def text(self, name: str, alias: str = "") -> str | None:
        """Return the field as text."""
        return self.read(name, coerce.text, alias)

    def flag(self, name: str) -> bool | None:
        """Return the field as a truth value, None when it is silent."""
        return self.read(name, coerce.boolean, complaint="not_a_boolean")

    def texts(self, name: str, alias: str) -> tuple[str, ...]:
        """Return all texts of a field and its alias, each one value or a list."""
        found: tuple[str, ...] = ()
        for key in (name, alias):
            given = self.values.get(key) if key else None
            if is_blank(given):
                continue
            if isinstance(given, str) and not found:
                one = coerce.text(given)
                if one is not None:
                    found = (one,)
                    continue
            listed = given if isinstance(given, list) else [given]
            readable = coerce.texts(listed)
            if len(readable) < sum(not is_blank(item) for item in listed):
                self.note(name, "unreadable")
            found += tuple(item for item in readable if item not in found)
        return found

    def object(self, name: str) -> "Reader | None":
        """Return a reader of a nested object, None when it is absent or no object."""
        given = self.values.get(name)
        if given is None or is_blank(given):
            return None
        if not isinstance(given, dict):
            self.note(name, "not_an_object")
            return None
        return Reader(given, self.notes, f"{self.prefix}{name}.")

    def note(self, name: str, complaint: str) -> None:
        """Note a complaint about a field, each only once."""
        line = f"{self.prefix}{name}: {complaint}"
        if len(self.notes) < _MAX_NOTES and line not in self.notes:
            self.notes.append(line)


def is_blank(value: Any) -> bool:
    """Whether a field says nothing: absent, null, white space, an empty list or object."""
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())
