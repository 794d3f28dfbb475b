"""Which shop a hit comes from, and whether it is the source's."""

import re
from typing import Any

from adapters.shopify.signature import header
from gateway import Hit, Rejected, Source, coerce

_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.IGNORECASE)


def wrong_option(source: Source) -> str | None:
    """Say what is wrong with the option ``shop``."""
    shop = source.options.shop
    if shop is None or _HOST.fullmatch(shop):
        return None
    return "options.shop must be the bare domain, such as example.myshopify.com: no https://, no path"


def domain_of(hit: Hit) -> str | None:
    """Return the domain that the delivery names, else the configured one."""
    named = header(hit, "shop-domain").strip().lower()
    wanted: str | None = hit.source.options.shop
    return named if _HOST.fullmatch(named) else wanted


def is_same(one: Any, other: str) -> bool:
    """Whether a domain that somebody named is the other one, in any case."""
    return (coerce.text(one) or "").rstrip(".").lower() == other.strip().rstrip(".").lower()


def refuse(source: Source, where: str) -> Rejected:
    """Return the refusal of another shop's hit; ``where`` names the field that told it."""
    return Rejected(
        "wrong_shop",
        f"{where} names another shop than this source serves.",
        status=403,
        hint=f"Give each shop a source of its own, or correct options.shop of [sources.{source.name}] "
        "(the shop's ….myshopify.com domain).",
    )
