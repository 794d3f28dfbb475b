"""
The hooks: seven questions that the gateway asks each plugin once, at start-up.

A plugin is a module (or object) found through the entry-point group ``tag_gateway``, with functions of these names
marked by :data:`hookimpl`. Each is called synchronously with one argument, ``context``, and returns a sequence of
objects; the pipeline then calls those objects. A function with a hook's mark but an unknown name is a start-up error.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from gateway.audience import AudienceSink, AudienceSource
    from gateway.interfaces import Adapter, Context, Destination, Enricher, Observer

PROJECT = "tag_gateway"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_adapters(context: "Context") -> "Sequence[Adapter]":  # type: ignore[empty-body]
    """Return adapters: what turns a platform's hits into events."""


@hookspec
def register_enrichers(context: "Context") -> "Sequence[Enricher]":  # type: ignore[empty-body]
    """Return enrichers: what completes events; they run by ``[pipeline] enrichers`` or by their ``order``."""


@hookspec
def register_destinations(context: "Context") -> "Sequence[type[Destination]]":  # type: ignore[empty-body]
    """Return destination classes: the host makes one object for each ``[destinations.NAME]`` of that type."""


@hookspec
def register_audience_sources(context: "Context") -> "Sequence[type[AudienceSource]]":  # type: ignore[empty-body]
    """Return classes of places that keep lists or segments: one object for each ``[audience_sources.NAME]``."""


@hookspec
def register_audience_sinks(context: "Context") -> "Sequence[type[AudienceSink]]":  # type: ignore[empty-body]
    """Return classes of places that keep audiences: one object for each ``[audience_sinks.NAME]``."""


@hookspec
def register_observers(context: "Context") -> "Sequence[Observer]":  # type: ignore[empty-body]
    """Return observers of settled events."""


@hookspec
def register_routes(context: "Context") -> "Sequence[BaseRoute]":  # type: ignore[empty-body]
    """Return Starlette routes for the operator's listener; they are served behind its password, under ``/plugins/``."""
