"""Sign-ins: the tokens' file, the code flow with PKCE, and refreshing with rotation, at both stand-ins."""

import asyncio
import base64
import hashlib
import logging
import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import msgspec
import pytest

from gateway import AudienceError, Context, OAuth, OAuthApp, Secret, Unreachable
from gateway.oauth import MARGIN_S, new_verifier
from gateway.testing.doubles import NOW
from gateway.tokens import TokenFile, Tokens, token_path
from tests.harness.vendors import Scripted, Time, answer

SECRETS = ("access-1", "access-2", "refresh-1", "refresh-2", "app-secret", "the-code", "the-verifier")
GRANT = {"access_token": "access-1", "token_type": "bearer", "expires_in": 3600, "scope": "a b"}
FIRST = {**GRANT, "refresh_token": "refresh-1", "refresh_token_expires_in": 5_184_000}
SECOND = {**FIRST, "access_token": "access-2", "refresh_token": "refresh-2"}


def oauth(folder: Path, http: Scripted, time: Time | None = None, *, pkce: bool = True) -> OAuth:
    """Return a sign-in at a vendor that gives prepared answers."""
    app = OAuthApp(
        vendor="Vendor",
        where="[audience_sinks.v]",
        client_id="app-id",
        client_secret=Secret(value="app-secret"),
        authorize_url="https://vendor.example/oauth/",
        token_url="https://api.vendor.example/oauth/token",
        scope="a b",
        pkce=pkce,
        extra={"continuous_refresh": "true"},
    )
    return OAuth(app, folder / "var" / "v.tokens.json", Context(http=http, clock=time or Time()))


def complete(signing: OAuth) -> None:
    """Exchange a code."""
    asyncio.run(signing.complete("the-code", "http://127.0.0.1:8081/cb", "the-verifier"))


# -- the file


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 600 in a folder of mode 700, whatever the umask, and nothing else left behind."""
    before = os.umask(0)
    try:
        file = TokenFile(tmp_path / "new" / "t.json")
        file.write(Tokens(access=Secret(value="access-1")))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [found.name for found in file.path.parent.iterdir()] == ["t.json"]


def test_a_file_that_others_may_read_is_closed(tmp_path: Path) -> None:
    """A file that came from a copy with a wide mode is narrowed when it is read."""
    file = TokenFile(tmp_path / "t.json")
    file.write(Tokens(access=Secret(value="access-1")))
    file.path.chmod(0o644)
    assert TokenFile(file.path).read() is not None
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_another_process_s_sign_in_is_seen(tmp_path: Path) -> None:
    """The file is read again when it was replaced, and forgotten when it was removed."""
    mine, other = TokenFile(tmp_path / "t.json"), TokenFile(tmp_path / "t.json")
    assert mine.read() is None
    for name in ("access-1", "access-2"):
        other.write(Tokens(access=Secret(value=name)))
        tokens = mine.read()
        assert tokens is not None
        assert tokens.access.value == name
    other.remove()
    assert mine.read() is None


def test_a_kill_between_leaves_the_old_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file takes the old one's place in one step: when that fails the old one is whole and alone."""
    file = TokenFile(tmp_path / "t.json")
    file.write(Tokens(access=Secret(value="access-1")))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AudienceError, match="No space left"):
        file.write(Tokens(access=Secret(value="access-2")))
    tokens = file.read()
    assert tokens is not None
    assert tokens.access.value == "access-1"
    assert [found.name for found in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"access": "access-1"}', b"\xff"])
def test_a_damaged_file_is_named_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    """The message says which file and what to do."""
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(AudienceError, match=r"t\.json holds no tokens: remove it") as caught:
        TokenFile(tmp_path / "t.json").read()
    assert "access-1" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_where_the_file_is(tmp_path: Path) -> None:
    """Beside the store, unless configured: then relative to the configuration file."""
    context = Context(folder=tmp_path / "etc", state=tmp_path / "var")
    assert token_path(context, "", "audience-sink-p") == tmp_path / "var" / "audience-sink-p.tokens.json"
    assert token_path(context, "keys/p.json", "p") == tmp_path / "etc" / "keys" / "p.json"
    assert token_path(context, str(tmp_path / "p.json"), "p") == tmp_path / "p.json"


def test_tokens_hide_themselves() -> None:
    """No token in repr."""
    assert "access-1" not in repr(Tokens(access=Secret(value="access-1"), refresh=Secret(value="refresh-1")))


# -- the flow


def test_the_address_for_the_browser(tmp_path: Path) -> None:
    """Code flow with state, and the challenge of the verifier (RFC 7636, appendix B's example), never the verifier."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    url = oauth(tmp_path, Scripted()).authorize_url("http://127.0.0.1:8081/cb?a=1", "s&1", verifier)
    assert url.startswith("https://vendor.example/oauth/?")
    assert dict(parse_qsl(urlsplit(url).query)) == {
        "client_id": "app-id",
        "redirect_uri": "http://127.0.0.1:8081/cb?a=1",
        "response_type": "code",
        "scope": "a b",
        "state": "s&1",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    assert "challenge" not in oauth(tmp_path, Scripted(), pkce=False).authorize_url("http://x", "s")


def test_verifiers_are_random_and_long_enough() -> None:
    """43 characters at least (RFC 7636, 4.1), never twice."""
    found = {new_verifier() for _ in range(50)}
    assert len(found) == 50
    assert all(len(one) >= 43 for one in found)


def test_a_code_is_exchanged_and_the_tokens_kept(tmp_path: Path) -> None:
    """HTTP Basic, a form with the code and the verifier; afterwards the token is used without asking again."""
    http = Scripted(answer(200, FIRST))
    signing = oauth(tmp_path, http)
    complete(signing)
    method, url, headers, content = http.calls[0]
    assert (method, url) == ("POST", "https://api.vendor.example/oauth/token")
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"app-id:app-secret"
    assert parse_qs((content or b"").decode()) == {
        "grant_type": ["authorization_code"],
        "code": ["the-code"],
        "redirect_uri": ["http://127.0.0.1:8081/cb"],
        "code_verifier": ["the-verifier"],
        "continuous_refresh": ["true"],
    }
    assert asyncio.run(signing.bearer()) == "access-1"
    tokens = TokenFile(signing.file.path).read()
    assert tokens == Tokens(
        access=Secret(value="access-1"),
        refresh=Secret(value="refresh-1"),
        expires_at=NOW + 3600,
        refresh_expires_at=NOW + 5_184_000,
        scope="a b",
    )


def test_a_token_is_refreshed_before_it_ends_and_the_refresh_token_rotates(tmp_path: Path) -> None:
    """Two minutes before the end the new pair is written; the next refresh uses the new refresh token."""
    time = Time()
    http = Scripted(answer(200, FIRST), answer(200, SECOND), answer(200, FIRST))
    signing = oauth(tmp_path, http, time)
    complete(signing)
    time.now += 3600 - MARGIN_S - 1
    assert asyncio.run(signing.bearer()) == "access-1"
    time.now += 2
    assert asyncio.run(signing.bearer()) == "access-2"
    kept = TokenFile(signing.file.path).read()
    assert kept is not None
    assert kept.refresh == Secret(value="refresh-2")
    assert parse_qs((http.calls[1][3] or b"").decode())["refresh_token"] == ["refresh-1"]
    assert asyncio.run(signing.bearer(refused="access-2")) == "access-1"
    assert parse_qs((http.calls[2][3] or b"").decode())["refresh_token"] == ["refresh-2"]


def test_callers_at_once_refresh_once(tmp_path: Path) -> None:
    """A rotating refresh token is used once: the others wait and take the new access token."""
    http = Scripted(answer(200, FIRST), answer(200, SECOND))
    signing = oauth(tmp_path, http)
    complete(signing)

    async def all_refused() -> list[str]:
        return list(await asyncio.gather(*(signing.bearer(refused="access-1") for _ in range(10))))

    assert asyncio.run(all_refused()) == ["access-2"] * 10
    assert len(http.calls) == 2


def test_a_vendor_that_does_not_rotate_keeps_its_refresh_token(tmp_path: Path) -> None:
    """Without a new refresh token the old one, its end and the scope stay."""
    http = Scripted(answer(200, FIRST), answer(200, {"access_token": "access-2", "token_type": "bearer"}))
    signing = oauth(tmp_path, http)
    complete(signing)
    assert asyncio.run(signing.bearer(refused="access-1")) == "access-2"
    kept = signing.file.read()
    assert kept is not None
    assert kept.refresh == Secret(value="refresh-1")
    assert kept.refresh_expires_at == NOW + 5_184_000
    assert (kept.expires_at, kept.scope) == (0.0, "a b")


def test_without_a_sign_in_the_remedy_is_named(tmp_path: Path) -> None:
    """Nobody signed in, or the vendor gave no refresh token: say which table and command."""
    signing = oauth(tmp_path, Scripted(answer(200, GRANT)))
    with pytest.raises(AudienceError, match=r"\[audience_sinks\.v\]: run 'tag-gateway audiences login'"):
        asyncio.run(signing.bearer())
    complete(signing)
    with pytest.raises(AudienceError, match="has ended"):
        asyncio.run(signing.bearer(refused="access-1"))


@pytest.mark.parametrize(
    ("refused", "says", "retry"),
    [
        (answer(400, {"error": "invalid_grant"}), "has ended.*login", None),
        (answer(400, {"error": "invalid_client"}), "id and secret", None),
        (answer(401, {"code": 2, "message": "refresh-1"}), "id and secret", None),
        (answer(404, {"message": "access-1"}), "base_url", None),
        (answer(429, None, retry_after="9"), "cannot sign in now", 9.0),
        (answer(503, None), "cannot sign in now", 5.0),
        (answer(200, {"access_token": 5, "x": "access-2"}), "is not one", None),
        (Unreachable("no answer in 30 s", sent=True), "gave no answer", 5.0),
    ],
)
def test_refusals_say_what_to_do_and_nothing_secret(
    tmp_path: Path, refused: object, says: str, retry: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What passes is told from what must be mended; no token, code or secret in messages, causes or logs."""
    caplog.set_level(logging.DEBUG)
    http = Scripted(answer(200, FIRST), refused)  # type: ignore[arg-type]
    signing = oauth(tmp_path, http)
    complete(signing)
    with pytest.raises(AudienceError, match=says) as caught:
        asyncio.run(signing.bearer(refused="access-1"))
    assert caught.value.retry_after_s == retry
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not any(secret in shown for secret in SECRETS)


def test_the_file_holds_what_the_page_needs_and_no_secret_of_the_app(tmp_path: Path) -> None:
    """The app's secret stays in the configuration."""
    signing = oauth(tmp_path, Scripted(answer(200, FIRST)))
    complete(signing)
    content = signing.file.path.read_bytes()
    assert b"app-secret" not in content
    assert hashlib.sha256(b"the-code").hexdigest().encode() not in content
    assert msgspec.json.decode(content)["access"] == {"value": "access-1"}
