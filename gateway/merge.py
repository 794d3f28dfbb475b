"""
Merging: two copies of one conversion become one event with all signals of both.

The rules are those of the project's design, *Identity of an event*. Missing values are filled in. On conflict a signed
server source wins for identifiers, amount, currency, items and order id, a browser for event id, event time, source
URL, address, user agent and click id; what a memory filled in loses to what a copy told. The stricter privacy state
always wins. The result does not depend on the order in which a browser's and a server's copy arrive.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import structs

from gateway.event import Client, Purchase, SealedEvent

Side = Literal["browser", "server"]
_Taken = dict[str, Any]
_NO_PURCHASE = Purchase()


def origin_of(event: SealedEvent, signal: str) -> str:
    """Return where a signal of the event came from: ``browser:NAME``, ``server:NAME`` or ``memory:KEY``."""
    return event.origins.get(signal) or f"{event.born}:{event.source}"


def signals(event: SealedEvent) -> frozenset[str]:
    """Return the names of what the event carries: identifiers by the destination's names, the rest by the gateway's."""
    client, purchase = event.client, event.purchase
    told = (
        ("client_ip", client.ip), ("client_user_agent", client.user_agent), ("value", purchase.value is not None),
        ("items", purchase.items or purchase.content_ids), ("order_id", purchase.order_id),
        ("source_url", event.source_url),
    )  # fmt: skip
    return frozenset([*event.user, *event.click_ids, *(name for name, value in told if value)])


def provenance(event: SealedEvent) -> dict[str, list[str]]:
    """Return the event's signals by where they came from."""
    found: dict[str, list[str]] = {}
    for signal in sorted(signals(event)):
        found.setdefault(origin_of(event, signal), []).append(signal)
    return found


def join(kept: SealedEvent, copy: SealedEvent, frozen: bool) -> SealedEvent:
    """
    Return ``kept`` with what ``copy`` adds.

    ``frozen``: the kept event was attempted: only identifiers, click id, address and user agent that it lacks are
    filled in, and its privacy state may become stricter.
    """
    return _Merge(kept, copy, frozen).result()


class _Merge:
    """One merge: looks at each value, and notes where it came from."""

    def __init__(self, kept: SealedEvent, copy: SealedEvent, frozen: bool) -> None:
        self._kept = kept
        self._copy = copy
        self._frozen = frozen
        self._origins = dict(kept.origins)

    def result(self) -> SealedEvent:
        kept, copy = self._kept, self._copy
        changes: _Taken = {
            "user": self._each(kept.user, copy.user, "server"),
            "click_ids": self._each(kept.click_ids, copy.click_ids, "browser"),
            "client": self._client(),
            "limited_data": kept.limited_data or copy.limited_data,
            "opt_out": copy.opt_out if kept.opt_out is None else kept.opt_out or bool(copy.opt_out),
            "unsigned": kept.unsigned and copy.unsigned,
        }
        if not self._frozen:
            changes |= self._identity()
            changes |= self._context()
            changes["purchase"] = self._purchase()
            changes["extra"] = self._each(kept.extra, copy.extra, "browser")
            changes["notes"] = tuple(dict.fromkeys((*kept.notes, *copy.notes)))
        elif copy.tag and not kept.tag and copy.event_id == kept.event_id:
            # nothing of it changes: its id turns out to be the tag's too
            changes["tag"] = True
            self._note("event_id")
        changes["origins"] = self._origins
        return structs.replace(kept, **changes)

    def _outranks(self, signal: str, favoured: Side) -> bool:
        return self._rank(self._copy, signal, favoured) > self._rank(self._kept, signal, favoured)

    def _rank(self, event: SealedEvent, signal: str, favoured: Side) -> tuple[bool, bool]:
        """Told beats remembered, then the favoured side beats the other."""
        side = origin_of(event, signal).partition(":")[0]
        told = side != "memory"
        return told, (side if told else event.born) == favoured

    def _take(self, mine: object, theirs: object, signal: str, favoured: Side) -> bool:
        """Whether the copy's value is to be taken; notes its origin then."""
        if theirs is None or theirs == ():
            return False
        missing = mine is None or mine == ()
        if not missing and (self._frozen or not self._outranks(signal, favoured)):
            return False
        # the same value of a better source counts too: a third copy must not replace it
        self._note(signal)
        return True

    def _adds(self, mine: object, theirs: object, signal: str, *, alone: bool) -> bool:
        """Whether the copy's value fills a gap, or wins where neither copy has what it belongs to (``alone``)."""
        return self._take(mine, theirs, signal, "server") if alone else mine is None and theirs is not None

    def _note(self, signal: str) -> None:
        origin = origin_of(self._copy, signal)
        if origin == f"{self._kept.born}:{self._kept.source}":
            self._origins.pop(signal, None)
        else:
            self._origins[signal] = origin

    def _each(self, mine: Mapping[str, Any], theirs: Mapping[str, Any], favoured: Side) -> dict[str, Any]:
        taken = {name: value for name, value in theirs.items() if self._take(mine.get(name), value, name, favoured)}
        return {**mine, **taken}

    def _client(self) -> Client:
        mine, theirs = self._kept.client, self._copy.client
        ip = theirs.ip if self._take(mine.ip, theirs.ip, "client_ip", "browser") else mine.ip
        agent = mine.user_agent
        if self._take(agent, theirs.user_agent, "client_user_agent", "browser"):
            agent = theirs.user_agent
        return Client(ip=ip, user_agent=agent)

    def _identity(self) -> _Taken:
        """Of two explicit ids the one that the page's own tag sent wins, then the browser's; explicit beats derived."""
        kept, copy = self._kept, self._copy
        changes: _Taken = {}
        if self._id_rank(copy) > self._id_rank(kept):
            changes = {"event_id": copy.event_id, "explicit_id": copy.explicit_id, "tag": copy.tag}
            self._note("event_id")
        if self._take(kept.event_time, copy.event_time, "event_time", "browser"):
            changes["event_time"] = copy.event_time
        return changes

    def _id_rank(self, event: SealedEvent) -> tuple[bool, bool, bool]:
        browser = origin_of(event, "event_id").startswith("browser:")
        return event.explicit_id, event.explicit_id and event.tag, browser

    def _context(self) -> _Taken:
        """Return what surrounds the event: the browser saw it."""
        changes: _Taken = {}
        for name in ("source_url", "search_string", "partner_id", "language"):
            value = getattr(self._copy, name)
            if self._take(getattr(self._kept, name), value, name, "browser"):
                changes[name] = value
        for name in ("content", "app", "device"):
            mine, theirs = getattr(self._kept, name), getattr(self._copy, name)
            taken = {
                field: value
                for field, value in structs.asdict(theirs).items()
                if self._take(getattr(mine, field), value, f"{name}.{field}", "browser")
            }
            if taken:
                changes[name] = structs.replace(mine, **taken)
        return changes

    def _purchase(self) -> Purchase:
        mine, theirs = self._kept.purchase, self._copy.purchase
        if theirs == _NO_PURCHASE:
            return mine
        changes: _Taken = {}
        if self._take(mine.value, theirs.value, "value", "server"):
            # an amount is never paired with the other copy's currency while it has its own
            changes = {"value": theirs.value, "currency": theirs.currency or mine.currency}
        elif self._adds(mine.currency, theirs.currency, "currency", alone=mine.value is theirs.value is None):
            changes = {"currency": theirs.currency}
        if self._take(_goods(mine), _goods(theirs), "items", "server"):
            changes |= {"items": theirs.items, "content_ids": theirs.content_ids}
            changes["num_items"] = mine.num_items if theirs.num_items is None else theirs.num_items
        elif self._adds(mine.num_items, theirs.num_items, "num_items", alone=_goods(mine) == _goods(theirs) == ()):
            changes["num_items"] = theirs.num_items
        for name in ("order_id", "predicted_ltv"):
            if self._take(getattr(mine, name), getattr(theirs, name), name, "server"):
                changes[name] = getattr(theirs, name)
        return structs.replace(mine, **changes) if changes else mine


def _goods(purchase: Purchase) -> tuple[object, ...]:
    return (*purchase.items, *purchase.content_ids)
