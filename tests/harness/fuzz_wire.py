"""Requests byte for byte to a real process, and the configuration that it runs with."""

import contextlib
import http.client
import json
import socket
import time

from tests.harness.fuzz import TABLES, Answer, Input

#: The password of the operator's listener of the real process.
OPERATOR_PASSWORD = "fuzz-operator"


def process_config(operator_port: int) -> str:
    """Return ``gateway.toml`` with the same sources for a real process; nothing listens where it delivers to."""
    lines = [
        "[server]", 'bind = "127.0.0.1:{port}"', "rate_per_s = 0.0", "graceful_s = 1.0", "[operator]",
        f'bind = "127.0.0.1:{operator_port}"', f'password = "{OPERATOR_PASSWORD}"', "[store]",
        'url = "sqlite:///gateway.db"', "[destinations.pinterest]", 'type = "pinterest"',
        'ad_account_id = "549000000001"', 'token = "none"', 'base_url = "http://127.0.0.1:9/v5"',
    ]  # fmt: skip
    for kind in ("sites", "sources"):
        for name, table in TABLES[kind].items():
            lines.append(f"[{kind}.{name}]")
            values = {**table, **({"destinations": ["pinterest"]} if kind == "sources" else {})}
            options = values.pop("options", {})
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
            if options:
                lines += [
                    f"[{kind}.{name}.options]",
                    *(f"{key} = {json.dumps(value)}" for key, value in options.items()),
                ]
    return "\n".join(lines) + "\n"


class Wire:
    """One connection to a real process, made anew when the other end closes it; requests are written byte for byte."""

    def __init__(self, address: tuple[str, int] | str, timeout_s: float = 20.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None

    def close(self) -> None:
        """End it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connected(self) -> socket.socket:
        if self._sock is None:
            family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.settimeout(self._timeout_s)
            self._sock.connect(self._address)
        return self._sock

    def send(self, given: Input) -> Answer:
        """Send one input and read the answer; status 0 when the connection ends without one."""
        fresh = self._sock is None
        answer = self._try(given)
        if answer.status == 0 and not fresh:  # the server had closed the idle connection
            answer = self._try(given)
        return answer

    def _try(self, given: Input) -> Answer:
        started = time.perf_counter()
        lines = [f"{given.method} ".encode() + given.target + f" HTTP/{given.version}".encode(), b"host: gateway"]
        lines += [name + b": " + value for name, value in given.headers]
        if given.body or given.method != "GET":
            lines.append(b"content-length: %d" % len(given.body))
        try:
            sock = self._connected()
        except ConnectionError:
            self.close()
            return Answer(status=0)
        with contextlib.suppress(OSError):  # it answered before it had read all
            sock.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + given.body)
        try:
            response = http.client.HTTPResponse(sock, method=given.method)
            response.begin()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return Answer(status=0, seconds=time.perf_counter() - started)
        headers = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Answer(status=response.status, headers=headers, body=body, seconds=time.perf_counter() - started)
