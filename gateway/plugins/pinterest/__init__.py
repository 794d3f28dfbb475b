"""
Pinterest, as described by OpenAPI 5.23.0: a destination (the Conversions API, ``events/create``), and a sink of
audiences (customer lists and the audiences made from them).
"""

from collections.abc import Sequence

from gateway import AudienceSink, Context, Destination, hookimpl
from gateway.plugins.pinterest.audiences import PinterestAudiences
from gateway.plugins.pinterest.destination import Pinterest

__all__ = ["Pinterest", "PinterestAudiences", "register_audience_sinks", "register_destinations"]


@hookimpl
def register_destinations(context: Context) -> Sequence[type[Destination]]:  # noqa: ARG001 - the hook's signature
    """Register the destination type ``pinterest``."""
    return [Pinterest]


@hookimpl
def register_audience_sinks(context: Context) -> Sequence[type[AudienceSink]]:  # noqa: ARG001 - the hook's signature
    """Register the sink type ``pinterest``."""
    return [PinterestAudiences]
