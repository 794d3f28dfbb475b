"""What all identifiers share: cleaning, placeholders, SHA-256."""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Concatenate, Final, ParamSpec

_P = ParamSpec("_P")

MAX_TEXT: Final = 1000
"""Characters. No identifier is longer; a longer text is refused whole, never cut."""

_NOTHING: Final = ("null", "none", "nil", "undefined", "redacted", "not set", "not provided", "not available")
_PLACEHOLDERS: Final = frozenset(
    (
        *("nan", "unknown", "n/a", "#n/a", "(empty)"),
        *_NOTHING,
        *(f"({word})" for word in _NOTHING),
        *(f"{word} {word}" for word in _NOTHING),  # a first and a last name put together
    )
)
_TEMPLATE: Final = re.compile(r"\{\{|\}\}|%%|\$\{|\*\*\*|^[\[{][^\n]*[\]}]$|^<[^@]*>$|^%[A-Za-z_]+%$|^__[A-Za-z_]+__$")
_NOT_PLAIN: Final = re.compile(r"[{}%$*<>\[\]]|^_")
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
_JOINERS: Final = "\u200c\u200d"  # they mean something inside a word only
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")


class Unusable(Exception):
    """A text that identifies nobody; ``reason`` is a short snake_case text without any of the input."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@lru_cache(
    64
)  # the same value is hashed for the destination and for erasure, one after the other; raw texts must not pile up
def sha256(text: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes as 64 lower-case hex digits; the text is hashed as it is."""
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        raise Unusable("undecodable") from None


def hashed(text: str) -> str | None:
    """Return an already hashed value (64 hex digits in any case) in lower case, or None if it is not one."""
    if len(text) < 64:
        return None
    text = text.strip()
    return text.lower() if _HASH.fullmatch(text) else None


_HASHED_NOTHING: Final = frozenset(
    sha256(form)
    for word in (
        *_PLACEHOLDERS,
        "",
        " ",
        "0",
        "NaN",
        "[object Object]",
        "00000000-0000-0000-0000-000000000000",
    )
    for form in (word, word.upper(), word.capitalize())
)


def digest(normalise: Callable[Concatenate[str, _P], str], text: str, *args: _P.args, **kwargs: _P.kwargs) -> str:
    """Return the 64 hex digits to send for one value: ``digest(phone, "020 7946 0018", "GB")``.

    A value that is hashed already passes in lower case, unless it is the hash of nothing ("", "null", an
    all-zero id); any other is normalised and hashed. Raises `Unusable`.
    """
    ready = hashed(text) if len(text) >= 64 else None
    if ready is None:
        return sha256(normalise(text, *args, **kwargs))
    if ready in _HASHED_NOTHING:
        raise Unusable("placeholder")
    return ready


def trimmed(text: str, limit: int = MAX_TEXT) -> str:
    """Return the text in NFC without edges of white space and without control and invisible characters.

    Reasons: "too_long" (over ``limit`` characters), "undecodable" (a lone surrogate, or U+FFFD), "empty".
    """
    if len(text) > limit:
        raise Unusable("too_long")
    if text.isascii():
        text = (text if text.isprintable() else _INVISIBLE.sub("", text)).strip()
    else:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable("undecodable") from None
        if "\ufffd" in text:
            raise Unusable("undecodable")
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()
        while text and (text[0] in _JOINERS or text[-1] in _JOINERS):
            text = text.strip(_JOINERS).strip()
    if not text:
        raise Unusable("empty")
    return text


def is_placeholder(text: str) -> bool:
    """Tell whether the text stands for "no value": a word such as "null", a template variable, a mask."""
    return text.lower() in _PLACEHOLDERS or bool(_NOT_PLAIN.search(text) and _TEMPLATE.search(text))


def cleaned(text: str) -> str:
    """Return the text trimmed; reasons are those of `trimmed`, and "placeholder"."""
    text = trimmed(text)
    if is_placeholder(text):
        raise Unusable("placeholder")
    return text


def lowered(text: str) -> str:
    """Return the text `cleaned` and in lower case, still in NFC."""
    if text.isascii() and text.isprintable() and len(text) <= MAX_TEXT:  # nearly all: one pass, no calls
        lower = text.strip().lower()
        if lower and lower not in _PLACEHOLDERS and not _NOT_PLAIN.search(lower):
            return lower
    text = cleaned(text).lower()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def western(text: str) -> str:
    """Return the text with full-width forms and the digits of any script as ASCII."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
