"""Which column is which field: by the header's names, or as ``--map`` says."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from gateway.event import App, Client, Consent, Device, Struct, User
from gateway.importing import ImportStopped
from gateway.plugins.browser_tag.payload import FIELDS, USER_ALIASES

#: Objects of the event, and what a column may fill in them.
GROUPS: dict[str, tuple[str, ...]] = {
    "user": User.__struct_fields__,
    "client": Client.__struct_fields__,
    "consent": Consent.__struct_fields__,
    "app": App.__struct_fields__,
    "device": Device.__struct_fields__,
}
#: A list of product ids in one cell, for files that know no more of the goods.
ITEM_IDS = "item_ids"
#: A heading may be a value, when the file has no header: only what looks like a name is ever shown.
_NAME = re.compile(r"[A-Za-z][A-Za-z_. -]{0,39}(?<!\d)\d{0,2}\Z")
_MAX_SHOWN = 10


def _names() -> dict[str, str]:
    """Return every name that a column may have, with the field that it means (``user.email``, ``value``)."""
    found = {f"{group}_{name}": f"{group}.{name}" for group, names in GROUPS.items() for name in names}
    found |= {f"{group}.{name}": f"{group}.{name}" for group, names in GROUPS.items() for name in names}
    found |= {alias: f"user.{name}" for name, alias in USER_ALIASES.items() if alias}
    found |= {name: f"user.{name}" for name in GROUPS["user"]}
    found |= {name: f"client.{name}" for name in GROUPS["client"]}
    return found | {name: name for name in (*(FIELDS - GROUPS.keys()), ITEM_IDS)}


NAMES = _names()


def field_of(name: str) -> str | None:
    """Return the field that a column's name means, in any case and with blanks or hyphens; None for no field."""
    return NAMES.get(re.sub(r"[ \-]+", "_", name.strip().lower()))


class Layout(Struct, frozen=True, kw_only=True):
    """What to read: (position, field) for each column that is one; ``unknown`` are headings that are none."""

    plan: tuple[tuple[int, str], ...]
    width: int
    unknown: tuple[str, ...] = ()


def parse_map(options: Sequence[str]) -> dict[str, str]:
    """
    Read ``column=field`` options; an empty field leaves the column out.

    Raises:
        ImportStopped: An option has no "=", or names a field that there is not: the nearest is named.
    """
    found = {}
    for option in options:
        column, separator, name = option.rpartition("=")
        if not separator or not column.strip():
            raise ImportStopped(f"--map {option!r}: write column=field, such as --map 'Sale date=event_time'.")
        field = field_of(name) if name.strip() else ""
        if field is None:
            near = difflib.get_close_matches(name.strip().lower(), NAMES, 1, 0.5)
            hint = f"did you mean '{near[0]}'?" if near else "see docs/import.md for the fields."
            raise ImportStopped(f"--map {option!r}: there is no field '{name.strip()}'; {hint}")
        found[column.strip()] = field
    return found


def layout(header: Sequence[str], given: Mapping[str, str]) -> Layout:
    """
    Find the fields of a CSV file's header.

    Raises:
        ImportStopped: ``--map`` names a column that is not there, two columns are one field, no column is a field, or
            none is the time of the event.
    """
    names = [name.strip() for name in header]
    for column in given:
        if column not in names:
            near = difflib.get_close_matches(column, names, 1, 0.6)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ImportStopped(f"--map: the file has no column '{column}'.{hint}")
    plan, unknown = [], []
    for index, name in enumerate(names):
        field = given[name] if name in given else field_of(name)
        if field:
            plan.append((index, field))
        elif field is None and name:
            unknown.append(name)
    _check([(names[index], field) for index, field in plan])
    return Layout(plan=tuple(plan), width=len(names), unknown=tuple(unknown))


def _check(columns: Sequence[tuple[str, str]]) -> None:
    if not columns:
        raise ImportStopped(
            "No column of the file is a field. Is the first line a header, and the delimiter right (--delimiter)? "
            "Name columns by --map COLUMN=FIELD; see docs/import.md for the fields."
        )
    seen: dict[str, str] = {}
    for name, field in columns:
        if field in seen and not field.startswith("user."):
            raise ImportStopped(
                f"The columns '{seen[field]}' and '{name}' are both {field}: leave one out by --map '{name}='."
            )
        seen[field] = name
    if "event_time" not in seen:
        raise ImportStopped(
            "No column is event_time, and a past conversion without its time would count as one of now: "
            "name it by --map COLUMN=event_time."
        )
    if "items" in seen and ITEM_IDS in seen:
        raise ImportStopped(f"Both items and {ITEM_IDS} are given: leave one out by --map '{seen[ITEM_IDS]}='.")


def shown(names: Iterable[str]) -> str:
    """Return headings for a message: what does not look like a name may be somebody's data."""
    listed = list(dict.fromkeys(name if _NAME.match(name) else "(other)" for name in names))
    more = f" and {len(listed) - _MAX_SHOWN} more" if len(listed) > _MAX_SHOWN else ""
    return ", ".join(listed[:_MAX_SHOWN]) + more
