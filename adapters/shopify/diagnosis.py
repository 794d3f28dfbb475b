"""
Why a signature failed, for the operator: a code for the hit's log line and the metrics, and a log line with the remedy.

The answer to the sender never tells it, for it would help whoever tries signatures. A search costs at most a few
milliseconds, and is made once a second for each source: a flood of wrong signatures buys no more.
"""

import base64
import binascii
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway import Hit, Rejected, Secret, Source, json_body, verify

_log = logging.getLogger("gateway.shopify")
#: Larger bodies are not searched.
_SEARCHED_BYTES = 131_072
#: Other sources whose secrets are tried, at most.
_OTHERS = 50
_EVERY_S = 1.0
_DIGEST_BYTES = 32
_QUOTES = " \t\r\n\"'"

#: Each cause and what to do; ``docs/shopify.md`` has the same codes.
CAUSES: Mapping[str, str] = {
    "no_signature": "No X-Shopify-Hmac-Sha256 header arrived: a proxy removes it, or the sender is not Shopify.",
    "empty_body": "The body arrived empty: a proxy or redirect in front of the gateway loses it.",
    "hex_signature": "The digest is right, but in hexadecimal: Shopify sends base64, pass the header on unchanged.",
    "not_a_signature": "The header holds no base64 SHA-256: pass it on unchanged, or the sender is not Shopify.",
    "padded_secret": "The configured secret has blanks or quotes around it: set it without.",
    "other_source": "It is signed with another source's secret: send it to that source's path, or swap the secrets.",
    "whitespace": "Blanks at an end of the body were added or removed on the way: pass on the exact bytes.",
    "rewritten_body": "The JSON was parsed and written anew on the way: pass on the exact bytes.",
    "large_body": "The body is too large for a search; see the causes of smaller ones.",
    "wrong_secret": "It is signed with a secret that no source has, or the body was changed: compare the source's "
    "secret with the app's client secret, or for webhooks made in the admin with the key shown there.",
}  # fmt: skip


class Diagnosis:
    """Finds causes; knows the secrets of every source of the adapter, to recognise one at the wrong source."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._searched_at: dict[str, float] = {}

    def know(self, source: Source) -> None:
        """Remember a source: called while the configuration is read."""
        self._sources[source.name] = source

    def cause(self, hit: Hit, given: str) -> str:
        """Return the code of the likely cause, and log its remedy; "" when the source had its search this second."""
        name = hit.source.name
        before = self._searched_at.get(name)
        if before is not None and before <= hit.received_at < before + _EVERY_S:
            return ""
        self._searched_at[name] = hit.received_at
        found, other = self._search(hit, given)
        extra = {"source": name, "cause": found, "remedy": CAUSES[found]}
        _log.warning("signature_refused", extra=extra if other is None else {**extra, "signed_for": other})
        return found

    def _search(self, hit: Hit, given: str) -> tuple[str, str | None]:
        """Return cause and, where another source's secret fits, that source's name."""
        secrets = hit.source.secrets
        if not given:
            return "no_signature", None
        if not hit.body:
            return "empty_body", None
        if len(hit.body) > _SEARCHED_BYTES:
            return "large_body", None
        if verify.hmac_sha256(hit.body, _from_hex(given), secrets):
            return "hex_signature", None
        if not _is_digest(given):
            return "not_a_signature", None
        if verify.hmac_sha256(hit.body, given, _trimmed(secrets)):
            return "padded_secret", None
        others = [source for source in self._sources.values() if source.name != hit.source.name]
        for other in others[:_OTHERS]:
            if verify.hmac_sha256(hit.body, given, other.secrets):
                return "other_source", other.name
        for cause, form in _forms(hit.body):
            if verify.hmac_sha256(form, given, secrets):
                return cause, None
        return "wrong_secret", None


def _from_hex(given: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(given)).decode()
    except ValueError:
        return ""


def _is_digest(given: str) -> bool:
    try:
        return len(base64.b64decode(given.encode("ascii"), validate=True)) == _DIGEST_BYTES
    except (binascii.Error, ValueError):
        return False


def _trimmed(secrets: Iterable[Secret]) -> list[Secret]:
    """Return the secrets without blanks and quotes, those that have some."""
    trimmed = [Secret(value=secret.value.strip(_QUOTES)) for secret in secrets]
    return [one for one, secret in zip(trimmed, secrets, strict=True) if len(one.value) < len(secret.value)]


def _forms(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what the body may have been before it was changed on the way, each with the cause that it would prove."""
    yield "whitespace", body.strip()
    yield "whitespace", body + b"\n"
    try:
        value = json_body(body)
    except Rejected:
        return
    for form in _written(value):
        yield "rewritten_body", form.encode("utf-8", "surrogatepass")


def _written(value: Any) -> Iterator[str]:
    """Yield the JSON as Shopify, Ruby, JavaScript and Python write it."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    as_sent = plain.replace("/", "\\/").replace("&", "\\u0026")
    escaped = as_sent.replace("<", "\\u003c").replace(">", "\\u003e")
    yield from (plain, as_sent, escaped, escaped.replace("\\/", "/"))
    yield json.dumps(value, separators=(",", ":"))
    yield json.dumps(value)
