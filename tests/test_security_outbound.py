"""What leaves: only to addresses that were meant, over TLS that is verified, and never led elsewhere."""

import ast
import asyncio
import datetime as dt
import gzip
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import certifi
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import Answer, Calls, Context, Destination, Secret, Source, Unreachable, check_url
from gateway import config as configuration
from gateway.errors import ConfigError
from gateway.http import Client
from gateway.plugins.klaviyo.options import KlaviyoOptions
from gateway.plugins.klaviyo.options import check as check_klaviyo
from gateway.plugins.pinterest.audience_options import AudienceOptions
from gateway.plugins.pinterest.audience_options import check as check_audiences
from gateway.plugins.pinterest.options import PinterestOptions
from gateway.plugins.pinterest.options import check as check_pinterest
from gateway.runtime import assemble

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "https://api.pinterest.com/v5", "https://a.klaviyo.com", "https://api.example.com:8443/base", "https://8.8.8.8/",
    "https://[2606:4700::1111]/", "https://xn--bcher-kva.example", "https://3com.example", "https://127.0.0.1:1",
    "http://127.0.0.1:8080/v5", "http://[::1]:8080", "http://localhost:9", "HTTPS://API.EXAMPLE.COM",
]  # fmt: skip
#: Private and reserved addresses, in clear and disguised; with https, so that the scheme is not what refuses them.
PRIVATE = [
    "0", "0.0.0.0", "0x0", "10.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0x7f.1", "0x7f000001",
    "0X7F.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "169.254.169.254", "169.254.1", "0xa9fea9fe",
    "2852039166", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",
    "240.0.0.1", "[::]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:7f00:1]", "[fe80::1]",
    "[fd00:ec2::254]", "[ff02::1]", "[::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]", "[2001:db8::1]", "1.2.3.4.5", "256.256.256.256",
]  # fmt: skip
BROKEN = [
    "", "api.pinterest.com", "//api.pinterest.com", "ftp://api.pinterest.com", "file:///etc/passwd", "gopher://x/",
    "unix:///run/x.sock", "javascript:alert(1)", "https://", "https:///v5", "https://[::1", "https://a:port",
    "https://a:99999", "https://user@a.example", "https://user:secret@a.example", "https://api.pinterest.com@evil.io",
    "https://a.example?x=1", "https://a.example/#x", "https://a.example\\@evil.io", "https://a.example/\r\nX: y",
    "https://a.example/ x", "https://bücher.example", "https://127.0.0.1%2eevil.io", "https://a.example\t",
    "http://a.example", "http://127.0.0.2", "http://127.0.0.1.nip.io", "http://localhost.evil.io", "http://0/",
    "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://169.254.169.254/latest",
]  # fmt: skip


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_address_passes(url: str) -> None:
    """Over https to a name or public address; over http to this machine by one of its three names."""
    check_url("base_url", url)


@pytest.mark.parametrize("url", [*BROKEN, *(f"https://{host}/v5" for host in PRIVATE)])
def test_any_other_address_is_refused(url: str) -> None:
    """No other scheme, no credentials, no private address in any writing; the message names the option alone."""
    with pytest.raises(ValueError, match=r"^base_url ") as caught:
        check_url("base_url", url)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("url", ["http://169.254.169.254/v5", "https://0x7f.1/v5", "https://u:p@api.pinterest.com/v5"])
@pytest.mark.parametrize("key", ["base_url", "authorize_url"])
def test_every_configured_address_is_checked(url: str, key: str) -> None:
    """No plugin of ours takes an address that the check refuses."""
    token, given = Secret(value="t"), cast("Any", {key: url})
    if key == "base_url":
        with pytest.raises(ValueError, match=key):
            check_pinterest(PinterestOptions(ad_account_id="1", token=token, base_url=url))
    with pytest.raises(ValueError, match=key):
        check_audiences(AudienceOptions(ad_account_id="1", token=token, **given))
    with pytest.raises(ValueError, match=key):
        check_klaviyo(KlaviyoOptions(api_key=token, **given))


def test_no_address_is_forgotten(tmp_path: Path) -> None:
    """Every option of a plugin of ours whose name ends in ``url`` is one of those that are checked."""
    host = assemble(configuration.parse({}, tmp_path / "gateway.toml"), None).host
    kinds = [*host.adapters.values(), *host.destination_types.values()]
    kinds += [*host.audience_source_types.values(), *host.audience_sink_types.values()]
    found = {
        f"{kind.Options.__name__}.{name}"
        for kind in kinds
        for name in kind.Options.__struct_fields__
        if name.endswith(("url", "uri", "host", "endpoint"))
    }
    assert found == {
        "PinterestOptions.base_url", "AudienceOptions.base_url", "AudienceOptions.authorize_url",
        "KlaviyoOptions.base_url", "KlaviyoOptions.authorize_url", "WebhookOptions.admin_base_url",
    }  # fmt: skip
    for url in ("http://shop.example", "https://[::1", "https://10.0.0.1"):
        options = msgspec.convert({"admin_base_url": url}, host.adapters["shopify"].Options)
        source = Source(name="s", adapter="shopify", site="s", destinations=("p",), options=options)
        assert "admin_base_url" in str(host.adapters["shopify"].check(source))


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://ops.example", True), ("http://127.0.0.1:8081", True), ("http://[::1]:8081", True),
        ("https://10.0.0.5:8443", True), ("http://ops.example", False), ("ops.example", False),
        ("https://ops.example?x", False), ("https://u:p@ops.example", False), ("http://[::1", False), ("", False),
    ],
)  # fmt: skip
def test_the_operators_own_address(url: str, good: bool, tmp_path: Path) -> None:
    """The code of a login comes back to it: https, or this machine."""
    raw = {"operator": {"url": url}}
    if good:
        configuration.parse(raw, tmp_path / "gateway.toml")
    else:
        with pytest.raises(ConfigError, match=r"\[operator\] url"):
            configuration.parse(raw, tmp_path / "gateway.toml")


# -- the one client, against real sockets


class Vendor:
    """A listener that answers every request the same, and notes what arrived."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def plain(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def vendor(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Vendor]:
    found = Vendor(answer)
    server = await asyncio.start_server(found.talk, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


async def ask(url: str, **arguments: Any) -> Answer:
    client = Client()
    try:
        return await client.request("POST", url, content=b"hello", timeout_s=10.0, **arguments)
    finally:
        await client.close()


def test_a_redirect_is_not_followed() -> None:
    """Not to a private address, not to another port, not for a 307 that would repeat body and token."""

    async def main() -> None:
        async with vendor(plain("200 OK")) as elsewhere:
            for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
                target = f"Location: http://127.0.0.1:{elsewhere.port}/latest/meta-data"
                async with vendor(plain(status, b"", target)) as first:
                    answer = await ask(f"http://127.0.0.1:{first.port}/", headers={"authorization": "Bearer t"})
                    assert answer.status == int(status[:3])
            assert elsewhere.heard == []

    asyncio.run(main())


def test_the_environments_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that many programs obey lead neither tokens nor people's hashes to a proxy."""

    async def main() -> None:
        async with vendor(plain("200 OK")) as proxy, vendor(plain("204 No Content")) as meant:
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            assert (await ask(f"http://127.0.0.1:{meant.port}/")).status == 204
            assert (proxy.heard, len(meant.heard)) == ([], 1)

    asyncio.run(main())


def test_an_answer_is_capped_and_never_inflated() -> None:
    """A long answer is cut, and a compressed one stays as small as it came."""
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def main() -> None:
        async with vendor(plain("200 OK", b"x" * 5_000_000)) as large:
            assert len((await ask(f"http://127.0.0.1:{large.port}/", max_bytes=1_000)).body) == 1_000
        async with vendor(plain("200 OK", bomb, "Content-Encoding: gzip")) as packed:
            assert (await ask(f"http://127.0.0.1:{packed.port}/")).body == bomb
            assert b"accept-encoding: identity" in packed.heard[0].lower()

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", ["t\r\nX-Injected: 1", "t\nX-Injected: 1", "t\r\n\r\nGET /other HTTP/1.1\r\n\r\n", "t\0"]
)
def test_no_header_or_path_is_injected(value: str) -> None:
    """A line break in a header or address ends the call, not the header."""

    async def main() -> None:
        async with vendor(plain("200 OK")) as found:
            with pytest.raises(Unreachable):
                await ask(f"http://127.0.0.1:{found.port}/", headers={"authorization": f"Bearer {value}"})
            try:
                await ask(f"http://127.0.0.1:{found.port}/{value}")
            except Unreachable:
                pass
            else:
                (heard,) = found.heard
                assert heard.count(b"\r\n\r\n") == 1
                assert b"\nX-Injected" not in heard

    asyncio.run(main())


# -- certificates


def issue(folder: Path, name: str, *, signer: tuple[Any, Any] | None = None) -> tuple[Path, tuple[Any, Any]]:
    """Write key and certificate for a host, signed by itself or by ``signer``; returns the file and the pair."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    host: x509.GeneralName = x509.DNSName(name)
    if name[0].isdigit():
        host = x509.IPAddress(ipaddress.ip_address(name))
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[1].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .sign(signer[0] if signer else key, hashes.SHA256())
    )
    path = folder / f"{name}-{'signed' if signer else 'self'}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path, (key, made)


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right name under a trusted authority is taken; self-signed and of another host are not, and hear nothing."""
    authority, pair = issue(tmp_path, "authority.example")
    monkeypatch.setattr(certifi, "where", lambda: str(authority))
    right, _ = issue(tmp_path, "127.0.0.1", signer=pair)
    wrong, _ = issue(tmp_path, "other.example", signer=pair)
    own, _ = issue(tmp_path, "127.0.0.1")

    async def main() -> None:
        async with vendor(plain("204 No Content"), server_context(right)) as good:
            assert (await ask(f"https://127.0.0.1:{good.port}/")).status == 204
            assert len(good.heard) == 1
        for path in (wrong, own):
            async with vendor(plain("200 OK"), server_context(path)) as bad:
                with pytest.raises(Unreachable) as caught:
                    await ask(f"https://127.0.0.1:{bad.port}/", headers={"authorization": "Bearer t"})
                assert caught.value.sent is False
                assert bad.heard == []

    asyncio.run(main())


def unverified(code: str) -> Sequence[str]:
    """Return the places that could turn verification off, redirects on, or believe the environment."""
    wanted = {"verify": True, "trust_env": False, "follow_redirects": False}
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.keyword) and node.arg in wanted:
            if node.arg == "verify" and not isinstance(node.value, ast.Constant):
                continue  # our own functions have a flag of this name: it is of signatures
            if not isinstance(node.value, ast.Constant) or node.value.value is not wanted[node.arg]:
                found.append(f"{node.lineno}: {node.arg}")
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in ("CERT_NONE", "_create_unverified_context", "check_hostname"):
                found.append(f"{node.lineno}: {name}")
    return found


#: What the two tests below look for stands in these words: parsing every file takes seconds.
_WORDS = re.compile(
    r"verify=|trust_env|follow_redirects|CERT_NONE|_unverified_|check_hostname|httpx|requests|urllib|http\.client|aiohttp"
    r"|ftplib|smtplib"
)


def suspects() -> list[Path]:
    """Return the files of the product that one of the words stands in."""
    code = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]
    return [path for path in code if _WORDS.search(path.read_text(encoding="utf-8"))]


def test_no_flag_turns_verification_off() -> None:
    """No line of the code and no key of the configuration does; the control finds a planted one of each."""
    for planted in ("f(verify=False)", "f(trust_env=True)", "f(follow_redirects=x)", "ssl.CERT_NONE"):
        assert unverified(planted), planted
    for path in suspects():
        assert unverified(path.read_text(encoding="utf-8")) == [], path
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").lower()
    assert not [word for word in ("insecure", "verify", "skip_tls", "ssl") if f"`{word}" in text]


def test_nobody_else_opens_connections() -> None:
    """Calls and destinations use the context's client: no module but ``gateway.http`` imports one of its own."""
    assert issubclass(Context, msgspec.Struct)
    assert Calls.__init__.__annotations__["context"] is Context
    assert Destination.__init__.__annotations__["context"] is Context
    others = {"httpx", "requests", "urllib.request", "http.client", "aiohttp", "urllib3", "ftplib", "smtplib"}
    users = set()
    for path in suspects():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if others & set(names):
                users.add(str(path.relative_to(ROOT)))
    assert users == {"gateway/http.py"}
