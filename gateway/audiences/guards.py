"""What stops a pass before it removes anyone. Each guard returns why, and what to do; "" lets the pass go on."""

from gateway.audience import Group
from gateway.audiences.records import Settings

_CONFIRM = "if that is right, sync with --confirm"


def not_ready(group: Group) -> str:
    """
    Return why nobody's leaving can be told now: the list or segment is being built, or is no longer kept up.

    Source: Klaviyo's API, ``is_processing`` and ``is_active`` of a segment: "Inactive segments are not processed and
    their membership does not update".
    """
    if group.state == "ready":
        return ""
    return (
        f"The {group.kind or 'list'} is {group.state} at the source, so who left cannot be told: nobody is removed "
        f"until it is ready (activate it there, or wait); {_CONFIRM}."
    )


def ended_early(settings: Settings, group: Group, seen: int) -> str:
    """Return why a scan is not believed: it told of far fewer members than the source counts."""
    if group.size is None:
        return ""
    missing = group.size - seen
    if missing <= settings.small and not (seen == 0 and missing > 0):
        return ""
    if missing <= group.size * settings.max_missing:
        return ""
    return (
        f"The source counts {group.size:,} members, but told of {seen:,} only: nobody is removed; the next full pass "
        f"reads them again; {_CONFIRM}."
    )


def too_many(settings: Settings, removals: int, kept: int, allowed: int) -> str:
    """Return why so many removals do not happen by themselves; ``allowed`` were confirmed."""
    if removals <= max(settings.small, allowed) or removals <= kept * settings.max_removal:
        return ""
    return (
        f"{removals:,} of {kept:,} people would be removed from the audience, more than max_removal "
        f"({settings.max_removal:.0%}) allows: nobody is removed; {_CONFIRM}."
    )
