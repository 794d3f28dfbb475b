"""Proofs of authenticity: constant time, several secrets, and closed by default."""

import ast
import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from gateway import Hit, Rejected, Secret, Source, verify

ROOT = Path(__file__).parent.parent
SERVER = Source(
    name="api",
    adapter="a",
    site="s",
    destinations=("p",),
    secrets=(Secret(value="old-one"), Secret(value="user:pass-word")),
)
OPEN = Source(name="none", adapter="a", site="s", destinations=("p",))
PUBLIC = Source(
    name="tag",
    adapter="a",
    site="s",
    destinations=("p",),
    allowed_origins=("https://shop.com", "null", "http://localhost:3000", "https://[2001:db8::1]:8443"),
)


def hit(source: Source, **headers: str) -> Hit:
    return Hit(source=source, headers={name.replace("_", "-"): value for name, value in headers.items()})


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize("header", ["Bearer old-one", "bearer old-one", "BEARER  old-one ", "Bearer user:pass-word"])
def test_bearer(header: str) -> None:
    """Any of the source's secrets opens, whatever the case of the scheme."""
    verify.bearer(hit(SERVER, authorization=header))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer old",
        "Bearer old-one2",
        "Bearer OLD-ONE",
        "Basic old-one",
        "old-one",
        "Bearer Zoë",
    ],
)
def test_bearer_refuses(header: str) -> None:
    """A missing, shorter, longer or other secret is a 401 with a hint, and never the secret."""
    with pytest.raises(Rejected) as caught:
        verify.bearer(hit(SERVER, authorization=header))
    assert (caught.value.status, caught.value.reason) == (401, "unauthorized")
    assert "Bearer" in caught.value.hint
    assert "old-one" not in caught.value.hint + caught.value.message


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer x", "Bearer None"])
def test_a_source_without_a_secret_refuses(header: str) -> None:
    """Without a secret nothing is proven, so nothing passes."""
    with pytest.raises(Rejected, match="not authorised"):
        verify.bearer(hit(OPEN, authorization=header))


@pytest.mark.parametrize(
    "header", ["Bearer old-one", basic("anyone:old-one"), basic(":old-one"), basic("user:pass-word")]
)
def test_bearer_or_basic(header: str) -> None:
    """HTTP Basic opens with the secret as password or as the whole pair."""
    verify.bearer_or_basic(hit(SERVER, authorization=header))


@pytest.mark.parametrize(
    "header",
    [basic("old-one:x"), basic("user:other"), "Basic ???", "Basic", "", basic(""), "Digest x", basic("pass-word")],
)
def test_bearer_or_basic_refuses(header: str) -> None:
    """The secret as user name, half a pair and broken base64 are refused."""
    with pytest.raises(Rejected) as caught:
        verify.bearer_or_basic(hit(SERVER, authorization=header))
    assert caught.value.status == 401


def test_hmac() -> None:
    """The base64 HMAC of exactly these bytes under any live secret is right; another body, secret or coding is not."""
    body = b'{"id": 1}'
    for secret in SERVER.secrets:
        digest = hmac.new(secret.value.encode(), body, hashlib.sha256).digest()
        signature = base64.b64encode(digest).decode()
        assert verify.hmac_sha256(body, signature, SERVER.secrets)
        assert not verify.hmac_sha256(body + b" ", signature, SERVER.secrets)
        assert not verify.hmac_sha256(body, digest.hex(), SERVER.secrets)
        assert not verify.hmac_sha256(body, signature[:-4], SERVER.secrets)
        assert not verify.hmac_sha256(body, signature, [Secret(value="other")])
        assert not verify.hmac_sha256(body, signature, [])
    assert not verify.hmac_sha256(body, "", SERVER.secrets)
    assert not verify.hmac_sha256(body, "ÿ", SERVER.secrets)


def test_matches_looks_at_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A match does not end the comparison early: time does not tell which secret it was."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert verify.matches("old-one", SERVER.secrets)
    assert len(compared) == 2


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.com",
        "HTTPS://Shop.COM",
        "https://shop.com:443",
        "null",
        "http://localhost:3000",
        "https://[2001:DB8::1]:8443",
    ],
)
def test_allowed_origins(origin: str) -> None:
    """An allowed origin passes in any case, with or without the default port; null only where it is allowed."""
    verify.origin(hit(PUBLIC, origin=origin))


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.com.evil.io",
        "https://evil-shop.com",
        "https://evil.io/https://shop.com",
        "http://shop.com",
        "https://shop.com:8443",
        "https://www.shop.com",
        "https://shop.com@evil.io",
        "http://localhost",
        "http://localhost:3001",
        "shop.com",
        "https://",
        "https://shop.com:99999",
        "https://[::1",
        "garbage",
        "NULL",
        "https://shop.com, https://evil.io",
        "https://shop.com.",
    ],
)
def test_forbidden_origins(origin: str) -> None:
    """Suffix and prefix tricks, other ports and schemes are refused with the remedy."""
    with pytest.raises(Rejected) as caught:
        verify.origin(hit(PUBLIC, origin=origin))
    assert (caught.value.status, caught.value.reason) == (403, "forbidden_origin")
    assert "[sources.tag] allowed_origins" in caught.value.hint
    assert origin not in caught.value.message


def test_null_must_be_allowed() -> None:
    """A sandboxed frame's null passes only where the configuration says so."""
    other = Source(name="t", adapter="a", site="s", destinations=("p",), allowed_origins=("https://shop.com",))
    with pytest.raises(Rejected):
        verify.origin(hit(other, origin="null"))


def test_referer_stands_in_for_a_missing_origin_only() -> None:
    """Without an Origin the Referer decides; with one it does not; without both the hit passes."""
    verify.origin(hit(PUBLIC, referer="https://shop.com/p?x=1"))
    verify.origin(hit(PUBLIC))
    with pytest.raises(Rejected):
        verify.origin(hit(PUBLIC, referer="https://evil.io/shop.com"))
    with pytest.raises(Rejected):
        verify.origin(hit(PUBLIC, referer="garbage"))
    with pytest.raises(Rejected):
        verify.origin(hit(PUBLIC, origin="https://evil.io", referer="https://shop.com/p"))


def test_authenticate_by_the_side_of_the_source() -> None:
    """A server source needs its secret even with a good origin; a source with neither lets nobody in from a page."""
    with pytest.raises(Rejected) as caught:
        verify.authenticate(hit(SERVER, origin="https://shop.com"))
    assert caught.value.status == 401
    verify.authenticate(hit(SERVER, authorization="Bearer old-one"))
    verify.authenticate(hit(PUBLIC, origin="https://shop.com"))
    with pytest.raises(Rejected):
        verify.authenticate(hit(OPEN, origin="https://shop.com"))


def test_no_proof_is_compared_with_equals() -> None:
    """Nothing in the code compares a secret, signature or digest with == or `in`: time would tell it."""
    found = []
    for path in [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        if {"sandbox", "testing", "commands", "adapter_template"} & set(path.relative_to(ROOT).parts):
            continue  # the stand-ins hold no secret worth guarding
        if path.parent.name == "outbox":
            continue  # a lease's token is no proof: nobody outside can present one
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare) or all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
                continue
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) for side in sides):
                continue
            if any(_is_proof(side) for side in sides):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert found == [], "compare with gateway.verify.matches or hmac.compare_digest"


def _is_proof(node: ast.expr) -> bool:
    """Whether the expression names a value that proves something (a store's row digest proves nothing)."""
    if isinstance(node, ast.Attribute):
        if node.attr == "value" and isinstance(node.value, ast.Name):
            return "secret" in node.value.id
        return node.attr in ("password", "signature", "token")
    return isinstance(node, ast.Name) and node.id in ("secret", "signature", "password", "given_secret", "token")
