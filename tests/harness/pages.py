"""What a real browser visits: a site with a strict policy, a proxy before the gateway, a stand-in for the gateway."""

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

#: A public address that the reverse proxy says its browser has; nothing is ever sent there.
CLIENT_IP = "8.8.4.4"
Answer = tuple[int, Mapping[str, str], bytes]


class _Handler(BaseHTTPRequestHandler):
    """Hands every request to its server's ``answer``."""

    server: "Server._Http"

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): text for name, text in self.headers.items()}
        status, answered, body = self.server.answer(self.command, self.path, headers, self.rfile.read(length))
        self.send_response(status)
        for name, text in answered.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_OPTIONS = _serve  # noqa: N815 - the base class calls them so

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


class Server:
    """An HTTP server on a loopback port of its own, for the time of the block; ``url`` is its origin."""

    class _Http(ThreadingHTTPServer):
        daemon_threads = True
        owner: "Server"

        def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            return self.owner.answer(method, path, headers, body)

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of a browser that went away."""

    def __init__(self) -> None:
        self._http = self._Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request, in a thread of its own."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class Site(Server):
    """
    Serves files to a browser under a policy that forbids everything inline.

    Args:
        tags: The origin that scripts may come from and hits may go to.
        files: Path to media type and content; a path with a query is found without it.
        headers: More of each answer's headers.
    """

    def __init__(
        self, tags: str, files: Mapping[str, tuple[str, str]], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.files = files
        self._headers = {
            "content-security-policy": (
                f"default-src 'none'; script-src 'self' {tags}; connect-src {tags}; style-src 'self'; img-src data:; "
                "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
            ),
            **(headers or {}),
        }

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the file."""
        found = self.files.get(urlsplit(path).path)
        if found is None:
            return 404, self._headers, b""
        return 200, {"content-type": f"{found[0]}; charset=utf-8", **self._headers}, found[1].encode()


class ReverseProxy(Server):
    """Stands in front of the gateway as an operator's proxy does, and says that every browser is at CLIENT_IP."""

    def __init__(self) -> None:
        super().__init__()
        self.target = ""
        self._client = httpx.Client(trust_env=False, timeout=30.0)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Pass the request on."""
        forwarded = {name: text for name, text in headers.items() if name not in ("connection", "content-length")}
        forwarded["x-forwarded-for"] = CLIENT_IP
        found = self._client.request(method, f"{self.target}{path}", headers=forwarded, content=body)
        hop = ("connection", "content-encoding", "content-length", "transfer-encoding", "date", "server")
        return found.status_code, {k: v for k, v in found.headers.items() if k not in hop}, found.content

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._client.close()


class Collector(Server):
    """Serves one script at ``/in/tag/tag.js`` and keeps what is posted to ``/in/tag``."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script
        self._arrived = threading.Condition()
        self.events: list[Any] = []
        self.headers: list[Mapping[str, str]] = []
        self.preflights = 0

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer as the gateway would: the script, a preflight, or 200 to a hit."""
        if method == "GET":
            return 200, {"content-type": "text/javascript; charset=utf-8"}, self._script.encode()
        allowed = {
            "access-control-allow-origin": headers.get("origin", "null"),
            "access-control-allow-credentials": "true",
        }
        with self._arrived:
            if method == "OPTIONS":
                self.preflights += 1
                return 204, {**allowed, "access-control-allow-headers": "content-type"}, b""
            self.events.append(json.loads(body))
            self.headers.append(headers)
            self._arrived.notify_all()
        return 200, {**allowed, "content-type": "application/json"}, b"{}"

    def wait(self, count: int, deadline_s: float = 15.0) -> list[Any]:
        """Wait for so many events; returns all. Raises AssertionError when they do not come."""
        end = time.monotonic() + deadline_s
        with self._arrived:
            while len(self.events) < count:
                left = end - time.monotonic()
                assert left > 0, (
                    f"{len(self.events)} of {count} events arrived: {[e.get('event_name') for e in self.events]}"
                )
                self._arrived.wait(left)
            return list(self.events)
