"""The table ``[plugins.privacy]``."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway import Struct
from gateway.plugins.privacy.states import STATES

_WHERE = "[plugins.privacy]"


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What an operator may set.

    Args:
        limited_states: Codes of the states in which an inferred opt-out limits; None: those with a law in force when
            the gateway starts.
        geoip: A MaxMind database with countries and subdivisions, relative to the configuration file.
    """

    limited_states: tuple[str, ...] | None = None
    geoip: str | None = None


def read(table: Mapping[str, Any]) -> Options:
    """
    Return the table decoded.

    Raises:
        ValueError: An unknown key, a value of the wrong type, or a code that is no state's; names key and remedy.
    """
    for key in table:
        if key not in Options.__struct_fields__:
            raise ValueError(f"{_WHERE} unknown key '{key}'{_nearest(key, Options.__struct_fields__)}")
    try:
        options = msgspec.convert(table, Options)
    except msgspec.ValidationError as error:
        raise ValueError(f"{_WHERE} {error}: limited_states is a list of codes, geoip a path.") from error
    for state in options.limited_states or ():
        if state not in STATES:
            raise ValueError(f"{_WHERE} limited_states: '{state}' is no code of a US state{_nearest(state, STATES)}")
    return options


def _nearest(given: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(given, names, 1, 0.5) or [name for name in names if name == given.strip().upper()]
    return f": did you mean '{near[0]}'?" if near else f": valid are {', '.join(names)}."
