"""
What a reason means and what to do about it: of dead letters, in two classes, and of lanes that do not run.

A sentence for each code that the gateway itself gives; a plugin's own codes are told as such.
"""

from typing import Literal

from gateway.event import Struct

#: ``ours``: the gateway built or judged something wrongly, or a setting decides. ``theirs``: the event's data, the
#: account, or the vendor.
Side = Literal["ours", "theirs"]


class Meaning(Struct, frozen=True, kw_only=True):
    """A dead letter's reason. ``remedy``: what to do before replaying; ``helps``: whether replaying can help at all."""

    side: Side
    meaning: str
    remedy: str
    helps: bool = True


def _ours(meaning: str, remedy: str, *, helps: bool = True) -> Meaning:
    return Meaning(side="ours", meaning=meaning, remedy=remedy, helps=helps)


def _theirs(meaning: str, remedy: str, *, helps: bool = True) -> Meaning:
    return Meaning(side="theirs", meaning=meaning, remedy=remedy, helps=helps)


_TOKEN = "Make a new token in Ads Manager, set it at this destination, reload; then replay."  # noqa: S105 - it is none
#: Source: the reasons that gateway.sender and the built-in destination give; docs/operations.md has the same table.
MEANINGS: dict[str, Meaning] = {
    "invalid_request": _ours(
        "The whole call was refused, and this event was found to be at fault: what leaves here should be sound.",
        "Look at the preview and report it with the vendor's words. Update the gateway or the plugin, then replay.",
    ),
    "not_processed": _ours(
        "The call was understood but not processed, and this event was found to be at fault.",
        "Look at the preview and report it with the vendor's words. Update the gateway or the plugin, then replay.",
    ),
    "too_large": _ours(
        "The event alone is larger than the vendor takes.",
        "Send fewer items or shorter texts. Replay helps only after an update that sends less.",
    ),
    "unclear": _ours(
        "A call of offline events was refused without saying which one is at fault, and offline events are never sent "
        "twice on suspicion.",
        "Mend what the words say, then replay: those that had arrived count twice.",
    ),
    "plugin_failed": _ours(
        "The destination's plugin failed on this event.",
        "The log names the error. Update the plugin, then replay.",
    ),
    "late": _ours(
        'Over an hour old, and late = "dead" keeps such events back.',
        'Discard them, or set late = "send", reload, and replay: the vendor counts them as offline.',
    ),
    "unsigned": _ours(
        "Only a page told of this checkout; the site wants a signed source to tell of it, too.",
        "See whether the signed source works. Replaying does not help before its copy has come; discard it.",
        helps=False,
    ),
    "refused": _theirs(
        "The vendor refused this event, for the reason in its words.",
        "Mend the sender or the account as the words say, then replay.",
    ),
    "expired": _theirs(
        "The vendor took nothing for as long as an event is tried ([pipeline] retry_life_s).",
        "See the destination's state above. Replay when the vendor works again.",
    ),
    "unauthorized": _theirs("The vendor did not accept the token.", _TOKEN),
    "forbidden": _theirs(
        "The token may not send events for this account.",
        "Check the account's number, and the role of the token's user in it; then replay.",
    ),
    "not_found": _theirs("The vendor knows no such account.", "Check ad_account_id and base_url, reload; then replay."),
    "too_old": _theirs(
        "Older than the vendor takes (max_event_age_s) when it was to be sent again.",
        "Too late to send: discard it, or raise max_event_age_s if the vendor takes older ones.",
        helps=False,
    ),
    "no_identity": _theirs(
        "No e-mail address, no mobile ad id, and not both IP address and browser: the vendor refuses such events.",
        "Send more of the person with the next ones. What is missing here cannot be filled in: discard it.",
        helps=False,
    ),
}  # fmt: skip
_UNKNOWN = _ours(
    "A reason of the destination's own plugin.",
    "See the plugin's documentation and its lines in the log; update it, then replay.",
)


def meaning_of(code: str) -> Meaning:
    """Return what a dead letter's code means."""
    return MEANINGS.get(code, _UNKNOWN)


_LANES = {
    "unauthorized": "The vendor does not accept the token: make a new one in Ads Manager, set it at this destination, "
    "and reload.",
    "forbidden": "The token may not send events for this account: check ad_account_id, and that the token's user owns "
    "the account or has a role in it.",
    "not_found": "Nothing is there: check base_url and ad_account_id.",
    "redirected": "The address redirects, which is not followed: check base_url.",
    "rate_limited": "The vendor asked for fewer calls; it goes on by itself when the wait is over.",
    "ramped_down": "The vendor takes less for now; it goes on by itself.",
    "unreachable": "The vendor cannot be reached: it is tried again by itself; check the network if it stays so.",
    "unreadable_answer": "The answer is none of the vendor's: check base_url, and what is in between.",
    "plugin_failed": "The destination's plugin fails: the log names the error; update the plugin.",
}


def remedy_of_lane(state: str, reason: str | None) -> str:
    """Return what to do about a lane that is ``backing_off`` or ``paused``, "" for one that runs."""
    if state == "running":
        return ""
    told = _LANES.get((reason or "").partition(":")[0])
    if told is None:
        told = (
            "Check this destination's token, account and address."
            if state == "paused"
            else "The vendor is in trouble; it is tried again by itself."
        )
    return f"{told} Nothing is lost."
