"""Pinterest as a destination: the Conversions API, ``events/create``, as described by OpenAPI 5.23.0."""

from collections.abc import Sequence

from gateway import Context, Destination, hookimpl
from gateway.plugins.pinterest.destination import Pinterest

__all__ = ["Pinterest", "register_destinations"]


@hookimpl
def register_destinations(context: Context) -> Sequence[type[Destination]]:  # noqa: ARG001 - the hook's signature
    """Register the destination type ``pinterest``."""
    return [Pinterest]
