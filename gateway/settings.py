"""Tables whose keys a plugin declares, decoded: the options of destinations and sources, and whole sources."""

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from gateway import config as configuration
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.hit import Secret, Source
from gateway.interfaces import Adapter
from gateway.tables import SecretRef, Site

T = TypeVar("T", bound=msgspec.Struct)
#: Bytes of a secret that nobody guesses. Source: OWASP ASVS 5.0, 128 bits for machine credentials.
_GOOD_SECRET = 16


def options(config: Config, table: Mapping[str, Any], kind: type[T], where: str, warnings: list[str]) -> T:
    """
    Decode a plugin's options; a field of type ``Secret`` (or ``Secret | None``) is read from where the file says.

    Args:
        where: The table's name, for messages, such as ``destinations.pinterest``.
        warnings: A literal secret is added to it.

    Raises:
        ConfigError: Names file, key and remedy.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{config.path}: [{where}] must be a table.")
    values = dict(table)
    for key in _secret_fields(kind) & values.keys():
        reference = values[key]
        if isinstance(reference, dict):
            reference = configuration.convert(reference, SecretRef, config.path, f"{where}.{key}")
        if isinstance(reference, str):
            warnings.append(f'[{where}] {key}: a literal secret in the file; use {{ env = "…" }}.')
        elif not isinstance(reference, SecretRef):
            raise ConfigError(f'{config.path}: [{where}] {key} must be {{ env = "NAME" }}.')
        values[key] = {"value": configuration.secret(reference, config, f"[{where}] {key}").value}
    return configuration.convert(values, kind, config.path, where)


def _secret_fields(kind: type[msgspec.Struct]) -> set[str]:
    return {
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.type is Secret or Secret in typing.get_args(field.type)
    }


def source(config: Config, name: str, adapter: Adapter, warnings: list[str]) -> Source:
    """
    Return ``[sources.NAME]``, with its options and secrets, checked by its adapter.

    Raises:
        ConfigError: Names file, key and remedy.
    """
    table = config.sources[name]
    where = f"sources.{name}"
    site_name = config.site_of(name)
    found = Source(
        name=name,
        adapter=table.adapter,
        site=site_name,
        destinations=table.destinations,
        options=options(config, table.options, adapter.Options, f"{where}.options", warnings),
        secrets=tuple(configuration.secret(value, config, f"[{where}] secrets") for value in table.secrets),
        allowed_origins=table.allowed_origins,
        event_names=table.event_names,
        default_country=config.sites.get(site_name, Site()).default_country,
    )
    if adapter.side == "server" and not found.is_server:
        raise ConfigError(
            f"{config.path}: [{where}] adapter '{adapter.name}' is signed: give secrets, not allowed_origins."
        )
    if adapter.side == "public" and found.is_server:
        raise ConfigError(
            f"{config.path}: [{where}] adapter '{adapter.name}' is public: give allowed_origins, not secrets."
        )
    if any(len(secret.value.encode()) < _GOOD_SECRET for secret in found.secrets):
        warnings.append(
            f"[{where}] secrets: one has fewer than {_GOOD_SECRET} bytes and can be guessed; make one with "
            "'openssl rand -hex 32'."
        )
    problem = adapter.check(found)
    if problem is not None:
        raise ConfigError(f"{config.path}: [{where}] {problem}")
    return found
