"""The proxies of deploy/ for real: nginx and Caddy as child processes, with a gateway behind them."""

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.harness.processes import ROOT, SECRET, Pair, free_port, plain_config, until
from tests.test_engines import DOUBTFUL, UPGRADE

#: Of the doubtful requests those that a proxy and the gateway might read differently.
SMUGGLING = (
    "CL.TE", "TE.CL", "CL.CL", "TE.TE", "TE list", "TE unknown", "TE tab", "TE in 1.0", "space before colon",
    "space before name", "bare CR", "chunk end",
)  # fmt: skip
SHOP = "shop.myshopify.com"
ORIGIN = "https://shop.example"
#: A public one: others are not sent anyway.
FORGED = "9.9.9.9"
SOURCES = f"""
[sources.tag]
adapter = "browser_tag"
allowed_origins = ["{ORIGIN}"]
destinations = ["pinterest"]
[sources.hook]
adapter = "shopify"
secrets = ["hook-secret"]
options = {{ shop = "{SHOP}" }}
destinations = ["pinterest"]
[sources.api]"""


class Front:
    """A proxy, and the sandbox and gateway behind it."""

    def __init__(self, port: int, pair: Pair, tls: bool) -> None:
        self.port = port
        self.pair = pair
        self.host = f"127.0.0.1:{port}"
        self._tls = tls

    def open(self) -> socket.socket:
        """Connect, with TLS where the proxy has it."""
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        if not self._tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain)

    def ask(self, request: bytes, quiet_s: float = 10.0) -> bytes:
        """Send bytes; returns everything until the other side closes, or says nothing for a time."""
        found = b""
        with self.open() as client:
            client.settimeout(quiet_s)
            with contextlib.suppress(OSError):  # it may have seen enough
                client.sendall(request)
            with contextlib.suppress(OSError):
                while part := client.recv(65_536):
                    found += part
        return found

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Send a proper request; returns status and body."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        answer = self.ask("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest

    def hits(self) -> int:
        """How many requests the gateway has logged: its lines are written a little later."""
        time.sleep(0.1)
        return self.pair.gateway.log.read_text().count('"event":"hit"')


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what is another on this machine; each stands there exactly once."""
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate that nobody signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tags.example.com")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "chain.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def nginx(folder: Path, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    """Return the command of an nginx that has our file."""
    chain, key = certificate(folder)
    live = "/etc/letsencrypt/live/tags.example.com"
    ours = replaced(
        (ROOT / "deploy/nginx.conf").read_text(),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{upstream};"),
        (f"{live}/fullchain.pem", str(chain)), (f"{live}/privkey.pem", str(key)),
        ("/var/log/nginx/tag-gateway.log", str(folder / "error.log")),
        ("client_header_timeout 10s;", "client_header_timeout 1s;"),
    )  # fmt: skip
    (folder / "tag-gateway.conf").write_text(ours)
    paths = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder / 'nginx.pid'};\nworker_processes 1;\nevents {{ worker_connections 256; }}\n"
        f"http {{\n{paths}include {folder / 'tag-gateway.conf'};\n}}\n"
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    return [program, "-p", str(folder), "-e", str(folder / "start.log"), "-c", str(folder / "nginx.conf")], {}


def caddy(folder: Path, port: int, upstream: int) -> tuple[list[str], dict[str, str]]:
    """Return the command of a Caddy that has our file, without https, for which it would ask the world."""
    ours = replaced(
        (ROOT / "deploy/Caddyfile").read_text(),
        ("{\n\tservers {", "{\n\tadmin off\n\tservers {"),
        ("read_header 10s", "read_header 1s"),
    )
    (folder / "Caddyfile").write_text(ours)
    environ = {
        "GATEWAY_HOST": f"http://127.0.0.1:{port}", "GATEWAY_UPSTREAM": f"127.0.0.1:{upstream}",
        "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder),
    }  # fmt: skip
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"], environ


PROXIES: dict[str, Callable[[Path, int, int], tuple[list[str], dict[str, str]]]] = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=PROXIES)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run a proxy with our file before a gateway."""
    name: str = request.param
    if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{name} is not installed: make system")
    folder = tmp_path_factory.mktemp(name)
    config = plain_config().replace("[sources.api]", SOURCES.strip(), 1)
    with Pair(folder, config) as pair:
        port = free_port()
        command, environ = PROXIES[name](folder, port, pair.gateway.port)
        with (folder / "proxy.log").open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environ})
        try:
            found = Front(port, pair, tls=name == "nginx")

            def serves() -> bool:
                assert child.poll() is None, (folder / "proxy.log").read_text()
                try:
                    return found.request("GET", "/livez")[0] == 200
                except (OSError, IndexError):
                    return False

            until(serves, 15.0, f"{name} serves", 0.05)
            yield found
        finally:
            child.terminate()
            child.wait(10)


def order() -> bytes:
    """Return an order with spaces, escapes and letters that a proxy might be tempted to tidy up."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return (
        '{ "id" : 820982911946154500,\r\n\t"email":"zo\\u00eb@example.com", "created_at":"'
        + now
        + '", "currency":"EUR" ,'
        '"total_price":"10.00","name":"Zoë  ","line_items":[ ] }\n'
    ).encode()


def test_public_paths_only(front: Front) -> None:
    """Hits and probes are handed on; the operator's paths are nobody's."""
    assert front.request("GET", "/readyz")[0] == 200
    for path in ("/", "/metrics", "/api/status", "/livez/x", "/inn/api"):
        assert front.request("GET", path)[0] == 404, path


def test_the_exact_bytes_arrive(front: Front) -> None:
    """A webhook signed over its bytes is accepted; one byte other, and it is not."""
    body = order()
    signature = base64.b64encode(hmac.new(b"hook-secret", body, hashlib.sha256).digest()).decode()
    headers = {
        "X_Shopify_Topic": "orders/create", "X_Shopify_Shop_Domain": SHOP, "X_Shopify_Hmac_Sha256": signature,
        "X_Shopify_Webhook_Id": "w1", "Content_Type": "application/json",
    }  # fmt: skip
    status, answer = front.request("POST", "/in/hook", body, **headers)
    assert status == 200, answer
    assert front.request("POST", "/in/hook", body.strip(), **headers)[0] == 401


def sent_addresses(front: Front, event_id: str) -> str:
    """Return what was sent of an event, once it was."""
    sandbox = front.pair.sandbox
    until(lambda: any(one["event_id"] == event_id for one in sandbox.events(100)), 20, f"{event_id} is sent", 0.05)
    (event,) = [one for one in sandbox.events(100) if one["event_id"] == event_id]
    return json.dumps(event["user_data"])


def test_a_forged_address_is_not_believed(front: Front) -> None:
    """What a client says of its own address does not reach the vendor, in whichever header it says it."""
    headers = {
        "Origin": ORIGIN, "Content_Type": "application/json", "User_Agent": "Mozilla/5.0 (X11; Linux) Firefox/142.0",
        "X_Forwarded_For": FORGED, "X_Real_IP": FORGED, "Forwarded": f"for={FORGED}",
    }  # fmt: skip
    body = json.dumps({"event_name": "lead", "event_id": f"xff-{front.port}", "user": {"email": "a@example.com"}})
    status, answer = front.request("POST", "/in/tag", body.encode(), **headers)
    assert status == 200, answer
    assert FORGED not in sent_addresses(front, f"xff-{front.port}")
    # planted: past the proxy, from an address that is trusted, the same header is believed
    direct = Front(front.pair.gateway.port, front.pair, tls=False)
    status, answer = direct.request("POST", "/in/tag", body.replace("xff-", "direct-").encode(), **headers)
    assert status == 200, answer
    assert FORGED in sent_addresses(front, f"direct-{front.port}")


def test_nothing_is_smuggled(front: Front) -> None:
    """Of a doubtful request the gateway sees no more requests than the client gets answers to."""
    requests = {name: request for name, request, _ in DOUBTFUL}
    for name in SMUGGLING:
        request = requests[name]
        before = front.hits()
        sent = re.sub(rb"(?m)^Host: a\r$", f"Host: {front.host}\r".encode(), request)
        answers = front.ask(sent, quiet_s=0.5)
        # the answer of HTTP/0.9 has no status
        assert front.hits() - before <= max(1, len(re.findall(rb"HTTP/1\.1 [2-5]\d\d ", answers))), name
        # and the next client gets its own answer
        assert front.request("GET", "/livez") == (200, b"ok\n"), name


def test_upgrades_stop_at_the_proxy(front: Front) -> None:
    """Neither HTTP/2 nor WebSockets reach the gateway."""
    host = f"Host: {front.host}\r\n".encode()
    answer = front.ask(b"GET /livez HTTP/1.1\r\n" + host + UPGRADE, quiet_s=0.5)
    assert answer.startswith(b"HTTP/1.1 200 ")
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    answer = front.ask(
        b"GET /livez HTTP/1.1\r\n" + host + websocket + b"Sec-WebSocket-Version: 13\r\n\r\n", quiet_s=0.5
    )
    assert not answer.startswith(b"HTTP/1.1 101 ")


def test_large_bodies_are_refused(front: Front) -> None:
    """Over 8 MB, with a length and in chunks: 413, and no event."""
    large = 9 << 20
    head = f"POST /in/api HTTP/1.1\r\nHost: {front.host}\r\nAuthorization: Bearer {SECRET}\r\nConnection: close\r\n"
    declared = f"Content-Length: {large}\r\n\r\n".encode() + b" " * large
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (large // 65_536) + b"0\r\n\r\n"
    for rest in (declared, chunked):
        assert front.ask(head.encode() + rest).startswith(b"HTTP/1.1 413 ")
    good = json.dumps({"event_name": "lead", "event_id": f"g{front.port}", "user": {"email": "a@example.com"}}).encode()
    assert front.request("POST", "/in/api", good, Authorization=f"Bearer {SECRET}")[0] == 200


def test_a_slow_head_is_cut(front: Front) -> None:
    """A head that does not arrive is cut at the proxy's deadline (shortened here), dribbled or not."""
    with front.open() as client:
        client.settimeout(0.2)
        began = time.monotonic()
        try:
            client.sendall(b"GET /livez HTTP/1.1\r\n")
            while time.monotonic() - began < 8:
                client.sendall(b"X")
                try:
                    if client.recv(4_096) == b"":
                        break
                except TimeoutError:
                    continue
        except OSError:
            pass
        assert time.monotonic() - began < 8


def test_the_files_agree_with_the_gateway() -> None:
    """Proxies keep connections for less time than the gateway does, and take bodies of the same size."""
    from gateway.connections import Limits

    text = {name: (ROOT / "deploy" / name).read_text() for name in ("nginx.conf", "Caddyfile")}
    assert re.findall(r"keepalive_timeout (\d+)s;\n}", text["nginx.conf"]) == ["60"]
    assert re.findall(r"keepalive (\d+)s", text["Caddyfile"]) == ["60"]
    assert Limits().idle_s > 60
    assert "client_max_body_size 8m;" in text["nginx.conf"]
    assert "max_size 8MiB" in text["Caddyfile"]
