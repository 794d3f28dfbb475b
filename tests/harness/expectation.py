"""
Compares what was sent with a worked example.

The rules: every key of the example must be there with its type; amounts are texts and compared as numbers; hashes
as sets; products in order. A path in ``optional`` may be missing; ``accept`` lists other values that are right; what
stands in ``must_not`` may not be sent; an id that is no literal is judged by ``event_id_rule``.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_AMOUNTS = frozenset({"value", "item_price", "predicted_ltv"})


class Comparison:
    """One example against the events that were sent."""

    def __init__(self, case: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self._optional: Sequence[str] = case.get("optional", ())
        self._accept: Mapping[str, Sequence[Any]] = case.get("accept", {})
        self._must_not: Any = case.get("must_not", ())
        self._rule: Mapping[str, Any] = case.get("event_id_rule", {})
        self._events: Sequence[Mapping[str, Any]] = case.get("events", ())
        self._request = request
        self.problems: list[str] = []

    def run(self, sent: Sequence[Mapping[str, Any]]) -> list[str]:
        """Compare; returns what is wrong, one line each."""
        if len(sent) != len(self._events):
            return [f"{len(sent)} events were sent instead of {len(self._events)}"]
        for wanted, found in zip(self._events, sent, strict=True):
            self._object("", wanted, found)
            self._forbidden(found)
        return self.problems

    def _object(self, where: str, wanted: Mapping[str, Any], found: Any) -> None:
        if not isinstance(found, Mapping):
            self.problems.append(f"{where}: no object")
            return
        for key, value in wanted.items():
            path = f"{where}.{key}" if where else key
            if key not in found:
                if not self._is_listed(path, self._optional):
                    self.problems.append(f"{path}: missing")
            elif path == "event_id" and self._rule:
                self._id(found[key])
            else:
                self._value(path, value, found[key])

    def _value(self, path: str, wanted: Any, found: Any) -> None:
        if isinstance(wanted, Mapping):
            self._object(path, wanted, found)
        elif isinstance(wanted, list) and wanted and isinstance(wanted[0], Mapping):
            if not isinstance(found, list) or len(found) != len(wanted):
                self.problems.append(f"{path}: another number of entries")
                return
            for one, other in zip(wanted, found, strict=True):
                self._object(f"{path}[]", one, other)
        elif not self._is_same(path, wanted, found) and not self._is_accepted(path, found):
            self.problems.append(f"{path}: {found!r} instead of {wanted!r}")

    def _is_same(self, path: str, wanted: Any, found: Any) -> bool:
        if type(wanted) is not type(found):
            return False
        if path.rpartition(".")[2] in _AMOUNTS:
            return _number(wanted) == _number(found)
        if isinstance(wanted, list) and path.startswith("user_data."):
            return set(wanted) == set(found)
        return bool(wanted == found)

    def _is_accepted(self, path: str, found: Any) -> bool:
        """Say whether it is an alternative: one is a value, or words that hold it."""
        for paths, alternatives in self._accept.items():
            if not self._is_listed(path, re.split(r"[ /]", paths)):
                continue
            for one in alternatives:
                if one == found or (isinstance(one, str) and isinstance(found, str) and found in one.split()):
                    return True
        return False

    def _id(self, found: Any) -> None:
        if not isinstance(found, str) or not found:
            self.problems.append("event_id: no text")
            return
        sources = [str(self._named(path)) for path in self._rule.get("must_derive_from_any", ())]
        if sources and not any(source in found for source in sources):
            self.problems.append(f"event_id: {found} does not come from {sources}")
        headers = {key.lower(): value for key, value in self._request["request"]["headers"].items()}
        for name in self._rule.get("must_not_be", ()):
            if headers.get(name.lower()) == found:
                self.problems.append(f"event_id: it is {name}")

    def _named(self, path: str) -> Any:
        found: Any = self._request
        for key in path.split("."):
            found = found[key]
        return found

    def _forbidden(self, found: Mapping[str, Any]) -> None:
        """``must_not`` is a list of paths, or path → values."""
        rules = self._must_not.items() if isinstance(self._must_not, Mapping) else [(p, None) for p in self._must_not]
        for path, values in rules:
            value: Any = found
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            listed = values if isinstance(values, list) else [values]
            if value is not None and (values is None or value in listed):
                self.problems.append(f"{path}: must not be {value!r}")

    @staticmethod
    def _is_listed(path: str, paths: Sequence[str]) -> bool:
        return any(path == one or path.endswith(f".{one}") for one in paths if one)


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
