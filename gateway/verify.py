"""
The usual proofs of authenticity, for :meth:`gateway.interfaces.Adapter.verify`.

All compare in constant time, accept several live secrets (rotation), and fail closed: a source without a secret
refuses.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable
from urllib.parse import unquote_plus, urlsplit

from gateway.errors import Rejected
from gateway.hit import Hit, Secret

#: Parameters of a query that are looked at for a secret.
_URL_PARAMETERS = 20


def matches(given: str | bytes, secrets: Iterable[Secret]) -> bool:
    """Whether ``given`` is one of the secrets; looks at every one of them, in constant time each."""
    candidate = given if isinstance(given, bytes) else given.encode("utf-8", "surrogatepass")
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(candidate, secret.value.encode())
    return found


def bearer(hit: Hit) -> None:
    """
    Demand ``Authorization: Bearer <secret>``.

    Raises:
        Rejected: 401 ``unauthorized``.
    """
    scheme, _, token = hit.header("authorization").partition(" ")
    if scheme.lower() == "bearer" and matches(token.strip(), hit.source.secrets):
        return
    _refuse_secret(hit, "Authorization: Bearer <secret>")


def bearer_or_basic(hit: Hit) -> None:
    """
    Demand ``Authorization: Bearer <secret>``, or HTTP Basic with the secret as its password or as ``user:password``.

    Raises:
        Rejected: 401 ``unauthorized``.
    """
    scheme, _, value = hit.header("authorization").partition(" ")
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            pair = b""
        password = pair.partition(b":")[2]
        if matches(pair, hit.source.secrets) | matches(password, hit.source.secrets):
            return
        _refuse_secret(hit, "HTTP Basic with the source's secret as the password")
    bearer(hit)


def _refuse_secret(hit: Hit, form: str) -> None:
    given = hit.header("authorization")
    if not given:
        hint = f"No Authorization header arrived. Send {form}: one in the URL is never read, and stays in logs."
        cause = "secret_in_url" if _in_url(hit) else "no_secret"
    else:
        hint = f"The secret is not one of source '{hit.source.name}'. Compare it with gateway.toml; send {form}."
        cause = "wrong_secret"
    raise Rejected("unauthorized", "The request is not authorised for this source.", status=401, hint=hint, cause=cause)


def _in_url(hit: Hit) -> bool:
    """Whether one of the first parameters of the query is a live secret, which proxies have logged by now."""
    pairs = [pair.partition("=")[2] for pair in hit.query.split("&", _URL_PARAMETERS)[:_URL_PARAMETERS]]
    found = False
    for value in pairs:
        found |= matches(unquote_plus(value), hit.source.secrets)
    return found


def hmac_sha256(body: bytes, signature: str, secrets: Iterable[Secret]) -> bool:
    """Whether ``signature`` is the base64 HMAC-SHA256 of exactly these bytes under one of the secrets."""
    try:
        given = base64.b64decode(signature.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        given = b""
    found = False
    for secret in secrets:
        expected = hmac.digest(secret.value.encode(), body, "sha256")
        found |= hmac.compare_digest(given, expected)
    return found


def origin_of(url: str) -> str | None:
    """Return ``scheme://host[:port]`` of a URL in lower case, without a default port; None when it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname:
        return None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" if port in (None, default) else f"{parts.scheme}://{host}:{port}"


def origin(hit: Hit) -> None:
    """
    Demand that a browser's hit comes from one of the source's ``allowed_origins``.

    Without an Origin the Referer counts; without both the hit passes (server-side renderers and privacy browsers send
    neither).

    Raises:
        Rejected: 403 ``forbidden_origin``.
    """
    given = hit.header("origin")
    if given:
        candidate = given if given == "null" else origin_of(given)
    else:
        referer = hit.header("referer")
        if not referer:
            return
        candidate = origin_of(referer)
    if candidate not in hit.source.allowed_origins:
        raise Rejected(
            "forbidden_origin",
            "This origin may not send to this source.",
            status=403,
            hint=f"Add the page's origin (scheme://host[:port]) to [sources.{hit.source.name}] allowed_origins.",
        )


def authenticate(hit: Hit) -> None:
    """Demand the secret of a server source, or an allowed origin of a public one."""
    if hit.source.is_server:
        bearer(hit)
    else:
        origin(hit)
