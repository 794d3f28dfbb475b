"""Phase D: requests that no client should send, against a gateway of its own; nothing of it is delivered."""

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness import fuzz, fuzz_inputs, fuzz_operator
from tests.harness.fuzz_wire import Wire, process_config
from tests.harness.processes import GatewayProcess, free_port

#: What of the inputs are the mandatory seeds, and those at the operator's API; the rest are mutations.
_SEEDS, _OPERATOR = 0.4, 0.1
#: The promise is 1 s; this machine also sends.
_LIMIT_S = 4.0
_SHOWN = 300


class Fuzzed:
    """What the phase found so far; ``failures`` are short texts."""

    def __init__(self) -> None:
        self.inputs = 0
        self.failures: list[str] = []
        self.statuses: dict[str, int] = {}


def inputs(count: int, seed: int) -> Iterator[fuzz.Input]:
    """Yield so many, as the seed has it."""
    rng = random.Random(seed)
    seeds, operator = list(fuzz_inputs.mandatory()), list(fuzz_operator.operator_calls())
    chosen = rng.sample(seeds, min(len(seeds), int(count * _SEEDS)))
    chosen += rng.sample(operator, min(len(operator), int(count * _OPERATOR)))
    rng.shuffle(chosen)
    yield from chosen
    mutator = fuzz_inputs.Mutator(seed)
    for _ in range(count - len(chosen)):
        yield mutator.next()


def fuzz_gateway(found: Fuzzed, count: int, seed: int, is_over: Callable[[], bool]) -> None:
    """Send so many inputs, and read the gateway's log afterwards."""
    with tempfile.TemporaryDirectory(prefix="tag-gateway-soak-") as folder:
        gateway = GatewayProcess(Path(folder), process_config(free_port()))
        judge = fuzz.Judge(_LIMIT_S, bare=True)
        wires = {"public": Wire(("127.0.0.1", gateway.port)), "operator": Wire(str(gateway.socket))}
        try:
            gateway.start()
            for given in inputs(count, seed):
                if is_over() or gateway.has_ended():
                    break
                judge.look(given, wires[given.listener].send(given))
                found.inputs = judge.inputs
            if gateway.has_ended():
                found.failures.append("the gateway ended")
            else:
                code, _ = gateway.terminate(20.0)
                found.failures += [f"exit code {code}"] if code else []
        finally:
            for wire in wires.values():
                wire.close()
            gateway.kill()
        judge.read_log(gateway.log.read_text(encoding="utf-8", errors="replace"))
        found.failures += [problem[:_SHOWN] for problem in judge.problems]
        found.statuses = {str(status): number for status, number in sorted(judge.statuses.items())}
