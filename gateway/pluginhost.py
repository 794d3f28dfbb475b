"""
Loads, checks, orders and lists plugins; the only module that touches pluggy.

Start-up is strict: a plugin that cannot be imported, an unknown hook, a name taken twice, a wrong type or interface
version ends the start with one line that names plugin, distribution, version and the remedy. ``[plugins] disabled =
[...]`` or TAG_GATEWAY_DISABLE_PLUGINS (comma-separated) leaves a plugin out.
"""

import importlib.metadata
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pluggy

from gateway import hookspecs
from gateway.audience import AudienceSink, AudienceSource
from gateway.errors import PluginError
from gateway.event import Struct
from gateway.interfaces import API, Adapter, Context, Destination, Enricher, Observer

T = TypeVar("T")
#: The distribution whose adapters run inline; a stranger's run in a thread with a deadline.
OURS = "tag-gateway"


class Loaded(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One plugin, for ``tag-gateway plugins``: ``provides`` are lines such as ``adapter shopify``."""

    name: str
    module: str
    distribution: str
    version: str
    provides: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    disabled: bool = False


class PluginHost:
    """
    All plugins of one process.

    Args:
        context: Given to every hook.
        disabled: Entry-point names to leave out, besides TAG_GATEWAY_DISABLE_PLUGINS.
        extra: Plugins that are not installed (tests, examples): name → module or object.
    """

    def __init__(
        self, context: Context, disabled: Sequence[str] = (), extra: Mapping[str, object] | None = None
    ) -> None:
        self._context = context
        from_environment = os.environ.get("TAG_GATEWAY_DISABLE_PLUGINS", "").split(",")
        self._disabled = {*disabled, *(name.strip() for name in from_environment if name.strip())}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._found: dict[str, Loaded] = {}
        for entry in sorted(importlib.metadata.entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
            self._load(entry)
        for name, plugin in (extra or {}).items():
            self._register(
                name, plugin, Loaded(name=name, module=_module(plugin), distribution="(not installed)", version="-")
            )
        self._check_hooks()
        self._provides: dict[str, list[str]] = {name: [] for name in self._found}
        self.adapters = self._named("register_adapters", Adapter, "adapter")  # type: ignore[type-abstract]
        self.enrichers = self._named("register_enrichers", Enricher, "enricher")  # type: ignore[type-abstract]
        self.destination_types = self._types("register_destinations", Destination, "destination")  # type: ignore[type-abstract]
        self.audience_source_types = self._types("register_audience_sources", AudienceSource, "audience source")  # type: ignore[type-abstract]
        self.audience_sink_types = self._types("register_audience_sinks", AudienceSink, "audience sink")  # type: ignore[type-abstract]
        self.observers = self._named("register_observers", Observer, "observer")  # type: ignore[type-abstract]
        self.routes = [(name, route) for name, route in self._collect("register_routes")]

    def _load(self, entry: importlib.metadata.EntryPoint) -> None:
        dist = entry.dist
        about = Loaded(
            name=entry.name,
            module=entry.value,
            distribution=dist.name if dist else "?",
            version=dist.version if dist else "?",
        )
        if entry.name in self._found:
            other = self._found[entry.name]
            raise PluginError(
                f"Two plugins are named '{entry.name}': {_of(about)} and {_of(other)}. Uninstall one of them."
            )
        if entry.name in self._disabled:
            self._found[entry.name] = Loaded(**{**_fields(about), "disabled": True})
            return
        try:
            plugin = entry.load()
        except Exception as error:  # a stranger's import may fail in any way
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise PluginError(
                f"Plugin '{entry.name}' ({_of(about)}) cannot be loaded: {why}. {_remedy(entry.name)}"
            ) from error
        self._register(entry.name, plugin, about)

    def _register(self, name: str, plugin: object, about: Loaded) -> None:
        self._found[name] = about
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise self._error(name, f"it cannot be registered: {' '.join(str(error).split())}") from error

    def _check_hooks(self) -> None:
        """Refuse a misspelt hook, which pluggy by itself ignores."""
        known = {name for name in dir(hookspecs) if name.startswith("register_")}
        for name, plugin in self._manager.list_name_plugin():
            for attribute in dir(plugin):
                marked = getattr(getattr(plugin, attribute, None), f"{hookspecs.PROJECT}_impl", None)
                if marked is not None and attribute not in known:
                    raise PluginError(
                        f"Plugin '{name}' ({_of(self._found[name])}) has an unknown hook '{attribute}'. "
                        f"Valid are {', '.join(sorted(known))}. {_remedy(name)}"
                    )
            named = [attribute for attribute in dir(plugin) if attribute in known]
            marked = [
                attribute for attribute in named if hasattr(getattr(plugin, attribute), f"{hookspecs.PROJECT}_impl")
            ]
            if not marked or marked != named:
                missing = ", ".join(sorted(set(named) - set(marked))) or "its functions"
                raise self._error(name, f"it has no hook, or an unmarked one: mark {missing} with @hookimpl")

    def _collect(self, hook: str) -> list[tuple[str, Any]]:
        """Call one hook of every plugin, each on its own, so that an exception has a name."""
        collected: list[tuple[str, Any]] = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            try:
                arguments = {"context": self._context} if "context" in implementation.argnames else {}
                result = list(implementation.function(**arguments))
            except Exception as error:  # a stranger's hook may fail in any way
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise self._error(name, f"{hook} failed: {why}") from error
            collected += [(name, item) for item in result]
        return collected

    def _named(self, hook: str, kind: type[T], label: str) -> dict[str, T]:
        """Collect objects that have unique names."""
        found: dict[str, T] = {}
        owners: dict[str, str] = {}
        for plugin, item in self._collect(hook):
            if not isinstance(item, kind):
                raise self._error(
                    plugin, f"{hook} returned a {type(item).__name__}, not an object of a subclass of {kind.__name__}"
                )
            name = self._check_item(plugin, item, "name")
            if name in found:
                raise self._error(plugin, f"the {label} name '{name}' is already taken by plugin '{owners[name]}'")
            if isinstance(item, Enricher) and inspect.iscoroutinefunction(item.enrich) is False:
                raise self._error(plugin, f"the enricher '{name}' must define 'async def enrich'")
            found[name], owners[name] = item, plugin
            self._provides[plugin].append(f"{label} {name}")
        return found

    def _types(self, hook: str, kind: type[T], label: str) -> dict[str, type[T]]:
        """Collect classes that have unique types."""
        found: dict[str, type[T]] = {}
        for plugin, item in self._collect(hook):
            if not (isinstance(item, type) and issubclass(item, kind)):
                raise self._error(plugin, f"{hook} must return subclasses of {kind.__name__}, not objects")
            name = self._check_item(plugin, item, "type")
            if name in found:
                raise self._error(plugin, f"the {label} type '{name}' is already taken")
            found[name] = item
            self._provides[plugin].append(f"{label} {name}")
        return found

    def _check_item(self, plugin: str, item: Any, attribute: str) -> str:
        if getattr(item, "api", None) != API:
            raise self._error(
                plugin, f"it speaks interface version {getattr(item, 'api', None)}, this gateway speaks {API}"
            )
        name = getattr(item, attribute, None)
        if not isinstance(name, str) or not name:
            raise self._error(plugin, f"{item!r} has no '{attribute}'")
        return name

    def _error(self, plugin: str, what: str) -> PluginError:
        return PluginError(f"Plugin '{plugin}' ({_of(self._found[plugin])}): {what}. {_remedy(plugin)}")

    def is_ours(self, item: object) -> bool:
        """Whether the object comes from our own distribution and so runs inline."""
        module = type(item).__module__
        return any(
            about.distribution == OURS and (module == about.module or module.startswith(about.module + "."))
            for about in self._found.values()
        )

    def ordered_enrichers(self, names: Sequence[str]) -> list[Enricher]:
        """
        Return the enrichers in the order of the configuration, or by their own.

        Raises:
            PluginError: A name that no plugin has, or a privacy enricher left out.
        """
        if not names:
            return sorted(self.enrichers.values(), key=lambda enricher: (enricher.order, enricher.name))
        missing = [name for name in names if name not in self.enrichers]
        if missing:
            known = ", ".join(sorted(self.enrichers))
            raise PluginError(
                f"[pipeline] enrichers names '{missing[0]}', which no plugin provides. Known are {known}."
            )
        for enricher in self.enrichers.values():
            if enricher.on_error == "refuse" and enricher.name not in names:
                raise PluginError(
                    f"[pipeline] enrichers leaves out '{enricher.name}', which guards privacy. "
                    "Add it, or disable its plugin."
                )
        return [self.enrichers[name] for name in names]

    def listing(self) -> list[Loaded]:
        """Return every plugin with version, hooks and what it provides."""
        listed = []
        for name, about in sorted(self._found.items()):
            plugin = self._manager.get_plugin(name)
            callers: Sequence[Any] = self._manager.get_hookcallers(plugin) or () if plugin is not None else ()
            listed.append(
                Loaded(
                    **{
                        **_fields(about),
                        "provides": tuple(self._provides[name]),
                        "hooks": tuple(sorted(caller.name for caller in callers)),
                    }
                )
            )
        return listed


def _fields(about: Loaded) -> dict[str, Any]:
    return {field: getattr(about, field) for field in about.__struct_fields__}


def _of(about: Loaded) -> str:
    return f"{about.distribution} {about.version}"


def _module(plugin: object) -> str:
    return getattr(plugin, "__name__", type(plugin).__module__)


def _remedy(name: str) -> str:
    return f'Mend or upgrade it, or leave it out with [plugins] disabled = ["{name}"].'
