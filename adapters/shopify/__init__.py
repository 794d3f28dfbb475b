"""
Shopify: signed webhooks (``shopify``) and the shop's custom pixel (``shopify_pixel``).

Two adapters, because one proves where a hit comes from and the other cannot: they share a site, never a
source.
"""

from collections.abc import Sequence

from adapters.shopify.customer_event import PixelOptions
from adapters.shopify.order import WebhookOptions
from adapters.shopify.pixel import ShopifyPixelAdapter
from adapters.shopify.webhook import ShopifyAdapter
from gateway import Adapter, Context, hookimpl

__all__ = ["PixelOptions", "ShopifyAdapter", "ShopifyPixelAdapter", "WebhookOptions", "register_adapters"]


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Offer both adapters."""
    return [ShopifyAdapter(), ShopifyPixelAdapter()]
