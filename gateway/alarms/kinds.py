"""What can be wrong, in an operator's words: a title and a remedy for each kind of alarm."""

from collections.abc import Mapping

from gateway.event import Struct


class Kind(Struct, frozen=True, kw_only=True):
    """
    One kind. ``lasts``: it tells of something that happened and stays until it is acknowledged, or for seven days;
    any other tells of a state, and goes with it.
    """

    title: str
    remedy: str
    lasts: bool = False


KINDS: Mapping[str, Kind] = {
    "lane_paused": Kind(
        title="A destination refuses the credentials",
        remedy="Nothing is lost: everything is kept. Set a token that works, see that the account may be used, reload.",
    ),
    "queue_old": Kind(
        title="Deliveries are late",
        remedy="See the destination's state on the page Deliveries, and whether the network reaches it.",
    ),
    "dead_grows": Kind(
        title="New dead letters",
        remedy="Look at their reasons (page Deliveries, or 'tag-gateway dead list'), mend the cause, and replay them.",
    ),
    "store_damaged": Kind(
        title="A damaged store was moved aside",
        remedy="Bring back what can be read: tag-gateway salvage.",
    ),
    "disk_low": Kind(
        title="Hits are refused: the disk is nearly full",
        remedy="Make room on the store's disk; it goes on by itself.",
    ),
    "store_unwritable": Kind(
        title="Hits are refused: the store cannot be written",
        remedy="See the log for the cause, that the disk is sound, and that no other program holds the file.",
    ),
    "quarantined": Kind(
        title="Hits that could not be read are kept",
        remedy="Update or mend the plugin, then run 'tag-gateway quarantine replay --all' before they expire.",
    ),
    "quarantine_full": Kind(
        title="Hits that could not be read are answered 503",
        remedy="Update or mend the plugin and replay what is kept, or give [quarantine] max_mb more room.",
    ),
    "quarantine_expired": Kind(
        title="Hits that could not be read were deleted",
        remedy="They are lost. Replay within [quarantine] keep_s the next time, or make it longer.",
        lasts=True,
    ),
    "plugin_failed": Kind(
        title="A plugin fails",
        remedy="The log names place and kind of each failure (plugin_failed). Update the plugin, or tell its author.",
    ),
    "plugin_switched_off": Kind(
        title="A plugin was switched off",
        remedy="It hung too often; its hits are answered 503. Update it or tell its author, then restart the gateway.",
    ),
    "data_request": Kind(
        title="A customer asks for their data",
        remedy="Answer within 30 days, delete the file afterwards, then acknowledge this.",
        lasts=True,
    ),
    "app_uninstalled": Kind(
        title="The shop removed the app",
        remedy="Its webhooks have ended. Install it again, or take the source out of the configuration.",
        lasts=True,
    ),
    "audience_waiting": Kind(
        title="An audience waits for you",
        remedy="Look at it on the page Audiences, or with 'tag-gateway audiences status'.",
    ),
    "silent_source": Kind(
        title="A source is silent",
        remedy="See whether the shop or site works, and whether its tag or webhooks are still there.",
    ),
    "ratio_off": Kind(
        title="Pages and servers no longer tell of the same events",
        remedy="Look for what was changed on the side that fell: the page's tag and its consent, or the webhooks.",
    ),
    "shed": Kind(
        title="Hits are refused for want of room",
        remedy="See Overload in docs/operations.md: the reason says which budget ran out.",
    ),
    "signature_refused": Kind(
        title="Hits are refused: signature or secret",
        remedy="A secret was changed on one side only, or somebody guesses: the cause says which, see 'unauthorized'.",
    ),
    "alerts_failing": Kind(
        title="Alarms cannot be sent",
        remedy="Check [alerts] url with 'tag-gateway check --online --alert': nobody hears of alarms until it works.",
    ),
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """Return a kind; one that a plugin made up lasts."""
    known = KINDS.get(name)
    if known is not None:
        return known
    return Kind(title=f"A source reports: {name}", remedy="See docs/operations.md, or the source's own.", lasts=True)
