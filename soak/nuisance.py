"""Clients at fault: half-sent requests, slow bodies, connections that break, wrong proofs, noise."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from soak.account import Account
from soak.clients import Load
from soak.traffic import API, TAG, request
from soak.wire import Wire

_MOST_OPEN: Final = 40
_NOISE: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 64, b"POST /in/api HTTP/1.1\r\nHost"
)  # fmt: skip
_ROUNDS: Final = 10


class Nuisance:
    """
    Plays one fault at a time; what it sends in full is in the account.

    Attributes:
        counts: How often each was played. ``wrong``: answers that it should not have got.
    """

    def __init__(self, port: int, rng: random.Random, account: Account, load: Load) -> None:
        self._port = port
        self._rng = rng
        self._account = account
        self._load = load
        self._open: list[asyncio.StreamWriter] = []
        self.counts: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    async def play(self) -> None:
        """Play one, chosen at random; that nobody listens is no fault."""
        name, act = self._rng.choice(self._acts())
        try:
            async with asyncio.timeout(20.0):
                await act()
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.counts[name] += 1

    def close(self) -> None:
        """Drop every connection that was left open."""
        for writer in self._open:
            writer.close()
        self._open.clear()

    def _acts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            ("half-sent request", self._half_sent), ("slow body", self._slow), ("gone before the answer", self._gone),
            ("noise", self._noise), ("wrong secret", self._wrong_secret), ("wrong signature", self._wrong_signature),
            ("too large", self._too_large), ("broken JSON", self._broken),
        ]  # fmt: skip

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _bytes(self) -> tuple[int, bytes]:
        number = self._load.fresh(API)
        return number, request("api", [number], time.time())

    async def _half_sent(self) -> None:
        """Send half a request and keep the connection; the gateway must let go of it by itself."""
        _, sent = self._bytes()
        _, writer = await self._connect()
        writer.write(sent[: len(sent) - self._rng.randrange(1, 200)])
        await writer.drain()
        self._open.append(writer)
        while len(self._open) > _MOST_OPEN:
            self._open.pop(0).close()

    async def _slow(self) -> None:
        """Send a whole request in small pieces."""
        number, sent = self._bytes()
        reader, writer = await self._connect()
        self._account.sent([number])
        self._account.unknown([number])
        try:
            step = len(sent) // _ROUNDS + 1
            for at in range(0, len(sent), step):
                writer.write(sent[at : at + step])
                await writer.drain()
                await asyncio.sleep(0.1)
            self._judge("slow body", await reader.readline(), b"200", b"503")
        finally:
            writer.close()

    async def _gone(self) -> None:
        """Send a whole request and go before its answer."""
        number, sent = self._bytes()
        _, writer = await self._connect()
        self._account.sent([number])
        self._account.unknown([number])
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def _noise(self) -> None:
        reader, writer = await self._connect()
        try:
            writer.write(self._rng.choice(_NOISE))
            await writer.drain()
            writer.write_eof()
            async with asyncio.timeout(5.0):
                self._judge("noise", await reader.readline(), b"400", b"404", b"405", b"408", b"505", b"")
        finally:
            writer.close()

    async def _wrong_secret(self) -> None:
        _, sent = self._bytes()
        await self._expect("wrong secret", sent.replace(b"Bearer ", b"Bearer not-"), 401)

    async def _wrong_signature(self) -> None:
        sent = request("shop", [self._load.fresh(TAG)], time.time())
        await self._expect("wrong signature", sent.replace(b"Hmac-Sha256: ", b"Hmac-Sha256: AAAA"), 401)

    async def _too_large(self) -> None:
        _, sent = self._bytes()
        head = sent.partition(b"\r\n\r\n")[0].rpartition(b"Content-Length: ")[0]
        await self._expect("too large", head + b"Content-Length: 99000000\r\n\r\n{", 413)

    async def _broken(self) -> None:
        _, sent = self._bytes()
        await self._expect("broken JSON", sent[:-1] + b"#", 400)

    async def _expect(self, name: str, sent: bytes, status: int) -> None:
        wire = Wire(self._port)
        try:
            answer = await wire.send(sent)
        finally:
            wire.close()
        if answer is not None and answer.status not in (status, 503):
            self.wrong[f"{name}: {answer.status}"] += 1

    def _judge(self, name: str, line: bytes, *allowed: bytes) -> None:
        status = line.split(b" ")[1] if line.count(b" ") >= 1 else b""
        if line and status not in allowed:
            self.wrong[f"{name}: {status.decode('latin-1')}"] += 1
