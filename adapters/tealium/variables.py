"""One look at the variables of an event, whichever of Tealium's envelopes it came in."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway import coerce

Value = TypeVar("Value")
_PARTS = ("udo", "dom", "firstparty_tealium_cookies", "js", "meta")


class Variables:
    """
    The variables of one event.

    The webhook nests them (``data.udo``, ``data.dom``, ``data.firstparty_tealium_cookies``); the HTTP API, utag and the
    mobile libraries send them flat, with dotted names (``dom.url``, ``cp._epik``, ``qp.epik``).

    Args:
        body: The JSON object of the event.
    """

    __slots__ = ("cookies", "dom", "envelope", "notes", "udo")

    def __init__(self, body: Mapping[str, Any]) -> None:
        data = coerce.mapping(body.get("data"))
        nested = any(part in data for part in _PARTS)
        self.envelope = body
        self.udo = coerce.mapping(data.get("udo")) if nested else body
        self.dom = coerce.mapping(data.get("dom"))
        self.cookies = coerce.mapping(data.get("firstparty_tealium_cookies"))
        self.notes: list[str] = []

    @property
    def is_nested(self) -> bool:
        """Whether this is the webhook's envelope."""
        return self.udo is not self.envelope

    def text(self, *names: str) -> str | None:
        """Return the first variable of these that has a text."""
        udo = self.udo
        for name in names:
            if name in udo:
                found = coerce.text(scalar(udo[name]))
                if found is not None:
                    return found
        return None

    def texts(self, *names: str) -> tuple[str, ...]:
        """Return all texts of the first variable of these that has any."""
        for name in names:
            if name in self.udo:
                found = coerce.texts(self.udo[name])
                if found:
                    return found
        return ()

    def read(self, convert: Callable[[Any], Value | None], complaint: str, *names: str) -> Value | None:
        """Return the first variable of these that ``convert`` can read; note the ones it cannot."""
        for name in names:
            given = self.udo.get(name)
            if given is None:
                continue
            given = scalar(given)
            found = convert(given)
            if found is not None:
                return found
            if not is_blank(given):
                self.note(f"{name}: {complaint}")
        return None

    def flag(self, *names: str) -> bool | None:
        """Return the first truth value; Tealium writes ``"True"`` and ``"true"`` as well as booleans."""
        return self.read(coerce.boolean, "not_a_boolean", *names)

    def of_dom(self, name: str) -> Any:
        """Return a property of the page's document."""
        return self.dom[name] if name in self.dom else self.udo.get(f"dom.{name}")

    def cookie(self, name: str) -> str | None:
        """Return a first-party cookie that Tealium read from the page."""
        return coerce.text(self.cookies.get(name)) or coerce.text(self.udo.get(f"cp.{name}"))

    def outer(self, *names: str) -> Any:
        """Return the first of these properties of the envelope that is not blank; a flat event is its own envelope."""
        for name in names:
            found = self.envelope.get(name)
            if not is_blank(found):
                return found
        return None

    def note(self, line: str) -> None:
        """Note a field that was dropped, once."""
        if line not in self.notes:
            self.notes.append(line)


def scalar(value: Any) -> Any:
    """Return the value, or the first element of a list: utag keeps single values in arrays too."""
    if isinstance(value, list):
        return next((item for item in value if not is_blank(item)), None)
    return value


def is_blank(value: Any) -> bool:
    """Whether a variable says nothing: the e-commerce extension fills its own with ``""`` and ``[]``."""
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())
