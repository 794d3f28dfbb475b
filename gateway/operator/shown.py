"""
The configuration as it is understood, for people: every table with its values, secrets never.

What a table declares as a secret is masked by its type. A plugin's own tables are shown as its options say; where no
type says it, texts of keys that sound like secrets are masked, and so is whoever stands before the host of an address.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.event import Struct
from gateway.hit import Secret
from gateway.runtime import Parts
from gateway.tables import SecretRef

MASK = "set, not shown"
_SOUNDS_SECRET = re.compile(r"secret|token|passw|credential|auth|signature|private|key$", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_KEYS = frozenset({"secrets", "password", "viewer_password", "key"})


class Shown(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One value; ``is_default``: the file does not say it."""

    key: str
    value: str
    is_default: bool = False


class Section(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One table of the file, with its name as it is written there."""

    name: str
    values: tuple[Shown, ...]


def sections(parts: Parts) -> list[Section]:
    """Return every table."""
    config = parts.config
    found = [_struct(name, getattr(config, name)) for name in _CORE]
    found += [_struct(f"sites.{name}", site) for name, site in sorted(config.sites.items())]
    for name, source in sorted(config.sources.items()):
        route = parts.routes.get(name)
        found.append(_source(name, source, route.source.options if route is not None else None))
    for name, destination in sorted(parts.destinations.items()):
        found.append(_plugged(f"destinations.{name}", config.destinations[name], destination.options))
    for table, ones in (("audience_sources", parts.audiences.sources), ("audience_sinks", parts.audiences.sinks)):
        for name, one in sorted(ones.items()):
            given = getattr(config, table).get(name, {})
            found.append(_plugged(f"{table}.{name}", given, getattr(one, "options", None)))
    for name, options in sorted(config.plugins.items()):
        found.append(Section(name=f"plugins.{name}", values=tuple(_plain(options))))
    return found


_CORE = ("server", "operator", "store", "pipeline", "audiences", "quarantine")


def _struct(name: str, table: msgspec.Struct) -> Section:
    return Section(name=name, values=tuple(_fields(table)))


def _fields(table: msgspec.Struct, prefix: str = "") -> Iterator[Shown]:
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        default = field.default if field.default is not msgspec.NODEFAULT else ()
        yield Shown(
            key=prefix + field.encode_name, value=shown(field.encode_name, value), is_default=bool(value == default)
        )


def _source(name: str, table: msgspec.Struct, options: Any) -> Section:
    values = [one for one in _fields(table) if one.key != "options"]
    if isinstance(options, msgspec.Struct):
        values += _fields(options, "options.")
    return Section(name=f"sources.{name}", values=tuple(values))


def _plugged(name: str, given: Mapping[str, Any], options: Any) -> Section:
    kind = [Shown(key="type", value=str(given["type"]))] if isinstance(given.get("type"), str) else []
    values = _fields(options) if isinstance(options, msgspec.Struct) else _plain(given)
    return Section(name=name, values=(*kind, *values))


def _plain(table: Any, prefix: str = "") -> Iterator[Shown]:
    """Show a table of which nobody says what is a secret in it."""
    if not isinstance(table, Mapping):
        yield Shown(key=prefix or "value", value=shown(prefix, table))
        return
    for key, value in table.items():
        is_reference = isinstance(value, Mapping) and set(value) <= {"env", "file"}
        if isinstance(value, Mapping) and not is_reference:
            yield from _plain(value, f"{prefix}{key}.")
        else:
            yield Shown(key=f"{prefix}{key}", value=shown(str(key), value))


def shown(key: str, value: Any) -> str:
    """Return a value as text, masked where it is or sounds like a secret."""
    if value is None:
        return "not set"
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, SecretRef):
        return f"{MASK}; from {_origin(value.env, value.file)}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        if value and set(value) <= {"env", "file"}:
            return f"{MASK}; from {_origin(value.get('env'), value.get('file'))}"
        return ", ".join(f"{name} = {shown(str(name), one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(shown(key, one) for one in value) or "none"
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{one.key} = {one.value}" for one in _fields(value))
    text = str(value)
    if text and (key in _SECRET_KEYS or _SOUNDS_SECRET.search(key)):
        return MASK
    return _IN_URL.sub("…@", text)


def _origin(env: Any, file: Any) -> str:
    return f"the variable {env}" if env else f"the file {file}"
