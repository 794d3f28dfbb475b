"""
Shopify's proof of authenticity, and the likely cause when it fails.

Source: Shopify, webhooks/verify-deliveries: base64 of HMAC-SHA256 over the exact body bytes under the app's
client secret. Headers are not covered by it: whoever replays a genuine body can forge topic
and shop.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any, NoReturn

from gateway import Hit, Rejected, json_body, verify

_HEX = frozenset("0123456789abcdefABCDEF")
#: Larger bodies are refused without a search for the cause: a wrong signature must not buy much work.
_DIAGNOSED_BYTES = 131_072


def header(hit: Hit, name: str) -> str:
    """Return a Shopify header by its bare name; newer deliveries leave out the ``X-``."""
    return hit.header(f"x-shopify-{name}") or hit.header(f"shopify-{name}")


def demand(hit: Hit) -> None:
    """
    Demand a valid signature over the body.

    Raises:
        Rejected: 401 ``unauthorized``; its hint names the likely cause.
    """
    given = header(hit, "hmac-sha256").strip()
    if not given or not verify.hmac_sha256(hit.body, given, hit.source.secrets):
        _refuse(_cause(hit, given))


def _refuse(hint: str) -> NoReturn:
    raise Rejected("unauthorized", "The webhook's signature is missing or wrong.", status=401, hint=hint)


def _cause(hit: Hit, given: str) -> str:
    if not given:
        return (
            "No X-Shopify-Hmac-Sha256 header arrived. Only Shopify's own webhooks can be sent here; "
            "if one was, a proxy in front of the gateway removes the header."
        )
    if not hit.body:
        return "The body arrived empty: a proxy or redirect in front of the gateway loses it. Pass it on."
    if len(given) == 64 and _HEX.issuperset(given) and _signs(hit, hit.body, bytes.fromhex(given)):
        return "The signature is the right digest, in hexadecimal. Shopify sends base64: pass the header on."
    if len(hit.body) <= _DIAGNOSED_BYTES and _was_rewritten(hit, given):
        return (
            "The signature fits this JSON, but not these bytes: a proxy or framework in front of the gateway "
            "parsed the body and wrote it anew. Pass on the exact bytes."
        )
    return (
        "The signature was made with another secret. For webhooks of an app, source "
        f"'{hit.source.name}' needs the app's client secret (not its access token); for webhooks made in the "
        "admin, the signing key under Settings → Notifications → Webhooks. Or another shop or app sends here."
    )


def _signs(hit: Hit, body: bytes, digest: bytes) -> bool:
    return verify.hmac_sha256(body, base64.b64encode(digest).decode(), hit.source.secrets)


def _was_rewritten(hit: Hit, given: str) -> bool:
    """Try the forms that the body may have had before it was parsed: always all of them."""
    try:
        value = json_body(hit.body)
    except Rejected:
        return False
    found = False
    for form in _forms(value, hit.body):
        found |= verify.hmac_sha256(form, given, hit.source.secrets)
    return found


def _forms(value: Any, body: bytes) -> Iterator[bytes]:
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    as_sent = plain.replace("/", "\\/").replace("&", "\\u0026")
    escaped = as_sent.replace("<", "\\u003c").replace(">", "\\u003e")
    for form in (plain, as_sent, escaped, escaped.replace("\\/", "/")):
        yield form.encode("utf-8", "surrogatepass")
    yield json.dumps(value, separators=(",", ":")).encode()
    yield body.strip()
