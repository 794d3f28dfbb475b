"""The cart's token: what a visit and the order that came of it have in common before there is a checkout."""

import re
from typing import Any
from urllib.parse import unquote

from gateway import coerce

#: ``gid://shopify/Cart/TOKEN?key=SECRET`` of the Storefront API, or the cookie's ``TOKEN?key=SECRET``.
_LONG = re.compile(r"(?:gid://shopify/Cart/)?([A-Za-z0-9_-]{1,128})(?:\?.*)?", re.DOTALL)


def cart_token(value: Any) -> str | None:
    """
    Return the token that a webhook calls ``cart_token``, None for what is none.

    Source: Shopify, REST Admin API, Order ``cart_token``; Web Pixels API and Storefront API, Cart ``id``, which names
        the same token and may carry the cart's key. The key opens the cart: it is cut off.
    """
    found = coerce.text(value)
    if found is None:
        return None
    match = _LONG.fullmatch(unquote(found))
    return None if match is None else match[1]
