"""A gateway inside the test under a mix of everything, and the same account of it as of a real process."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.interfaces import HttpClient
from gateway.sandbox import Fault, PinterestSandbox
from gateway.testing import Running, running
from tests.harness.load import Client, Load
from tests.harness.mix import is_as_posted, poison_fault
from tests.harness.oracle import Balance, held, settle
from tests.harness.processes import ACCOUNT, SECRET, say

__all__ = ["Inside", "balance", "inside", "say"]


class Inside(Client):
    """A client without a network; ``running`` may be replaced while it is in use."""

    def __init__(self, found: Callable[[], Running]) -> None:
        super().__init__(0)
        self._found = found

    async def post(self, body: bytes, source: str = "api", length: int | None = None) -> tuple[int, Any] | None:
        """Send one request; a claimed length is sent as it is."""
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
        if length is not None:
            headers["Content-Length"] = str(length)
        return await self._found().request("POST", f"/in/{source}", body, headers)


def sandbox_for(prefix: str = "e", clock: Callable[[], float] = time.time) -> PinterestSandbox:
    """Return a vendor that refuses a load's poisonous events."""
    box = PinterestSandbox(clock=clock)
    fault = poison_fault(prefix)
    box.faults.stand(Fault(kind="partial", event_ids=tuple(fault["event_ids"])))
    return box


@asynccontextmanager
async def inside(
    folder: Path,
    sandbox: PinterestSandbox,
    *,
    clock: Callable[[], float] = time.time,
    http: HttpClient | None = None,
    plugins: Mapping[str, object] | None = None,
    hold_s: float = 0.1,
    **destination: Any,
) -> AsyncIterator[Running]:
    """Run a gateway with the sources of a mix; a second one in the same folder finds what the first one left."""
    source = {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET], "event_names": {"newsletter": ""}}
    config = {
        "sites": {"shop": {"hold_s": hold_s}},
        "sources": {"api": source, "crm": source},
        "destinations": {"pinterest": {"ad_account_id": ACCOUNT, "batch_size": 50, "linger_s": 0.01, **destination}},
    }
    standing = sandbox.faults.standing
    async with running(config, folder, sandbox=sandbox, clock=clock, http=http, plugins=plugins) as found:
        yield found
    sandbox.faults.stand(*standing)


def balance(sandbox: PinterestSandbox, folder: Path, load: Load, gone: frozenset[str] = frozenset()) -> Balance:
    """Settle the account of a load; see :func:`tests.harness.oracle.settle`."""
    records = (sandbox.record, sandbox.tests)
    copies: Counter[str] = Counter()
    for record in records:
        copies.update({key.partition(" ")[2]: count for key, count in record.ids().items()})
    corrupt = sum(not is_as_posted(event) for record in records for event in record.events())
    return settle(load.told, copies, held(folder / "gateway.db"), corrupt, gone)
