"""Secrets and tokens change under load, and bad files are refused: nobody is turned away, nothing is lost."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP
from typing import Any

from tests.harness.load import Client, Load
from tests.harness.oracle import Balance, Oracle
from tests.harness.processes import SECRET, Pair, plain_config, say, until

NEW = "the-next-secret-of-this-source"


class Watched(Client):
    """A client with one secret that counts the answers of each phase."""

    def __init__(self, port: int, secret: str, phase: Callable[[], str], seen: Counter[tuple[str, str, int]]) -> None:
        super().__init__(port, secret)
        self._phase = phase
        self._seen = seen

    async def post(self, body: bytes, source: str = "api", length: int | None = None) -> tuple[int, Any] | None:
        """Send one request, and count its answer for the phase that it began and ended in."""
        before = self._phase()
        answer = await super().post(body, source, length)
        if answer is not None and before == self._phase():
            self._seen[before, self._secret, answer[0]] += 1
        return answer


class Rotation:
    """Rewrites the file of a gateway, and tells its clients which phase it is."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.phase = "only old"
        self.seen: Counter[tuple[str, str, int]] = Counter()
        self._text = pair.gateway.config.read_text()
        self._one = f'secrets = ["{SECRET}"]'
        assert self._one in self._text

    def file(self, *secrets: str, token: str = "sandbox-token") -> str:
        """Return the file with these secrets and this token."""
        listed = ", ".join(f'"{secret}"' for secret in secrets)
        text = self._text.replace(self._one, f"secrets = [{listed}]")
        return text.replace('token = "sandbox-token"', f'token = "{token}"')

    async def take(self, text: str, said: str, phase: str) -> None:
        """Rewrite the file, send SIGHUP, and wait until the log says what came of it; then a phase begins."""
        gateway = self.pair.gateway
        self.phase = f"towards {phase}"
        before = gateway.log.stat().st_size
        gateway.config.write_text(text)
        gateway.send_signal(SIGHUP)

        def told() -> bool:
            with gateway.log.open("rb") as log:
                log.seek(before)
                return f'"event":"{said}"'.encode() in log.read()

        await asyncio.to_thread(until, told, 20.0, f"the log says {said}", 0.02)
        self.phase = phase

    def statuses(self, phase: str, secret: str) -> set[int]:
        """Return the answers that a secret got in a phase."""
        return {status for (of, who, status), count in self.seen.items() if (of, who) == (phase, secret) and count}


async def accepted_since(load: Load, moment: float) -> None:
    """Wait for an acknowledgement, then some more time in the phase."""
    await load.accepting(moment, 15.0)
    await asyncio.sleep(0.25)


async def rotate(folder: Path) -> tuple[Rotation, list[Balance], list[str]]:
    """Rotate secret and token of a gateway under load; returns what clients saw, and the account of each load."""
    with Pair(folder, plain_config(more="timeout_s = 3.0")) as pair:
        oracle = Oracle(pair.sandbox, pair.gateway)
        found = Rotation(pair)

        def load_of(secret: str, seed: int) -> Load:
            def connect() -> Client:
                return Watched(pair.gateway.port, secret, lambda: found.phase, found.seen)

            prefix = "old" if secret == SECRET else "new"
            return Load(pair.gateway.port, 2, random.Random(seed), 0.01, prefix, connect=connect)

        old, new = load_of(SECRET, 1), load_of(NEW, 2)
        loads = [old, new]
        for load in loads:
            load.start()
        try:
            await accepted_since(old, 0.0)
            await found.take(found.file(SECRET, NEW), "reloaded", "both")
            await accepted_since(new, time.monotonic())
            await found.take("this is = no [toml", "reload_refused", "bad file")
            await accepted_since(new, time.monotonic())
            await found.take(found.file(NEW).replace("[store]", "[stor]"), "reload_refused", "bad table")
            await accepted_since(old, time.monotonic())
            await found.take(found.file(NEW), "reloaded", "only new")
            await accepted_since(new, time.monotonic())
            for body in ({"valid": False}, {"valid": True, "token": "the-next-token"}):
                pair.sandbox._client.put("/_sandbox/token", json=body)
            lane = await asyncio.to_thread(_paused, pair)
            await found.take(found.file(NEW, token="the-next-token"), "reloaded", "new token")
            await accepted_since(new, time.monotonic())
        finally:
            for load in loads:
                await load.stop()
        drained_s = await asyncio.to_thread(pair.gateway.drain)
        say(f"after the new token: drained in {drained_s:.2f} s; the lane had said {lane}")
        oracle.look()
        both = Load(0, 0, random.Random(0))
        both.told = {**old.told, **new.told}
        reasons = [lane["reason"] for lane in pair.gateway.status()["lanes"] if lane["state"] != "running"]
        return found, [oracle.balance(both)], reasons


def _paused(pair: Pair) -> str:
    """Wait until the lane waits for a working token; returns its reason."""

    def lanes() -> list[dict[str, Any]]:
        return [lane for lane in pair.gateway.status()["lanes"] if lane["state"] == "paused"]

    until(lambda: bool(lanes()), 15.0, "the lane pauses", 0.05)
    return str(lanes()[0]["reason"])


def test_secrets_and_tokens_rotate_under_load(tmp_path: Path) -> None:
    """Two active secrets: no answer but 200 for either; then the old one is refused; a bad file changes nothing."""
    found, (balance,), reasons = asyncio.run(rotate(tmp_path))
    say(f"answers {dict(found.seen)}, accepted {balance.accepted}, fates {balance.by_fate}")
    assert found.statuses("only old", SECRET) == {200}
    # the control: a secret that is not active is counted as refused
    assert found.statuses("only old", NEW) == {401}
    for phase in ("both", "bad file", "bad table"):
        assert found.statuses(phase, SECRET) == {200}, phase
        assert found.statuses(phase, NEW) == {200}, phase
    for phase in ("only new", "new token"):
        assert found.statuses(phase, SECRET) == {401}, phase
        assert found.statuses(phase, NEW) == {200}, phase
    assert balance.faults == {}
    assert (balance.dead, reasons) == (0, [])
    assert balance.again == {}, "nothing was ambiguous"
