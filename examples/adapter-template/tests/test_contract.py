"""The adapter keeps the gateway's contract, and its hit arrives."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import gateway.testing

from tag_gateway_yourplatform import Yourplatform

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_contract(adapter_contract: Callable[..., None]) -> None:
    """Every check of the kit, on every example."""
    adapter_contract(Yourplatform(), EXAMPLES)


def test_a_hit_is_delivered(tmp_path: Path) -> None:
    """A hit of the platform arrives at the gateway's stand-in of Pinterest."""

    async def scenario() -> None:
        config = {"sources": {"shop": {"adapter": "yourplatform", "secrets": ["s3cret"]}}}
        async with gateway.testing.running(config, tmp_path) as running:
            hit = {"event": "order", "email": "ann@example.com", "total": "59.90", "currency": "EUR", "order": 1001}
            status, answer = await running.post("shop", hit, {"Authorization": "Bearer s3cret"})
            assert (status, answer["accepted"]) == (200, 1), answer
            (event,) = await running.delivered(1)
            assert (event["event_name"], event["event_id"]) == ("checkout", "shop-1001")

    asyncio.run(scenario())
