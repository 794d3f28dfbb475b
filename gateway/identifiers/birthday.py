"""Dates of birth."""

import re
from datetime import date
from typing import Final

from gateway.identifiers.text import Unusable, lowered, western

_CLOCK: Final = re.compile(r"(?<=[0-9])(?:t[0-9]{2}:?[0-9]{2}|[\s,]+[0-9]{1,2}:[0-9]{2}).*", re.DOTALL)
_DATE_PARTS: Final = re.compile(r"[^\W\d_]+|[0-9]+")
_MONTHS: Final = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december")  # fmt: skip
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DATE_WORDS: Final = frozenset(
    ("of", "the", "st", "nd", "rd", "th", "年", "月", "日", *_WEEKDAYS, *(day[:3] for day in _WEEKDAYS))
)


def birth_date(text: str) -> str:
    """``db``: year, month and day as YYYYMMDD, from any date with a four-digit year; a time of day is cut.

    Day first where dots divide ("03.05.1990"), month first elsewhere ("05/03/1990", the order of the US),
    unless a number above 12 decides. The year is one of 1900 to 2100, and the date exists. Reason:
    "not_a_date".
    """
    text = _CLOCK.sub("", western(lowered(text)))
    numbers, month = _date_parts(text)
    try:
        day = date(*_ordered(numbers, month, dotted="." in text and "/" not in text))
    except ValueError:
        raise Unusable("not_a_date") from None
    if not 1900 <= day.year <= 2100:
        raise Unusable("not_a_date")
    return day.strftime("%Y%m%d")


def _date_parts(text: str) -> tuple[list[str], int | None]:
    """Return the numbers of a date in their order, and the month if it is a word."""
    numbers: list[str] = []
    month: int | None = None
    for part in _DATE_PARTS.findall(text):
        if part.isdigit():
            numbers.append(part)
        elif part not in _DATE_WORDS:
            named = [at for at, full in enumerate(_MONTHS, 1) if full.startswith(part)]
            if len(part) < 3 or not named or month:
                raise Unusable("not_a_date")
            month = named[0]
    return numbers, month


def _ordered(numbers: list[str], month: int | None, *, dotted: bool) -> tuple[int, int, int]:
    """Return year, month and day; ValueError if the numbers are no date that can be read in one way."""
    if month is None and len(numbers) == 1 and len(numbers[0]) == 8:
        whole = numbers[0]
        return int(whole[:4]), int(whole[4:6]), int(whole[6:])
    wide = [at for at, number in enumerate(numbers) if len(number) == 4]
    if len(wide) != 1 or any(len(number) > 2 for at, number in enumerate(numbers) if at != wide[0]):
        raise ValueError
    year = int(numbers.pop(wide[0]))
    small = [int(number) for number in numbers]
    if month is not None and len(small) == 1:
        return year, month, small[0]
    if month is not None or len(small) != 2 or wide[0] == 1:
        raise ValueError
    first, second = small
    day_first = wide[0] == 2 and (first > 12 or (dotted and second <= 12))
    return (year, second, first) if day_first else (year, first, second)
