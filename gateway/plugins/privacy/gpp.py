"""
The GPP string: which opt-outs its US sections hold.

Sources, read 2026-11: IAB Tech Lab, Global-Privacy-Platform: Core/Consent String Specification (header, Fibonacci
ranges, delimiters), Sections/US-National and Sections/US-States (identifiers and fields of each section), and the
field tables of its encoder, IABTechLab/iabgpp-es. Where the two differ both are read: the specifications of Maryland,
Indiana, Kentucky and Rhode Island (public comment, 2025-10) begin a section with a header, the encoder does not.

``header~section~section``; the header is base64url of ``3`` (6 bits), the version ``1`` (6 bits) and the ids of the
sections, a range of Fibonacci numbers. A US section is ``core.subsection``, each base64url; ``core`` begins with its
version (6 bits), every field that counts here has 2 bits: 0 not applicable, 1 opted out, 2 did not opt out.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from gateway.plugins.privacy import us_privacy

#: Longer strings are not remembered, and much longer ones not read: a section of every state has about 700 characters.
_REMEMBERED = 1_024
_LONGEST = 8_192
_SHAPE = re.compile(r"[A-Za-z0-9_.~-]+", re.ASCII)
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_BITS = {letter: f"{value:06b}" for value, letter in enumerate(_ALPHABET)}
#: Four letters are 24 bits: no opt-out stands later.
_CORE_LETTERS = 4
_US_PRIVACY = 6
_GPC = "01"


class _Layout(NamedTuple):
    """Where a section has its opt-outs of sale, sharing and targeted advertising, as offsets in bits."""

    opt_outs: tuple[int, ...]
    versions: tuple[int, ...] = (1,)
    is_mspa: bool = False  # begins with the MSPA's version, and may have a header
    has_gpc: bool = True


_THREE_NOTICES = _Layout((12, 14))
_FOUR_NOTICES = _Layout((14, 16))
_MSPA = _Layout((16, 18), is_mspa=True)
_LAYOUTS: dict[int, _Layout] = {
    7: _Layout((18, 20, 22), (1, 2)),  # usnat
    8: _THREE_NOTICES,  # usca: sale and sharing
    9: _THREE_NOTICES,  # usva, and from here on sale and targeted advertising
    10: _THREE_NOTICES,  # usco
    11: _FOUR_NOTICES,  # usut
    12: _THREE_NOTICES,  # usct
    13: _THREE_NOTICES,  # usfl
    14: _THREE_NOTICES,  # usmt
    15: _THREE_NOTICES,  # usor
    16: _THREE_NOTICES,  # ustx
    17: _THREE_NOTICES,  # usde
    18: _FOUR_NOTICES,  # usia
    19: _THREE_NOTICES,  # usne
    20: _THREE_NOTICES,  # usnh
    21: _THREE_NOTICES,  # usnj
    22: _THREE_NOTICES,  # ustn
    23: _THREE_NOTICES,  # usmn
    24: _MSPA,  # usmd
    25: _MSPA,  # usin
    26: _MSPA,  # usky
    27: _Layout((16, 18), is_mspa=True, has_gpc=False),  # usri: its subsection is of sensitive data
}


class Unreadable(ValueError):
    """This is no GPP string, or a section is not as its specification has it."""


def is_opt_out(text: str, section_ids: str | None) -> bool | None:
    """
    Whether an applicable US section opts out of sale, sharing or targeted advertising, or carries GPC.

    Args:
        text: The string as the CMP gave it.
        section_ids: ``gpp_sid``, the ids of the applicable sections, with any separator. None, or ids of sections that
            the string does not have: all its sections count.

    Returns:
        None when the string cannot be read and what can be read of it is no opt-out.
    """
    if len(text) > _REMEMBERED or len(section_ids or "") > _REMEMBERED:
        return _read(text, section_ids)
    return _remembered(text, section_ids)


def sections(text: str) -> dict[int, str]:
    """
    Return the sections by id, each still encoded.

    Raises:
        Unreadable: The header is not one, or names other sections than there are.
    """
    if len(text) > _LONGEST or not _SHAPE.fullmatch(text):
        raise Unreadable
    header, *parts = text.split("~")
    ids = _section_ids(header, len(parts))
    if len(ids) != len(parts):
        raise Unreadable
    return dict(zip(ids, parts, strict=True))


def _read(text: str, section_ids: str | None) -> bool | None:
    try:
        found = sections(text.strip())
    except Unreadable:
        return None
    named = {int(number) for number in re.findall(r"-?\d{1,4}", section_ids or "", re.ASCII)}
    applicable = {key: part for key, part in found.items() if key in named} or found
    answers = [_section(key, part) for key, part in applicable.items()]
    return True if True in answers else None if None in answers else False


_remembered = lru_cache(2_048)(_read)


def _section(key: int, text: str) -> bool | None:
    if key == _US_PRIVACY:
        return us_privacy.is_opt_out(text)
    layout = _LAYOUTS.get(key)
    if layout is None:
        return False  # another country's law, or a section newer than this program
    core, *others = text.split(".")
    bits = _bits(core[:_CORE_LETTERS])
    if layout.is_mspa and others and bits[:6] == f"{key:06b}":
        core, *others = others
        bits = _bits(core[:_CORE_LETTERS])
    if layout.has_gpc and any(_bits(other[:1])[:3] == _GPC + "1" for other in others):
        return True
    if len(bits) < layout.opt_outs[-1] + 2 or not (layout.is_mspa or int(bits[:6], 2) in layout.versions):
        return None
    values = [bits[at : at + 2] for at in layout.opt_outs]
    return True if "01" in values else None if "11" in values else False


def _bits(text: str) -> str:
    return "".join(_BITS.get(letter, "") for letter in text)


def _section_ids(header: str, most: int) -> list[int]:
    bits = _bits(header)
    if len(bits) < 24 or bits[:12] != "000011000001":
        raise Unreadable
    at, last = 24, 0
    ids: list[int] = []
    for _ in range(int(bits[12:24], 2)):
        is_group = bits[at : at + 1] == "1"
        first, at = _fibonacci(bits, at + 1, last)
        last, at = _fibonacci(bits, at, first) if is_group else (first, at)
        if last - first >= most or len(ids) > most:
            raise Unreadable
        ids += range(first, last + 1)
    return ids


def _fibonacci(bits: str, at: int, start: int) -> tuple[int, int]:
    """Return ``start`` plus the Fibonacci number at a place, and where the next thing begins; "11" ends it."""
    end = bits.find("11", at)
    if end < 0:
        raise Unreadable
    weight, following = 1, 2
    for bit in bits[at : end + 1]:
        if bit == "1":
            start += weight
        weight, following = following, weight + following
    return start, end + 2
