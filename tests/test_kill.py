"""What is left when the process ends in the middle of everything: by `kill -9`, and by SIGTERM."""

import asyncio
import os
import random
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.event import Struct
from tests.harness import conformance
from tests.harness.launcher import DELAY_S
from tests.harness.load import Load
from tests.harness.oracle import Balance, Oracle, snapshot
from tests.harness.processes import SECRET, Pair, plain_config, say, until

KILLS = int(os.environ.get("GATEWAY_KILLS", "25"))
#: Durability does not depend on the server: the same tests run on "uvicorn", where that is installed.
ENGINE = os.environ.get("GATEWAY_ENGINE", "hypercorn")
BATCH, IN_FLIGHT = 20, 4
GRACEFUL_S = 1.5
#: Between two requests of a client: leaves the machine time for the tests beside this one.
PAUSE_S = 0.01


class Kills(Struct, frozen=True):
    """What one series of kills left."""

    balance: Balance
    sound: bool
    in_flight: tuple[frozenset[str], ...]
    recovered_s: tuple[float, ...]
    unanswered: int
    problems: tuple[str, ...]
    sample: tuple[dict[str, Any], ...]


async def kill_again_and_again(folder: Path, kills: int, seed: int, plant: Mapping[str, str] | None = None) -> Kills:
    """Kill a loaded gateway at random moments, start it again on the same store, drain, and settle the account."""
    rng = random.Random(seed)
    config = plain_config(batch_size=BATCH, engine=ENGINE, more=f"in_flight = {IN_FLIGHT}")
    in_flight, recovered, sound = [], [], True
    with Pair(folder, config, plant) as pair:
        oracle = Oracle(pair.sandbox, pair.gateway)
        # answers that take a while: there are always batches in flight
        pair.sandbox.stand(kind="delay", delay_s=0.02)
        load = Load(pair.gateway.port, 16, rng, PAUSE_S)
        load.start()
        try:
            await load.accepting(0.0, 10.0)
            for _ in range(kills):
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                await asyncio.to_thread(pair.gateway.kill)
                killed_at = time.monotonic()
                found = await asyncio.to_thread(snapshot, pair.gateway.store)
                in_flight.append(found.in_flight)
                sound = sound and found.is_sound
                await asyncio.to_thread(oracle.look)
                started = time.monotonic()
                await asyncio.to_thread(pair.gateway.start)
                await load.accepting(killed_at, 20.0)
                recovered.append(load.last_accepted_at - started)
        finally:
            await load.stop()
        pair.sandbox.clear()
        if plant:
            # what the planted fault answered last and has not written yet
            await asyncio.sleep(4 * DELAY_S)
        await asyncio.to_thread(pair.gateway.drain)
        balance = oracle.balance(load)
        pair.gateway.terminate(GRACEFUL_S + 10)
        sound = sound and snapshot(pair.gateway.store).is_sound
    return Kills(
        balance=balance, sound=sound, in_flight=tuple(in_flight), recovered_s=tuple(sorted(recovered)),
        unanswered=load.unanswered, problems=tuple(load.problems), sample=tuple(oracle.sample),
    )  # fmt: skip


def test_nothing_accepted_is_lost_over_kills(tmp_path: Path) -> None:
    """Kills on one store: nothing is lost, corrupt or invented; only what was in flight at a kill arrives twice."""
    result = asyncio.run(kill_again_and_again(tmp_path, KILLS, seed=20_261_122))
    balance = result.balance
    recovered = result.recovered_s
    say(
        f"kills {KILLS}, accepted {balance.accepted}, delivered {balance.delivered}, lost {len(balance.lost)}, "
        f"twice {len(balance.again)} (copies {balance.copies}), unanswered requests {result.unanswered}, "
        f"in flight at a kill {[len(ids) for ids in result.in_flight]}, accepting again after "
        f"{recovered[0]:.2f} s (least), {recovered[KILLS // 2]:.2f} s (median), {recovered[-1]:.2f} s (most)"
    )
    assert result.problems == ()
    assert balance.accepted > KILLS * 50
    assert (balance.lost, balance.phantom, balance.corrupt, balance.dead) == (frozenset(), frozenset(), 0, 0)
    assert balance.again.keys() <= frozenset().union(*result.in_flight)
    assert balance.copies <= KILLS * BATCH * IN_FLIGHT
    assert all(len(ids) <= BATCH * IN_FLIGHT for ids in result.in_flight)
    assert any(result.in_flight), "no kill met a batch in flight: the test shows nothing"
    assert result.sound
    # the promise is 2 s on a machine of its own; this one also runs the clients, and perhaps other tests
    assert recovered[0] <= 2.0
    assert recovered[KILLS // 2] <= 4.0
    assert conformance.problems_of_events(result.sample) == []


def test_kills_show_a_planted_fault(tmp_path: Path) -> None:
    """The control: a gateway that answers before it has written loses events, and the oracle says so."""
    plant = {"HARNESS_PLANT": "ack_before_commit"}
    result = asyncio.run(kill_again_and_again(tmp_path, 2, seed=7, plant=plant))
    say(f"planted fault: lost {len(result.balance.lost)} of {result.balance.accepted} in 2 kills")
    assert len(result.balance.lost) > 3


def half_sent(port: int) -> socket.socket:
    """Open a connection and send half of a request."""
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.sendall(
        f"POST /in/api HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {SECRET}\r\n".encode()
        + b"Content-Length: 900\r\n\r\n"
        + b'{"event_name": "checkout"'
    )
    return client


def idle(port: int) -> socket.socket:
    """Open a connection, send one complete request, and keep the connection."""
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    return client


def open_clients(port: int) -> list[socket.socket]:
    """Open five idle connections and five with half a request."""
    return [make(port) for make in (idle, half_sent) for _ in range(5)]


def is_refused(port: int) -> bool:
    """Whether a new connection is refused or ended, not left hanging."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as client:
            client.settimeout(1.0)
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
            return client.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


async def stop_again_and_again(folder: Path, stops: int) -> tuple[Balance, list[tuple[int, float, bool]]]:
    """Stop a loaded gateway by SIGTERM on one store; returns the account, and each (code, seconds, refused)."""
    ends = []
    with Pair(folder, plain_config(batch_size=BATCH, graceful_s=GRACEFUL_S, engine=ENGINE)) as pair:
        pair.sandbox.stand(kind="delay", delay_s=0.05)
        oracle = Oracle(pair.sandbox, pair.gateway)
        load = Load(pair.gateway.port, 8, random.Random(3), PAUSE_S)
        load.start()
        try:
            for _ in range(stops):
                began = time.monotonic()
                await load.accepting(began, 10.0)
                port = pair.gateway.port
                clients = await asyncio.to_thread(open_clients, port)
                await asyncio.sleep(0.3)
                ending = asyncio.create_task(asyncio.to_thread(pair.gateway.terminate, GRACEFUL_S + 20))
                await asyncio.sleep(0.5)
                refused = await asyncio.to_thread(is_refused, port)
                code, seconds = await ending
                for client in clients:
                    client.close()
                ends.append((code, seconds, refused))
                await asyncio.to_thread(oracle.look)
                await asyncio.to_thread(pair.gateway.start)
        finally:
            await load.stop()
        await asyncio.to_thread(pair.gateway.drain)
        return oracle.balance(load), ends


def test_sigterm_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGTERM under load with idle and half-sent requests: a clean end in time, nothing lost, nothing sent twice."""
    balance, ends = asyncio.run(stop_again_and_again(tmp_path, 3))
    say(f"SIGTERM: {balance.accepted} accepted, stops {[(code, round(seconds, 2)) for code, seconds, _ in ends]}")
    assert balance.accepted > 100
    assert (balance.lost, balance.again, balance.phantom, balance.corrupt) == (frozenset(), {}, frozenset(), 0)
    assert [code for code, _, _ in ends] == [0, 0, 0]
    assert all(refused for _, _, refused in ends)
    assert all(seconds <= GRACEFUL_S + 2 for _, seconds, _ in ends)


def test_sigterm_is_bounded_while_the_vendor_hangs(tmp_path: Path) -> None:
    """Neither a call that hangs nor a half-sent request prolongs the stop; the events are sent after the next start."""
    graceful_s = 3.0
    with Pair(tmp_path, plain_config(graceful_s=graceful_s, engine=ENGINE)) as pair:
        pair.sandbox.stand(kind="hang")
        load = Load(pair.gateway.port, 2, random.Random(5), PAUSE_S)

        async def send() -> None:
            load.start()
            await load.accepting(0.0, 10.0)
            await load.stop()

        asyncio.run(send())
        until(lambda: pair.sandbox.counts()["faults"]["hanging"] > 0, 10, "a call hangs")
        client = half_sent(pair.gateway.port)
        code, seconds = pair.gateway.terminate(20)
        client.close()
        say(f"SIGTERM while a call hangs and a request is half sent: {seconds:.2f} s, graceful {graceful_s:g} s")
        pair.sandbox.clear()
        pair.gateway.start()
        pair.gateway.drain()
        balance = Oracle(pair.sandbox, pair.gateway).balance(load)
    assert code == 0
    assert (balance.lost, balance.phantom) == (frozenset(), frozenset())
    assert seconds <= graceful_s + 2
