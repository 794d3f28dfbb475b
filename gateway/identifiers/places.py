"""Names of countries and of their subdivisions, turned into ISO 3166 codes.

Pinterest asks for two-letter codes (``country``, ``st``), shops send names: "United States", "Québec",
"Deutschland". The tables come from pycountry with its translations, a short list of everyday names beside
them. They are built at first use (about 0.1 s for countries, the same once for subdivisions): call
``load()`` at start-up.
"""

import functools
import gettext
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import pycountry

_PUNCTUATION: Final = bytes(code for code in range(128) if not chr(code).isalnum())
_LONGEST: Final = 100  # characters, more than any name of a country has
_PREFIXED: Final = re.compile(r"([A-Za-z]{2})[-_]([A-Za-z0-9]{1,3})")
_BRACKETED: Final = re.compile(r"\s*[\[(]([^\])]*)[\])]")
_INNER_CODE: Final = re.compile(r"\b[A-Z]{2}-[A-Z0-9]+\b")
_COUNTRY_LANGUAGES: Final = ("de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "fi", "cs", "tr", "ja")
_SUBDIVISION_LANGUAGES: Final = ("en", "de", "fr", "es", "it")

_EVERYDAY_COUNTRIES: Final[Mapping[str, str]] = {
    "america": "us",
    "unitedstatesamerica": "us",
    "eeuu": "us",
    "uae": "ae",
    "uk": "gb",
    "greatbritain": "gb",
    "britain": "gb",
    "england": "gb",
    "scotland": "gb",
    "wales": "gb",
    "northernireland": "gb",
    "el": "gr",
    "holland": "nl",
    "korea": "kr",
    "republicofireland": "ie",
    "russia": "ru",
    "turkey": "tr",
    "ivorycoast": "ci",
    "capeverde": "cv",
    "swaziland": "sz",
    "macedonia": "mk",
    "burma": "mm",
    "easttimor": "tl",
    "brunei": "bn",
    "macau": "mo",
    "macaosar": "mo",
    "hongkongsar": "hk",
    "vaticancity": "va",
    "vatican": "va",
    "drcongo": "cd",
    "drc": "cd",
    "usvirginislands": "vi",
    "falklandislands": "fk",
    "sintmaarten": "sx",
    "saintmartin": "mf",
    "xk": "xk",
    "kosovo": "xk",
}
"""By key. "xk" is user-assigned in ISO 3166, and what Shopify and the EU write for Kosovo."""

_EVERYDAY_SUBDIVISIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "us": {"washingtondc": "dc", "usvirginislands": "vi"},
    "ca": {"newfoundland": "nl", "pei": "pe", "yukonterritory": "yt"},
    "mx": {
        "cdmx": "cmx",
        "mexicocity": "cmx",
        "estadodemexico": "mex",
        "veracruz": "ver",
        "coahuila": "coa",
        "michoacan": "mic",
    },
    "es": {"catalonia": "ct", "andalusia": "an", "basquecountry": "pv", "balearicislands": "ib"},
    "it": {"tuscany": "52", "lombardy": "25", "sicily": "82", "sardinia": "88", "piedmont": "21"},
}


def key(text: str) -> str:
    """Return the form in which names are compared: letters and digits only, caseless, without accents."""
    if text.isascii():
        return text.lower().encode().translate(None, _PUNCTUATION).decode()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


def country_code(text: str | None) -> str | None:
    """Return the lower-case ISO 3166-1 alpha-2 code of a code (letters or digits) or a name, or None."""
    if not text:
        return None
    wanted = key(text[:_LONGEST])
    table = _countries()
    return table.get(wanted) or table.get(wanted.removeprefix("the"))


def subdivision_code(text: str, country: str | None) -> str | None:
    """Return the lower-case part after the dash of an ISO 3166-2 code, from a code or a name, or None.

    ``country`` is a code or a name as `country_code` takes it. Without a known one, names are looked for in
    the United States and then in Canada, where no name occurs twice; codes alone are then unknown, those
    with a country are not.
    """
    prefixed = _PREFIXED.fullmatch(text)
    if prefixed and (code := _subdivisions(prefixed[1].lower()).get(prefixed[2].lower())):
        return code
    wanted = key(text)
    if known := country_code(country):
        return _subdivisions(known).get(wanted)
    if len(wanted) <= 3:
        return None
    return _subdivisions("us").get(wanted) or _subdivisions("ca").get(wanted)


def load() -> None:
    """Build the tables of countries and of the US, so that the first event does not wait for them."""
    _countries()
    _subdivisions("us")


def _variants(name: str) -> Iterator[str]:
    """Yield the ways to write one of pycountry's names: "Catalunya [Cataluña]", "Murcia, Región de"."""
    outer = _BRACKETED.sub("", name)
    yield outer
    for inner in _BRACKETED.findall(name) if "[" in name else ():
        yield _INNER_CODE.sub("", inner)
    head, comma, tail = outer.partition(", ")
    if comma:
        yield f"{tail} {head}"
        yield head


def _translations(domain: str, languages: Iterable[str]) -> Iterator[gettext.NullTranslations]:
    for language in languages:
        yield gettext.translation(domain, pycountry.LOCALES_DIR, languages=[language], fallback=True)


def _add(table: dict[str, str], names: Iterable[tuple[str, str]]) -> None:
    """Add names that the table has not yet and that mean one code only."""
    keyed = {(key(name), code) for name, code in names}
    meanings = Counter(name for name, _ in keyed)
    for name, code in keyed:
        if name and meanings[name] == 1:
            table.setdefault(name, code)


@functools.cache
def _countries() -> Mapping[str, str]:
    rows = [(country, country.alpha_2.lower()) for country in pycountry.countries]
    table = {text.lower(): code for row, code in rows for text in (row.alpha_2, row.alpha_3, row.numeric)}
    table.update(_EVERYDAY_COUNTRIES)
    fields = ("name", "common_name", "official_name")
    names = [(getattr(row, field, ""), code) for row, code in rows for field in fields]
    _add(table, names)
    _add(table, [(variant, code) for name, code in names for variant in _variants(name)])
    for language in _translations("iso3166-1", _COUNTRY_LANGUAGES):
        _add(table, [(language.gettext(name), code) for name, code in names if name])
    return table


@functools.cache
def _by_country() -> Mapping[str, list[tuple[str, str, bool]]]:
    """Return (name, code without country, is top level) of every subdivision, by country."""
    grouped: dict[str, list[tuple[str, str, bool]]] = {}
    for row in pycountry.subdivisions:
        country, _, code = row.code.lower().partition("-")
        grouped.setdefault(country, []).append((row.name, code, row.parent_code is None))
    return grouped


@functools.lru_cache(maxsize=256)
def _subdivisions(country: str) -> Mapping[str, str]:
    """Return codes by key. Where a region and a part of it share a name, the name means the region."""
    rows = _by_country().get(country, [])
    table = {code: code for _, code, _ in rows}
    table.update(_EVERYDAY_SUBDIVISIONS.get(country, {}))
    top, lower = ([(name, code) for name, code, is_top in rows if is_top is level] for level in (True, False))
    for names in (top, lower):
        _add(table, names)
        _add(table, [(variant, code) for name, code in names for variant in _variants(name)])
    for language in _translations("iso3166-2", _SUBDIVISION_LANGUAGES):
        for names in (top, lower):
            _add(table, [(language.gettext(name), code) for name, code in names])
    return table
