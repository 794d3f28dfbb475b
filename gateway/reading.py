"""
Reading a hit: proof of authenticity, then events; what fails after the proof is told apart from what fails before it.
"""

from collections.abc import Sequence

from gateway.errors import PluginFailed, Unreadable
from gateway.event import Alarm, Erasure, Event, Invalid, Normalized, Skipped
from gateway.hit import Hit
from gateway.interfaces import Adapter
from gateway.isolation import Guard


class NotEventsError(TypeError):
    """An adapter returned something else than events."""


async def read(guard: Guard, adapter: Adapter, hit: Hit, *, inline: bool, verify: bool) -> Sequence[Normalized]:
    """
    Return what the adapter makes of the hit.

    Args:
        guard: Isolates the adapter, in one call for both steps.
        inline: The adapter is ours.
        verify: False leaves the proof out: it was given before.

    Raises:
        Rejected: What the adapter says of the hit.
        Unreadable: ``normalize`` raised, hung or returned rubbish, and the hit is authentic.
        Unavailable: Anything else, ``verify`` failing included.
    """
    is_proved = not verify

    def call() -> Sequence[Normalized]:
        nonlocal is_proved
        if verify:
            adapter.verify(hit)
            is_proved = True
        items = adapter.normalize(hit)
        if not _is_sound(items):
            raise NotEventsError
        return items

    try:
        return guard.inline(adapter.name, call) if inline else await guard.threaded(adapter.name, call)
    except PluginFailed as error:
        if is_proved:
            raise unreadable(error) from error
        raise


def unreadable(failure: PluginFailed) -> Unreadable:
    """Say of a failure that the hit is authentic."""
    return Unreadable(failure.plugin, failure.error, failure.where)


def _is_sound(items: object) -> bool:
    return isinstance(items, Sequence) and all(
        isinstance(item, Event | Skipped | Invalid | Erasure | Alarm) for item in items
    )
