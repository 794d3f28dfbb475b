"""Plugins are loaded strictly: what is wrong ends the start with one line that names plugin, version and remedy."""

import importlib.metadata
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gateway.errors import PluginError
from gateway.event import Event, Normalized
from gateway.hit import Hit
from gateway.hookspecs import hookimpl
from gateway.interfaces import Adapter, Context, Enricher
from gateway.pluginhost import OURS, PluginHost
from gateway.testing.doubles import RecordingDestination

OUR_NAMES = {"browser_tag", "client", "click_id", "privacy", "bots", "pinterest", "shopify", "gtm", "tealium"}


class Acme(Adapter):
    name = "acme"

    def verify(self, hit: Hit) -> None:
        """Pass."""

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        return []


class Late(Enricher):
    name = "late"
    order = 99

    async def enrich(self, event: Event, hit: Hit) -> Event:
        return event


class Early(Late):
    name = "early"
    order = 1


class Newer(Acme):
    name = "newer"
    api: ClassVar[int] = 2


class Nameless(Acme):
    name = ""


class Hasty(Enricher):
    name = "hasty"

    def enrich(self, event: Event, hit: Hit) -> Event:  # type: ignore[override]
        return event


def plugin(**hooks: Callable[..., Any]) -> SimpleNamespace:
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()}, __name__="acme_plugin")


def giving(hook: str, *items: Any) -> SimpleNamespace:
    def function(context: Context) -> list[Any]:
        return list(items)

    return plugin(**{hook: function})


def host(disabled: Sequence[str] = (), **extra: object) -> PluginHost:
    return PluginHost(Context(), disabled, extra)


def entry(name: str, load: Callable[[], object], dist: str = "tag-gateway-acme", version: str = "1.2") -> Any:
    return SimpleNamespace(
        name=name, value=f"{name}_module", dist=SimpleNamespace(name=dist, version=version), load=load
    )


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(*entries: Any) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: list(entries))

    return put


def failing() -> object:
    raise ImportError("no module named acme_sdk")


def test_ours_load_as_a_strangers_do() -> None:
    """Every built-in comes through the entry points and registers what the README names."""
    found = host()
    assert {loaded.name for loaded in found.listing()} >= OUR_NAMES
    assert {"browser_tag", "shopify", "shopify_pixel", "gtm", "tealium"} <= set(found.adapters)
    assert {"client", "click_id", "privacy", "bots"} <= set(found.enrichers)
    assert "pinterest" in found.destination_types


def test_a_plugin_that_cannot_be_imported(install: Callable[..., None]) -> None:
    """The error names plugin, distribution, version, cause and remedy, in one line."""
    install(entry("acme", failing))
    with pytest.raises(PluginError) as caught:
        host()
    message = str(caught.value)
    for part in ("'acme'", "tag-gateway-acme 1.2", "ImportError", 'disabled = ["acme"]'):
        assert part in message
    assert "\n" not in message


def test_a_broken_plugin_can_be_left_out(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """By configuration or by environment a broken plugin is not even imported, and is listed as disabled."""
    install(entry("acme", failing))
    assert [(loaded.name, loaded.disabled) for loaded in host(["acme"]).listing()] == [("acme", True)]
    monkeypatch.setenv("TAG_GATEWAY_DISABLE_PLUGINS", "other,acme")
    assert [loaded.disabled for loaded in host().listing()] == [True]


def test_the_environment_may_have_spaces(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with a space after its comma means the same."""
    install(entry("acme", failing))
    monkeypatch.setenv("TAG_GATEWAY_DISABLE_PLUGINS", "other, acme")
    assert [loaded.disabled for loaded in host().listing()] == [True]


def test_two_plugins_of_one_name(install: Callable[..., None]) -> None:
    """Both distributions are named."""
    good = lambda: giving("register_adapters")  # noqa: E731
    install(entry("acme", good), entry("acme", good, dist="tag-gateway-other", version="3"))
    with pytest.raises(PluginError, match=r"'acme'.*tag-gateway-(acme 1\.2|other 3).*tag-gateway-(acme 1\.2|other 3)"):
        host()


def test_an_unknown_hook() -> None:
    """A misspelt hook is an error that lists the valid ones, not silence."""

    def register_adaptors(context: Context) -> list[Adapter]:
        return []

    with pytest.raises(PluginError, match=r"'acme'.*unknown hook 'register_adaptors'.*register_adapters"):
        host(acme=plugin(register_adaptors=register_adaptors))


def test_a_misspelt_hook_beside_a_good_one() -> None:
    """One good hook does not hide a misspelt one."""

    def nothing(context: Context) -> list[Adapter]:
        return []

    with pytest.raises(PluginError, match="unknown hook 'register_enricher'"):
        host(acme=plugin(register_adapters=nothing, register_enricher=nothing))


def test_no_hook_at_all() -> None:
    """A plugin without hooks says what is missing; so does a hook without its mark."""
    with pytest.raises(PluginError, match=r"'acme'.*no hook.*@hookimpl"):
        host(acme=SimpleNamespace(__name__="acme_plugin"))
    with pytest.raises(PluginError, match=r"'acme'.*@hookimpl"):
        host(acme=SimpleNamespace(__name__="acme_plugin", register_adapters=lambda context: [Acme()]))


def test_a_hook_with_a_wrong_argument() -> None:
    """An argument that no hook has is an error with the plugin's name."""

    def register_adapters(contexts: Context) -> list[Adapter]:
        return []

    with pytest.raises(PluginError, match=r"(?s)'acme'.*contexts") as caught:
        host(acme=plugin(register_adapters=register_adapters))
    assert "\n" not in str(caught.value), "the contract promises one line"


def test_a_hook_without_arguments_is_called_so() -> None:
    """A hook need not take the context."""

    def register_adapters() -> list[Adapter]:
        return [Acme()]

    assert "acme" in host(acme=plugin(register_adapters=register_adapters)).adapters


def test_a_hook_that_raises() -> None:
    """Which hook of which plugin failed is said."""

    def register_adapters(context: Context) -> list[Adapter]:
        raise KeyError("token")

    with pytest.raises(PluginError, match=r"'acme'.*register_adapters failed: KeyError"):
        host(acme=plugin(register_adapters=register_adapters))


WRONG: list[tuple[str, Any, str]] = [
    ("register_adapters", Acme, "not an object of a subclass of Adapter"),
    ("register_adapters", object(), "object.*Adapter"),
    ("register_adapters", Late(), "Late.*Adapter"),
    ("register_adapters", Newer(), "interface version 2, this gateway speaks 1"),
    ("register_adapters", Nameless(), "no 'name'"),
    ("register_enrichers", Hasty(), "'hasty'.*async def enrich"),
    ("register_destinations", RecordingDestination(), "subclasses of Destination"),
    ("register_destinations", Acme, "subclasses of Destination"),
    ("register_observers", Late(), "Observer"),
]


@pytest.mark.parametrize(("hook", "item", "message"), WRONG)
def test_wrong_items(hook: str, item: Any, message: str) -> None:
    """A wrong type, version, name or a synchronous enricher is refused with plugin and remedy."""
    with pytest.raises(PluginError, match=message) as caught:
        host(acme=giving(hook, item))
    assert str(caught.value).startswith("Plugin 'acme' ((not installed) -)")
    assert 'disabled = ["acme"]' in str(caught.value)


def test_names_are_taken_once() -> None:
    """Two adapters, enrichers or destination types of one name are refused, and the first owner is named."""
    with pytest.raises(PluginError, match=r"'b'.*adapter name 'acme' is already taken by plugin 'a'"):
        host(a=giving("register_adapters", Acme()), b=giving("register_adapters", Acme()))

    class Client(Late):
        name = "client"

    with pytest.raises(PluginError, match="enricher name 'client' is already taken by plugin"):
        host(a=giving("register_enrichers", Client()))
    with pytest.raises(PluginError, match="type 'recording' is already taken"):
        host(
            a=giving("register_destinations", RecordingDestination),
            b=giving("register_destinations", RecordingDestination),
        )


def test_the_order_of_enrichers() -> None:
    """By their own order, or as the configuration says."""
    found = host(a=giving("register_enrichers", Late(), Early()))
    names = [enricher.name for enricher in found.ordered_enrichers(())]
    assert names == ["early", "client", "click_id", "privacy", "bots", "late"]
    chosen = ["privacy", "late", "client"]
    assert [enricher.name for enricher in found.ordered_enrichers(chosen)] == chosen


def test_privacy_cannot_be_left_out_by_accident() -> None:
    """A list of enrichers without the privacy guard is refused; an unknown name too."""
    found = host()
    with pytest.raises(PluginError, match="leaves out 'privacy'"):
        found.ordered_enrichers(["client", "click_id"])
    with pytest.raises(PluginError, match=r"'cleint'.*Known are .*client"):
        found.ordered_enrichers(["cleint", "privacy"])


def test_the_listing() -> None:
    """A plugin is listed with distribution, version, hooks and what it provides."""
    listed = {loaded.name: loaded for loaded in host(["gtm"], a=giving("register_adapters", Acme())).listing()}
    ours = listed["browser_tag"]
    assert (ours.distribution, ours.module) == (OURS, "gateway.plugins.browser_tag")
    assert (ours.provides, ours.hooks, ours.disabled) == (("adapter browser_tag",), ("register_adapters",), False)
    assert ours.version[0].isdigit()
    assert listed["a"].provides == ("adapter acme",)
    assert (listed["gtm"].disabled, listed["gtm"].provides) == (True, ())
    assert list(listed) == sorted(listed)


def test_strangers_are_told_from_ours() -> None:
    """Only what our own distribution registered runs without a thread."""
    found = host(a=giving("register_adapters", Acme()))
    assert found.is_ours(found.adapters["shopify"])
    assert not found.is_ours(found.adapters["acme"])


def test_a_module_with_our_prefix_is_not_ours(install: Callable[..., None]) -> None:
    """A stranger's package called adapters_acme does not count as one of our adapters."""
    Stranger = type("Stranger", (Acme,), {"__module__": "acme_module_evil"})  # noqa: N806
    install(entry("acme", lambda: giving("register_adapters", Stranger()), dist=OURS))
    found = host()
    assert not found.is_ours(found.adapters["acme"])


def test_the_context_reaches_every_hook() -> None:
    """A plugin reads its own table from the context."""
    seen: list[Context] = []

    def register_observers(context: Context) -> list[Any]:
        seen.append(context)
        return []

    context = Context(trusted_proxies=("10.0.0.0/8",), options={"acme": {"a": 1}})
    PluginHost(context, (), {"acme": plugin(register_observers=register_observers)})
    assert seen == [context]
