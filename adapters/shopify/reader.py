"""Reading fields and remembering which of them were there but unreadable."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from gateway import coerce

#: More units than this of one line are no count; sums then stay within 64 bits.
_MOST_UNITS = 1_000_000


class Reader:
    """
    Reads optional fields: what cannot be read costs that field and leaves a note, never with the value.

    One reader per event; ``notes`` keeps the order of first occurrence.
    """

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes so far, each once (``value: not_a_number``)."""
        return tuple(self._notes)

    def note(self, field: str, problem: str, given: Any) -> None:
        """Note a problem of a field, unless nothing was given."""
        if given is not None and given not in ("", [], {}) and not (isinstance(given, str) and given.isspace()):
            self._notes[f"{field}: {problem}"] = None

    def decimal(self, value: Any, field: str) -> Decimal | None:
        """Read an amount of money."""
        found = coerce.decimal(value)
        if found is None:
            self.note(field, "not_a_number", value)
        return found

    def money(self, value: Any, field: str) -> Decimal | None:
        """Read the amount of a money object ``{"amount", …}``."""
        return self.decimal(coerce.mapping(value).get("amount"), field)

    def quantity(self, value: Any) -> int | None:
        """Read a count of units; a negative or absurd one is not a count."""
        found = coerce.integer(value)
        if found is None or not 0 <= found <= _MOST_UNITS:
            self.note("items.quantity", "not_a_count", value)
            return None
        return found

    def currency(self, values: Iterable[Any]) -> str | None:
        """Read the first usable currency code."""
        for value in values:
            found = coerce.currency(value)
            if found is not None:
                return found
            self.note("currency", "not_a_code", value)
        return None

    def time(self, values: Iterable[Any]) -> float | None:
        """Read the first usable time, in Unix seconds."""
        for value in values:
            found = coerce.unix_time(value)
            if found is not None:
                return found
            self.note("event_time", "not_a_time", value)
        return None

    def email(self, values: Iterable[Any]) -> tuple[str, ...]:
        """Read the first text that has the form of an address; guests have "" rather than null."""
        for value in values:
            found = coerce.text(value)
            if found is not None and "@" in found:
                return (found,)
            self.note("email", "not_an_email", value)
        return ()
