"""The words for connections and their passes, the same in a terminal and on a page."""

import re
from collections.abc import Mapping
from typing import Any

#: What a pass is doing.
PHASES = {
    "scan": "reading members", "quick": "reading who joined", "compare": "comparing", "create": "creating the audience",
    "add": "adding", "remove": "removing", "forget": "tidying up",
}  # fmt: skip
#: Why members are not mirrored.
LEFT_OUT = {
    "no_email": "without e-mail", "invalid_email": "with an unusable e-mail", "suppressed": "suppressed",
    "unsubscribed": "unsubscribed", "opted_out": "opted out or erased",
}  # fmt: skip
#: Source: Pinterest API v5, Audience.status: at least 100 Pinterest accounts are needed.
TOO_SMALL = (
    "TOO_SMALL: fewer than 100 of these people have a Pinterest account. Nothing is wrong: only people with an account "
    "count, so an audience is always smaller than its list, and Pinterest takes up to 48 hours. It grows with the list."
)
#: What each state of a connection means.
STATES = {
    "new": "Connected, not synced yet",
    "running": "A pass is under way",
    "ok": "In step",
    "creating": "The audience's vendor is still reading the list; the audience follows by itself",
    "waiting": "One side asked to come back later; it goes on by itself",
    "held": "A guard stopped removals",
    "attention": "You must mend something; the message says what",
    "leaving": "Being disconnected",
}


def span(seconds: float) -> str:
    """Return a length of time, such as ``3 h``."""
    seconds = max(0.0, seconds)
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def did(outcome: Mapping[str, Any]) -> str:
    """Return what a pass (the fields of :class:`gateway.audiences.Outcome`) did, in one sentence."""
    if outcome["dry_run"]:
        done = f"would add {outcome['to_add']:,} and remove {outcome['to_remove']:,}; nothing was told to the audience"
    else:
        done = f"added {outcome['added']:,}, removed {outcome['removed']:,}"
        done += f", failed {outcome['failed']:,}" if outcome["failed"] else ""
    members = "member" if outcome["read"] == 1 else "members"
    return f"{outcome['kind']} pass, {outcome['read']:,} {members} read, {done} ({outcome['duration_s']:.1f} s)"


def left_out(skipped: Mapping[str, int]) -> str:
    """Return who is left out, by reason."""
    return ", ".join(f"{count:,} {LEFT_OUT.get(reason, reason)}" for reason, count in skipped.items()) or "nobody"


#: What messages say of the command line, and what the page has in its place.
_OPTIONS = (
    (re.compile(r"sync with --confirm"), "confirm it below"),
    (re.compile(r"connect with --no-remove"), "choose “Never remove anybody”"),
    (re.compile(r"connect to it with --audience (\S+),"), r"choose it below (\1),"),
    (re.compile(r"name one by --account: "), "choose one: "),
    (re.compile(r" \(--(?:account|audience|create(?: NAME)?)\)"), ""),
    (re.compile(r": tag-gateway audiences status lists them"), ": it was disconnected"),
    (re.compile(r"or first run: tag-gateway audiences disconnect (\d+)"), r"or disconnect connection \1 first"),
    (re.compile(r":? ?(?:run )?'?tag-gateway audiences login'?"), ": log in above"),
)


def on_page(message: str) -> str:
    """Return a message of the engine as the page says it: its buttons in place of options."""
    for pattern, words in _OPTIONS:
        message = pattern.sub(words, message)
    return message
