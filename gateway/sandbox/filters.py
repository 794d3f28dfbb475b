"""Klaviyo's filter language, as far as lists, segments and their profiles need it: ``op(field,value),op(…)``."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

import msgspec

_CALL: Final = re.compile(r"([a-z-]+)\(([a-z_]+),")
_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'')
_BARE: Final = re.compile(r"[^,()\[\]\"']+")


class BadQuery(ValueError):
    """A query parameter is not allowed; ``parameter`` is its name, the text says why."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail)
        self.parameter = parameter


class Term(msgspec.Struct, kw_only=True, frozen=True):
    """One comparison; ``values`` has one text, with ``any`` one or more."""

    operator: str
    field: str
    values: tuple[str, ...]

    @property
    def time(self) -> float:
        """
        The value as Unix seconds.

        Raises:
            BadQuery: It is not a date and time of ISO 8601 with its zone.
        """
        try:
            found = datetime.fromisoformat(self.values[0])
        except ValueError:
            found = None
        if found is None or found.tzinfo is None:
            raise BadQuery("filter", f"The value of {self.field!r} must be an ISO 8601 datetime with a time zone.")
        return found.timestamp()


def parse(text: str, allowed: Mapping[str, Collection[str]]) -> tuple[Term, ...]:
    """
    Return the terms of a filter, all of which must hold.

    Args:
        text: The parameter, decoded.
        allowed: Operators by field.

    Raises:
        BadQuery: It cannot be read, or names a field or operator that is not allowed.
    """
    terms: list[Term] = []
    at = 0
    while at < len(text):
        term, at = _term(text, at)
        if term.operator not in allowed.get(term.field, ()):
            raise BadQuery("filter", f"Filter {term.operator}({term.field}) is not allowed here.")
        terms.append(term)
        if at < len(text) and text[at] != ",":
            raise _unreadable(at)
        at += 1
    if not terms or text.endswith(","):
        raise _unreadable(len(text))
    return tuple(terms)


def _term(text: str, at: int) -> tuple[Term, int]:
    match = _CALL.match(text, at)
    if match is None:
        raise _unreadable(at)
    listed = text.startswith("[", match.end())
    values: list[str] = []
    at = match.end() + listed
    while True:
        value, at = _value(text, at)
        values.append(value)
        if listed and text.startswith(",", at):
            at += 1
            continue
        break
    closing = "])" if listed else ")"
    if not text.startswith(closing, at) or (match[1] == "any" and not listed):
        raise _unreadable(at)
    return Term(operator=match[1], field=match[2], values=tuple(values)), at + len(closing)


def _value(text: str, at: int) -> tuple[str, int]:
    if quoted := _TEXT.match(text, at):
        inner = quoted[1] if quoted[1] is not None else quoted[2]
        return re.sub(r"\\(.)", r"\1", inner), quoted.end()
    if bare := _BARE.match(text, at):
        return bare[0], bare.end()
    raise _unreadable(at)


def _unreadable(at: int) -> BadQuery:
    return BadQuery("filter", f"The filter cannot be read at character {at + 1}.")
