"""One record becomes one event of the browser tag's JSON."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from gateway import coerce
from gateway.event import ACTION_SOURCES, Struct
from gateway.importing import ImportStopped
from gateway.importing.columns import GROUPS, ITEM_IDS, Layout, field_of
from gateway.importing.records import Problem, Record

_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)\Z")
_NUMBER = re.compile(r"\d+(?:\.\d+)?\Z", re.ASCII)
_IDS = re.compile(r"[|;,]")
_MAX_UNKNOWN = 100


class Defaults(Struct, frozen=True, kw_only=True):
    """What a row has that does not say it."""

    event_name: str = "checkout"
    action_source: str = "offline"
    currency: str | None = None


class Unreadable(Exception):
    """A cell cannot be read; ``problem`` says which and why."""

    def __init__(self, field: str, reason: str, message: str) -> None:
        super().__init__(reason)
        self.problem = Problem(reason=reason, field=field, message=message)


def zone_of(name: str | None) -> tzinfo | None:
    """
    Return the zone of ``--timezone``: an IANA name, or an offset such as ``+02:00``.

    Raises:
        ImportStopped: There is no such zone.
    """
    if name is None:
        return None
    if name.upper() in ("UTC", "Z"):
        return UTC
    offset = _OFFSET.match(name)
    if offset:
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if span < timedelta(days=1):
            return timezone(-span if offset[1] == "-" else span)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ImportStopped(f"--timezone: there is no zone '{name}'; write Europe/Berlin, UTC or +02:00.") from None


class Reader:
    """
    Turns records into events.

    Args:
        layout: The columns of a CSV file, None for JSON lines.
        given: ``--map``, for the keys of JSON lines.
        zone: For times without one.
    """

    def __init__(
        self, layout: Layout | None, given: Mapping[str, str], defaults: Defaults, zone: tzinfo | None
    ) -> None:
        self._layout = layout
        self._given = given
        self._defaults = defaults
        self._zone = zone
        self._fields: dict[str, str | None] = dict(given)
        #: Keys of JSON lines that are no field.
        self.unknown: set[str] = set()

    def event(self, record: Record) -> dict[str, Any] | Problem:
        """Return the event that a record tells, or why it tells none."""
        if record.problem is not None:
            return record.problem
        event: dict[str, Any] = {}
        try:
            if self._layout is not None:
                for index, field in self._layout.plan:
                    cell = record.value[index].strip()
                    if cell:
                        self._put(event, field, cell)
            else:
                self._take(event, record.value)
        except Unreadable as unreadable:
            return unreadable.problem
        if "event_time" not in event:
            message = "event_time is missing: a past conversion needs its own time."
            return Problem(reason="missing_event_time", field="event_time", message=message)
        return self._completed(event)

    def _completed(self, event: dict[str, Any]) -> dict[str, Any] | Problem:
        defaults = self._defaults
        event.setdefault("event_name", defaults.event_name)
        source = event.setdefault("action_source", defaults.action_source)
        if not isinstance(source, str) or source.strip().lower() not in ACTION_SOURCES:
            # the tag takes an unknown one as web, which Pinterest would then look for in its own tag
            message = f"action_source must be one of {', '.join(sorted(ACTION_SOURCES))}."
            return Problem(reason="unknown_action_source", field="action_source", message=message)
        if defaults.currency is not None and "value" in event:
            event.setdefault("currency", defaults.currency)
        return event

    def _take(self, event: dict[str, Any], given: dict[str, Any]) -> None:
        for key, value in given.items():
            if value is None:
                continue
            if key in GROUPS and isinstance(value, dict) and key not in self._given:
                event.setdefault(key, {}).update(value)
                continue
            field = self._field(key)
            if field:
                self._put(event, field, value)

    def _field(self, key: str) -> str | None:
        if key in self._fields:
            return self._fields[key]
        field = field_of(key)
        if field is None and len(self.unknown) < _MAX_UNKNOWN:
            self.unknown.add(key)
        if len(self._fields) < 10 * _MAX_UNKNOWN:
            self._fields[key] = field
        return field

    def _put(self, event: dict[str, Any], field: str, value: Any) -> None:
        group, _, name = field.rpartition(".")
        if group:
            part = event.setdefault(group, {})
            if group == "user" and name in part:
                part[name] = [*_listed(part[name]), *_listed(value)]
            else:
                part[name] = value
        elif field == "event_time":
            event[field] = moment(value, self._zone)
        elif field == "items":
            event[field] = _items(value)
        elif field == ITEM_IDS:
            event["items"] = _item_ids(value)
        else:
            event[field] = value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def moment(value: Any, zone: tzinfo | None) -> float:
    """
    Return Unix seconds of a number, or of ISO 8601 text; one without a zone is in ``zone``.

    Raises:
        Unreadable: It is neither, or has no zone and none was given.
    """
    seconds: float | None
    if isinstance(value, str) and not _NUMBER.match(value.strip()):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            raise _not_a_time() from None
        if found.tzinfo is None:
            if zone is None:
                raise Unreadable("event_time", "no_timezone", "event_time has no time zone: say --timezone ZONE.")
            found = found.replace(tzinfo=zone)
        try:
            seconds = coerce.unix_time(found.timestamp())
        except (OverflowError, ValueError):
            raise _not_a_time() from None
    else:
        seconds = coerce.unix_time(value)
    if seconds is None:
        raise _not_a_time()
    return int(seconds) if seconds == int(seconds) else seconds


def _not_a_time() -> Unreadable:
    return Unreadable("event_time", "not_a_time", "event_time must be Unix seconds or ISO 8601.")


def _items(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unreadable("items", "malformed_items", 'items must be a JSON list of objects: [{"id": "…", "price": 1}].')
    return found


def _item_ids(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise Unreadable(ITEM_IDS, "malformed_items", f"{ITEM_IDS} begins like a JSON list and is none.") from None
    ids = _IDS.split(value) if isinstance(value, str) else _listed(value)
    found = (coerce.text(one) for one in ids)
    return [{"id": one} for one in found if one is not None]
