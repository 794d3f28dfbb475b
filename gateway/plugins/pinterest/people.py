"""Identifiers of a person under the API's field names, normalised and hashed."""

from collections.abc import Callable, Sequence
from operator import attrgetter

from gateway import Identifiers, User, identifiers

digest, sha256, Unusable = identifiers.digest, identifiers.sha256, identifiers.Unusable

#: Values of one field that are sent; more than a few of one person are another person's.
MAX_VALUES = 10

#: Canonical field → field of ``user_data``. Source: OpenAPI 5.23.0, ``ConversionEventsUserData``.
API_FIELDS: dict[str, str] = {
    "email": "em",
    "phone": "ph",
    "gender": "ge",
    "birth_date": "db",
    "last_name": "ln",
    "first_name": "fn",
    "city": "ct",
    "state": "st",
    "postal_code": "zp",
    "country": "country",
    "external_id": "external_id",
    "mobile_ad_id": "hashed_maids",
}

#: (canonical field, field of the API, normal form, whether that depends on the country of the address)
_RULES: tuple[tuple[str, str, Callable[..., str], bool], ...] = tuple(
    (name, key, identifiers.COUNTRY_FIELDS[name], True)
    if name in identifiers.COUNTRY_FIELDS
    else (name, key, identifiers.FIELDS[name], False)
    for name, key in API_FIELDS.items()
)
_values = attrgetter(*API_FIELDS)
_NOBODY = User()
_NOTHING = Identifiers()
_HASH_LENGTH = 64


def hashed_user(user: User, default_country: str | None) -> Identifiers:
    """
    Return the person's identifiers as the API wants them: 64 lower-case hex digits each, without repetitions.

    Phone, state and postal code are read by the person's own country if that can be read, else by ``default_country``.
    A value that cannot be used is left out and noted as ``field: reason``; nothing raises.
    """
    if user == _NOBODY:
        return _NOTHING
    country = (_own_country(user.country) if user.country else None) or default_country
    fields: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for (name, key, normalise, by_country), given in zip(_RULES, _values(user), strict=True):
        if not given:
            continue
        value = given[0]
        # Nearly every field is one plain text: the short way, which `_hashes` goes for the others at three calls more.
        if len(given) == 1 and type(value) is str and len(value) < _HASH_LENGTH:
            try:
                fields[key] = (sha256(normalise(value, country) if by_country else normalise(value)),)
            except Unusable as unusable:
                notes.append(f"{name}: {unusable.reason}")
        elif found := _hashes(name, given, normalise, (country,) if by_country else (), notes):
            fields[key] = tuple(found)
    return Identifiers(fields=fields, notes=tuple(dict.fromkeys(notes)) if notes else ())


def _hashes(
    name: str, given: Sequence[object], normalise: Callable[..., str], country: tuple[str | None, ...], notes: list[str]
) -> list[str]:
    found: list[str] = []
    for value in _each(given):
        try:
            ready = digest(normalise, value, *country) if isinstance(value, str) else None
        except Unusable as unusable:
            notes.append(f"{name}: {unusable.reason}")
            continue
        if ready is None:
            notes.append(f"{name}: not_text")
        elif ready not in found:
            if len(found) == MAX_VALUES:
                notes.append(f"{name}: too_many")
                break
            found.append(ready)
    return found


def _own_country(given: Sequence[object]) -> str | None:
    """Return the code of the first readable country; a hashed one cannot be read."""
    for value in _each(given):
        try:
            if isinstance(value, str):
                return identifiers.country(value)
        except Unusable:
            continue
    return None


def _each(given: Sequence[object]) -> Sequence[object]:
    """Return the values of a field; one text in place of a tuple, an author's slip, is not read letter by letter."""
    return (given,) if isinstance(given, str) else given
