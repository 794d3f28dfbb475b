"""
Reading values that sources send in any form: numbers as text, booleans as "True", times in seconds or milliseconds.

Every function returns None for what cannot be read: a bad optional field costs that field, never the event.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

#: Texts longer than this drop the field (URLs have their own bound).
MAX_TEXT = 1_000
MAX_URL = 8_192
#: No price has more digits, and a longer exponent would make a Decimal expensive to print.
_MAX_NUMBER = 30
_TRUE = frozenset({"true", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "0", "no", "n", "off"})
_EMPTY = frozenset({"", "null", "undefined", "none", "nan", "(not set)", "[object object]"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: 1 January 2100: a number above it is not in seconds.
_LAST_SECOND = 4_102_444_800
_MONEY = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?\Z", re.ASCII)
_TIMESTAMP = re.compile(r"\d{1,20}(?:\.\d{0,9})?\Z", re.ASCII)


def text(value: Any, limit: int = MAX_TEXT) -> str | None:
    """Return trimmed text of a text or number; None when empty, a placeholder, over-long or undecodable."""
    if isinstance(value, str):
        result = value.strip()
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    else:
        result = _number_text(value)
    if not result or len(result) > limit or (len(result) < 16 and result.lower() in _EMPTY):
        return None
    if not result.isascii():
        try:
            result.encode()
        except UnicodeEncodeError:
            return None
    if not result.isprintable() and _CONTROL.search(result):
        return None
    return result


def _number_text(value: int | float | Decimal) -> str:
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 256 else ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
    return str(value)


def texts(value: Any, limit: int = MAX_TEXT) -> tuple[str, ...]:
    """Return the readable texts of one value or of a list of values, at most 20."""
    if isinstance(value, list | tuple):
        found = (text(item, limit) for item in value[:20])
        return tuple(item for item in found if item is not None)
    one = text(value, limit)
    return () if one is None else (one,)


def url(value: Any) -> str | None:
    """Return an http(s) URL, None for anything else."""
    found = text(value, MAX_URL)
    if found is None or not found[:8].lower().startswith(("http://", "https://")):
        return None
    return found


def decimal(value: Any) -> Decimal | None:
    """Return a finite number; text may carry white space and thousands separators ("1,234.50"). Zero is a number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        number = value.strip()
        if "," in number:
            number = _without_separators(number)
        if len(number) > _MAX_NUMBER or not _MONEY.match(number):
            return None
    elif isinstance(value, int | float | Decimal):
        number = str(value) if not isinstance(value, int) or value.bit_length() < 100 else ""
    else:
        return None
    try:
        result = Decimal(number)
    except InvalidOperation:
        return None
    return result if result.is_finite() and abs(result) < 10**15 else None


def _without_separators(number: str) -> str:
    """Tell "1,234.50" and "1,234" (thousands) from "12,5" and "1.234,50" (decimal comma)."""
    head, _, tail = number.rpartition(",")
    if "." in tail or (len(tail) == 3 and "." not in head):
        return number.replace(",", "")
    return head.replace(".", "").replace(",", "") + "." + tail


def integer(value: Any) -> int | None:
    """Return a whole number of up to 64 bits ("5", 5, 5.0); None for 5.5."""
    number = decimal(value)
    if number is None or number != number.to_integral_value() or abs(number) >= 2**63:
        return None
    return int(number)


def boolean(value: Any) -> bool | None:
    """Return a truth value of true/false, 1/0, "True", "yes"; None when it says neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    return None


def unix_time(value: Any) -> float | None:
    """
    Return Unix seconds of a number (seconds, ms, µs or ns by magnitude), such a number as text, or an ISO 8601 text.

    A text without an offset is UTC. None for what is not after 1980.
    """
    number: Decimal | None
    if isinstance(value, str):
        value = value.strip()
        if not _TIMESTAMP.match(value):
            return _iso_time(value)
        number = Decimal(value)
    else:
        number = decimal(value) if not isinstance(value, int) or isinstance(value, bool) else Decimal(value)
    if number is None:
        return None
    seconds = number
    for _ in range(3):
        if seconds <= _LAST_SECOND:
            break
        seconds /= 1000
    return float(seconds) if 315_532_800 <= seconds <= _LAST_SECOND else None


def _iso_time(value: str) -> float | None:
    if not 10 <= len(value) <= 40:
        return None
    # fromisoformat reads at most six digits of a fraction; Shopify sends nine
    value = re.sub(r"(\.\d{6})\d+", r"\1", value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        seconds = moment.timestamp()
    except (OverflowError, ValueError):
        return None
    return seconds if 315_532_800 <= seconds <= _LAST_SECOND else None


def currency(value: Any) -> str | None:
    """Return a three-letter code in upper case."""
    code = text(value, 3)
    return code.upper() if code is not None and len(code) == 3 and code.isascii() and code.isalpha() else None


def language(value: Any) -> str | None:
    """Return the two-letter ISO 639-1 code of a language tag ("en-US" → "en")."""
    tag = text(value, 35)
    if tag is None:
        return None
    code = re.split(r"[-_]", tag, maxsplit=1)[0].lower()
    return code if len(code) == 2 and code.isascii() and code.isalpha() else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> Sequence[Any]:
    """Return the list, an empty one for anything else."""
    return value if isinstance(value, list) else ()


def first(values: Iterable[Any]) -> str | None:
    """Return the first readable text."""
    for value in values:
        found = text(value)
        if found is not None:
            return found
    return None
