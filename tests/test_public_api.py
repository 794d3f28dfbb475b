"""The public API of plugin authors: complete, importable, documented."""

import inspect
import types
from typing import Any

import msgspec
import pytest

import gateway

#: What the design names: an author's imports must not break.
PROMISED = {
    "Adapter",
    "Enricher",
    "Destination",
    "AudienceSource",
    "AudienceSink",
    "Observer",
    "hookimpl",
    "Event",
    "SealedEvent",
    "Hit",
    "Rejected",
    "Delivered",
    "Refused",
    "Retry",
    "Unclear",
    "Paused",
    "Identifiers",
    "Context",
    "coerce",
    "verify",
    "identifiers",
    "json_body",
}
NAMES = sorted(gateway.__all__)


def test_every_name_is_there_once() -> None:
    """What is promised can be imported, and the list is sorted and without doubles."""
    assert set(gateway.__all__) >= PROMISED
    assert len(set(gateway.__all__)) == len(gateway.__all__)


def test_a_star_import_gives_exactly_the_list() -> None:
    """What is not listed is no part of the API."""
    namespace: dict[str, Any] = {}
    exec("from gateway import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(gateway.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_and_function_is_documented(name: str) -> None:
    """Whoever writes a plugin finds out from help() what a name is, and what each method does."""
    item = getattr(gateway, name)
    if isinstance(item, types.ModuleType):
        assert item.__doc__
        return
    if not (inspect.isclass(item) or inspect.isfunction(item)):
        return
    assert (item.__doc__ or "").strip()
    if inspect.isclass(item) and item.__module__.startswith("gateway"):
        for attribute, member in vars(item).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert (member.__doc__ or "").strip(), f"{name}.{attribute}"


def test_every_record_is_frozen_and_keyword_only() -> None:
    """A record can grow a field anywhere without breaking a plugin, and no plugin changes another's record."""
    records = [getattr(gateway, name) for name in NAMES if inspect.isclass(getattr(gateway, name))]
    positional = []
    for record in records:
        if not issubclass(record, msgspec.Struct):
            continue
        assert record.__struct_config__.frozen, record
        parameters = inspect.signature(record).parameters.values()
        if any(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in parameters):
            positional.append(record.__name__)
    assert positional == [], "msgspec does not inherit kw_only: each subclass must repeat it"


def test_secrets_hide_themselves() -> None:
    """A secret, a hit and a person show no value in repr, str or format."""
    secret = gateway.Secret(value="hunter2")
    user = gateway.User(email=("jo@example.com",))
    source = gateway.Source(name="s", adapter="a", site="s", destinations=(), secrets=(secret,))
    hit = gateway.Hit(source=source, body=b"jo@example.com", headers={"authorization": "hunter2"})
    for text in (repr(secret), str(secret), f"{secret}", repr(source), repr(user), f"{user}", repr(hit), str(hit)):
        assert "hunter2" not in text
        assert "jo@example.com" not in text


def test_our_interface_version_is_the_default() -> None:
    """A plugin that says nothing speaks today's interface."""
    assert gateway.API == gateway.Adapter.api == gateway.Enricher.api == gateway.Destination.api == 1
