"""Tealium: webhook connector, HTTP API, utag and mobile payloads."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from adapters.tealium.conversion import item_of
from adapters.tealium.envelope import bodies_of, payload_of
from adapters.tealium.options import Options
from gateway import Adapter, Context, Hit, Normalized, Struct, hookimpl, verify


class Tealium(Adapter):
    """Takes one event or a batch, flat or nested: POST with JSON, or GET with the JSON in the parameter ``data``."""

    name: ClassVar[str] = "tealium"
    side: ClassVar[Literal["server", "public", "either"]] = "either"
    methods: ClassVar[frozenset[str]] = frozenset({"GET", "POST"})
    Options: ClassVar[type[Struct]] = Options

    def verify(self, hit: Hit) -> None:
        """Demand Bearer or Basic of a server source (Tealium signs nothing), an allowed origin of a public one."""
        if hit.source.is_server:
            verify.bearer_or_basic(hit)
        else:
            verify.origin(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """Return one item for each event of the hit."""
        return [item_of(body, hit.source) for body in bodies_of(payload_of(hit))]


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Register the Tealium adapter."""
    return [Tealium()]
