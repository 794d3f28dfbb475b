"""What may stand under ``[sources.NAME.options]``."""

from typing import Literal

from gateway import Source, Struct


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Options of a Tealium source.

    Args:
        value: Which order variable is the event's value: ``subtotal`` (before tax and shipping) or ``total``; the other
            one is used where the chosen one is missing.
        content_id: Which product variable holds the catalogue's ids; the others are used where it is missing.
    """

    value: Literal["subtotal", "total"] = "subtotal"
    content_id: Literal["product_id", "product_main_id", "product_sku"] = "product_id"


def options_of(source: Source) -> Options:
    """Return the source's options, the defaults where it has none."""
    return source.options if isinstance(source.options, Options) else Options()
