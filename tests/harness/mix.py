"""
A mix of every kind of event, each a pure function of its id, and what may become of it.

An id is ``{prefix}-{letter}{number}``, with the letter of its kind; copies of one conversion under different ids end in
``a``, ``b``, ``c``. An id without a letter is a plain event (:mod:`tests.harness.load` without a mix).
"""

import hashlib
import json
import random
import re
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.harness.processes import ACCOUNT, SECRET

NAMES = ("checkout", "page_visit", "add_to_cart")
#: Kind → letter. *pair*: one order told by two sources. *chain*: {token}, {order}, {token, order} are one conversion.
#: *withdrawn*: an event, then its person's denial. *held*: a checkout without a person, waiting for its other half.
LETTERS = {
    "plain": "v", "pair": "p", "chain": "c", "nobody": "n", "denied": "k", "withdrawn": "w", "held": "h", "bot": "b",
    "unmapped": "u", "old": "o", "poison": "x", "test": "t", "offline": "f", "invalid": "i", "oversize": "z",
}  # fmt: skip
_KINDS = {letter: kind for kind, letter in LETTERS.items()}
#: What a load sends when it is told to send everything; ``again`` repeats a recent event.
EVERYTHING: Mapping[str, float] = {
    "plain": 48, "again": 12, "pair": 8, "chain": 3, "nobody": 3, "denied": 3, "withdrawn": 3, "held": 2, "bot": 3,
    "unmapped": 3, "old": 3, "poison": 3, "test": 3, "offline": 3, "invalid": 1, "oversize": 0.5,
}  # fmt: skip
#: What each kind is answered; kinds that are not here are taken in.
REFUSED = {
    "nobody": "no_identity", "denied": "consent", "bot": "bot", "unmapped": "unmapped", "old": "too_old",
}  # fmt: skip
#: Poisonous ids are these numbers only: the vendor must know them before.
POISONS = 400
_BOT = "Mozilla/5.0 (compatible; Pinterestbot/1.0; +http://www.pinterest.com/bot.html)"
_ID = re.compile(r"(?P<group>.*-(?P<letter>[a-z])(?P<number>\d+))(?P<member>[abc]?)")
_RECENT = 500


def kind_of(event_id: str) -> str:
    """Return the kind that an id says."""
    found = _ID.fullmatch(event_id)
    return _KINDS[found["letter"]] if found else "plain"


def group_of(event_id: str) -> str:
    """Return the conversion that an id belongs to."""
    found = _ID.fullmatch(event_id)
    return found["group"] if found else event_id


def member_of(event_id: str) -> str:
    """Return which copy of its conversion an id is, or nothing."""
    found = _ID.fullmatch(event_id)
    return found["member"] if found else ""


def keys_of(event_id: str) -> frozenset[str]:
    """Return the deduplication keys of an event: two events that share one are the same conversion."""
    keys = {f"id {event_id}"}
    if "order_id" in (event := event_of(event_id, 0.0)):
        keys.add(f"order {event['order_id']}")
    if "checkout_token" in event:
        keys.add(f"token {event['checkout_token']}")
    return frozenset(keys)


def may_end_unseen(event_id: str) -> bool:
    """Whether an accepted event may be dropped when it is claimed, or be withdrawn: metrics alone tell."""
    return kind_of(event_id) in ("held", "withdrawn")


def name_of(event_id: str) -> str:
    """Return the event name that belongs to an id."""
    kind = kind_of(event_id)
    if kind in ("pair", "chain", "withdrawn", "held"):
        return "checkout"
    if kind in ("nobody", "bot"):
        return "page_visit"
    if kind == "unmapped":
        return "newsletter"
    return NAMES[zlib.crc32(event_id.encode()) % len(NAMES)]


def value_of(event_id: str) -> str:
    """Return the value that belongs to an id; all copies of a conversion have the same."""
    return f"{zlib.crc32(group_of(event_id).encode()[::-1]) % 1_000_000 / 100:.2f}"


def email_of(event_id: str) -> str:
    """Return the person that belongs to an id."""
    return f"{group_of(event_id)}@load.example"


def phone_of(event_id: str) -> str:
    """Return the phone number that second copies tell."""
    return f"+49151{zlib.crc32(group_of(event_id).encode()) % 10_000_000:07}"


def event_of(event_id: str, now: float) -> dict[str, Any]:
    """Return the event that belongs to an id, as it is posted."""
    event: dict[str, Any] = {
        "event_name": name_of(event_id), "event_id": event_id, "event_time": int(now), "action_source": "web",
        "value": value_of(event_id), "currency": "USD", "user": {"email": email_of(event_id)},
    }  # fmt: skip
    kind, member = kind_of(event_id), member_of(event_id)
    if (kind == "pair") or (kind == "chain" and member in "bc"):
        event["order_id"] = f"order-{group_of(event_id)}"
    if kind == "chain" and member in "ac":
        event["checkout_token"] = f"token-{group_of(event_id)}"
    if member == "b":
        event["user"]["phone"] = phone_of(event_id)
    return event | _particular(kind, now)


def _particular(kind: str, now: float) -> dict[str, Any]:
    """Return what a kind has beside the usual."""
    particulars: dict[str, dict[str, Any]] = {
        "nobody": {"user": {}}, "held": {"user": {}}, "denied": {"consent": {"marketing": False}},
        "bot": {"client": {"ip": "203.0.113.9", "user_agent": _BOT}}, "old": {"event_time": int(now) - 700_000},
        "test": {"test": True}, "offline": {"action_source": "offline"}, "invalid": {"event_name": ["x"]},
    }  # fmt: skip
    return particulars.get(kind, {})


def sha(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_as_posted(event: dict[str, Any]) -> bool:
    """Whether a delivered event is what its id says, and nothing else."""
    event_id = event["event_id"]
    user = dict(event["user_data"])
    phone = user.pop("ph", None)
    may_have_phone = member_of(event_id) != ""  # another copy's number may have been merged
    return bool(
        event["event_name"] == name_of(event_id)
        and float(event["custom_data"]["value"]) == float(value_of(event_id))
        and event["custom_data"]["currency"] == "USD"
        and user == {"em": [sha(email_of(event_id))]}
        and (phone is None or (may_have_phone and phone == [sha(phone_of(event_id).lstrip("+"))]))
        and (event["action_source"] == "offline") == (kind_of(event_id) == "offline")
    )


class Request(NamedTuple):
    """One request: to which source, the ids of its events, and the events; ``length`` is a Content-Length to claim."""

    source: str
    ids: Sequence[str]
    body: bytes
    length: int | None = None


class Mixer:
    """Makes requests of the mix, in a seeded order; later copies of a conversion come some requests later."""

    def __init__(self, rng: random.Random, prefix: str, mix: Mapping[str, float]) -> None:
        self._rng = rng
        self._prefix = prefix
        self._kinds, self._weights = list(mix), list(mix.values())
        self._serial = 0
        self._poisons = 0
        self._recent: deque[tuple[str, str]] = deque(maxlen=_RECENT)
        self._later: deque[tuple[str, str, dict[str, Any]]] = deque()

    def request(self, count: int, now: float) -> Request:
        """Return the next request, of ``count`` events or of one."""
        if len(self._later) > 20 or (self._later and self._rng.random() < 0.2):
            source, event_id, more = self._later.popleft()
            return _request(source, [event_id], now, more)
        kind = self._kind()
        if kind == "again" and self._recent:
            source, event_id = self._rng.choice(self._recent)
            return _request(source, [event_id], now, {})
        if kind == "oversize":
            event_id = self._id(kind)
            return Request("api", [event_id], json.dumps(event_of(event_id, now)).encode(), 64 << 20)
        ids = [self._fresh(kind if kind != "again" else "plain")]
        while len(ids) < count:
            kind = self._kind()
            ids.append(self._fresh("plain" if kind in ("again", "oversize") else kind))
        return _request("api", ids, now, {})

    def _kind(self) -> str:
        kind = self._rng.choices(self._kinds, self._weights)[0]
        if kind == "poison" and self._poisons >= POISONS:
            return "plain"
        return kind

    def _id(self, kind: str) -> str:
        if kind == "poison":
            self._poisons += 1
            return poison_id(self._prefix, self._poisons - 1)
        self._serial += 1
        return f"{self._prefix}-{LETTERS[kind]}{self._serial}"

    def _fresh(self, kind: str) -> str:
        event_id = self._id(kind)
        if kind in ("pair", "chain"):
            self._later.append(("crm", f"{event_id}b", {}))
            if kind == "chain":
                self._later.append(("crm", f"{event_id}c", {}))
            event_id += "a"
        if kind == "withdrawn":
            self._later.append(("api", event_id, {"consent": {"marketing": False}}))
        if kind in ("plain", "pair", "offline", "test", "chain"):
            self._recent.append(("api", event_id))
        return event_id


def _request(source: str, ids: Sequence[str], now: float, more: Mapping[str, Any]) -> Request:
    events = [{**event_of(event_id, now), **more} for event_id in ids]
    return Request(source, ids, json.dumps(events[0] if len(events) == 1 else events).encode())


def poison_id(prefix: str, number: int) -> str:
    """Return the id of a poisonous event."""
    return f"{prefix}-{LETTERS['poison']}{number}"


def poison_fault(prefix: str) -> dict[str, Any]:
    """Return the sandbox's standing fault that refuses every poisonous event of a load, and only those."""
    return {"kind": "partial", "event_ids": [poison_id(prefix, number) for number in range(POISONS)]}


def mixed_config(*, batch_size: int = 50, linger_s: float = 0.05, hold_s: float = 0.3, more: str = "") -> str:
    """Return a configuration for a mix: two server sources of one shop; ``more`` belongs to the destination's table."""
    source = f"""adapter = "browser_tag"
site = "shop"
secrets = ["{SECRET}"]
destinations = ["pinterest"]
event_names = {{ newsletter = "" }}"""
    return f"""
[server]
bind = "127.0.0.1:{{port}}"
graceful_s = 3.0
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = {hold_s}
[sources.api]
{source}
[sources.crm]
{source}
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
batch_size = {batch_size}
linger_s = {linger_s}
{more}
"""
