"""
Shopify's proof of authenticity.

Source: Shopify, webhooks/verify-deliveries: base64 of HMAC-SHA256 over the exact body bytes under the app's
client secret. Headers are not covered by it: whoever replays a genuine body can forge topic
and shop.
"""

from adapters.shopify.diagnosis import Diagnosis
from gateway import Hit, Rejected, verify

_MESSAGE = "The webhook's signature is missing or wrong."
#: The same for every cause: which one it was is for the operator, not for whoever tries signatures.
_HINT = (
    "X-Shopify-Hmac-Sha256 must be the base64 HMAC-SHA256 of exactly these bytes under the source's secret. "
    "The gateway's log and metrics say what is wrong: see docs/shopify.md."
)


def header(hit: Hit, name: str) -> str:
    """Return a Shopify header by its bare name; newer deliveries leave out the ``X-``."""
    return hit.header(f"x-shopify-{name}") or hit.header(f"shopify-{name}")


def demand(hit: Hit, diagnosis: Diagnosis) -> None:
    """
    Demand a valid signature over the body.

    Raises:
        Rejected: 401 ``unauthorized``, the same for every cause but for its ``cause``.
    """
    given = header(hit, "hmac-sha256").strip()
    if not given or not verify.hmac_sha256(hit.body, given, hit.source.secrets):
        raise Rejected("unauthorized", _MESSAGE, status=401, hint=_HINT, cause=diagnosis.cause(hit, given))
