"""
The kit for authors of adapters: contract checks, doubles, and a gateway that runs inside a test.

::

    from gateway.testing import check_adapter, running

    def test_contract():
        check_adapter(Acme(), Path("examples"))

    def test_a_hit_is_delivered(tmp_path):
        async def scenario():
            config = {"sources": {"acme": {"adapter": "acme", "secrets": ["s3cret"]}}}
            async with running(config, tmp_path) as gateway:
                status, answer = await gateway.post("acme", {...}, {"Authorization": "Bearer s3cret"})
                assert (status, answer["accepted"]) == (200, 1)
                (event,) = await gateway.delivered(1)
                assert event["event_name"] == "checkout"
        asyncio.run(scenario())

Names are loaded when they are first used: a pytest run that has this package and does not use it pays nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.testing.app import Running, running
    from gateway.testing.contract import check_adapter, check_hit
    from gateway.testing.doubles import Clock, RecordingDestination, hit, source

__all__ = ["Clock", "RecordingDestination", "Running", "check_adapter", "check_hit", "hit", "running", "source"]

_HOMES = {
    "Clock": "doubles",
    "RecordingDestination": "doubles",
    "Running": "app",
    "check_adapter": "contract",
    "check_hit": "contract",
    "hit": "doubles",
    "running": "app",
    "source": "doubles",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gateway.testing' has no attribute '{name}'")
    return getattr(import_module(f"gateway.testing.{home}"), name)
