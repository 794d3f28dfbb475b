"""
The memory: what a later event may need of an earlier hit, and what a person chose.

A hit's click id, and its address and user agent, are remembered under the event's join keys (client id, cart and
checkout token, hashed e-mail, external id; only keyed hashes of them are kept). A later event of the site that lacks
them gets them: the newest click id, within ``life_s``; address and user agent for a day at most, and only by the same
client or checkout, never by a person. An event's own values always win.

A denied consent or limited data is remembered under the same keys instead, and applies to later events until the
person's newer choice; nothing else is remembered then.
"""

from collections.abc import Callable, Sequence

from msgspec import structs

from gateway.event import Client, Event, User
from gateway.hit import Source
from gateway.identity import CLAMP_S
from gateway.outbox import ALLOWED, LIMITED, OPTED_OUT, Memorandum, Outbox, Remembered
from gateway.outcome import Settled
from gateway.subjects import NOBODY, Person, person_of, site_subjects

#: Where the step stands among enrichers: after ``client`` and ``click_id``, before ``privacy``.
ORDER = 25
#: Source: the project's design, *Memory*: address and user agent 24 h at most.
CLIENT_LIFE_S = 86_400
#: Keys that stand for one browser.
_BROWSER = frozenset({"client", "checkout"})
#: The same values are written again only after so long: a visitor's pages cost one write an hour, not one each.
_CLIENT_AGAIN_S = 3_600
_CLICK_AGAIN_S = 86_400
_CACHED = 20_000
#: A browser that very many people share is not traced to all of them.
_MOST_SUBJECTS = 32


class Trail:
    """
    What one event found and told: made by :meth:`Memory.recall`, used by :meth:`Memory.note`.

    The values are the newest of what the event itself says and what is known under its keys, each with its time.
    """

    __slots__ = (
        "click_at", "clicks", "ip", "keys", "marketing", "marketing_at", "moment", "origins", "person", "records",
        "sale", "sale_at", "seen_at", "site", "user", "user_agent",
    )  # fmt: skip

    def __init__(self, moment: float, site: bytes) -> None:
        self.moment = moment
        self.site = site
        self.keys: list[tuple[str, bytes]] = []
        #: Whose event it is, and of which identifiers that was made.
        self.person: Person = NOBODY
        self.user: User | None = None
        self.records: dict[bytes, Remembered] = {}
        #: Signals that the event got from the memory, and by which key.
        self.origins: dict[str, str] = {}
        self.clicks: dict[str, str] | None = None
        self.click_at = 0.0
        self.ip: str | None = None
        self.user_agent: str | None = None
        self.seen_at = 0.0
        self.marketing: bool | None = None
        self.marketing_at = 0.0
        self.sale: int | None = None
        self.sale_at = 0.0


class Memory:
    """
    Recalls and notes, on the event loop.

    Args:
        outbox: Where it is kept, in the same commit as the event.
        clock: Wall time, Unix seconds.
        life_s: How long a click id and a choice are remembered; 0: nothing is.
    """

    def __init__(self, outbox: Outbox, clock: Callable[[], float], life_s: float) -> None:
        self._outbox = outbox
        self._clock = clock
        self.life_s = life_s
        self._cache: dict[bytes, Remembered] = {}

    # -- recalling

    async def recall(self, event: Event, source: Source, moment: float) -> tuple[Event, Trail]:
        """
        Return the event with what it lacks and is remembered, and the trail for :meth:`note`.

        Raises:
            Unavailable: The store cannot be read; without the person's choices nothing may be accepted.
        """
        digest, site = self._outbox.digest, source.site
        trail = Trail(moment, site_subjects(digest, site)[0])
        trail.user = event.user
        trail.person = person_of(digest, site, event.user, source.default_country)
        if not self.life_s:
            return event, trail
        trail.keys = keys = self._keys(event, site, trail.person)
        if not keys:
            return event, trail
        await self._load(trail)
        now = self._clock()
        known = _newest(keys, trail.records) if trail.records else None
        _tell(trail, event)
        if known is not None:
            event = self._complete(event, trail, known, now)
            _carry(trail, known)
        return event, trail

    def _keys(self, event: Event, site: str, person: Person) -> list[tuple[str, bytes]]:
        digest = self._outbox.digest
        keys = []
        if event.client_id:
            keys.append(("client", digest("memory", site, "client", event.client_id)))
        keys += [
            ("checkout", digest("memory", site, "checkout", key.value)) for key in event.keys if key.kind == "checkout"
        ]
        if event.cart_token:
            keys.append(("cart", digest("memory", site, "cart", event.cart_token)))
        if person is not NOBODY:
            # the same as the person's subjects: an erasure finds them, and audiences ask by e-mail
            keys += [("email", one) for one in person.emails]
            keys += [("external_id", one) for one in person.ids]
        return keys

    async def _load(self, trail: Trail) -> None:
        """Take the records of the trail's keys from the cache, and the others from the store."""
        cache, missing = self._cache, []
        for _, digest in trail.keys:
            record = cache.get(digest)
            if record is not None:
                trail.records[digest] = record
            elif self._outbox.may_remember(digest):
                missing.append(digest)
        if missing:
            for digest, record in (await self._outbox.recall(missing)).items():
                # another hit may have brought it meanwhile
                trail.records[digest] = self._cache.get(digest) or self._keep(digest, record)

    def _keep(self, digest: bytes, record: Remembered) -> Remembered:
        cache = self._cache
        cache.pop(digest, None)
        cache[digest] = record
        if len(cache) > _CACHED:
            del cache[next(iter(cache))]
        return record

    def _complete(self, event: Event, trail: Trail, known: Trail, now: float) -> Event:
        """Fill in what the event lacks; its own values stay."""
        changes: dict[str, object] = {}
        if known.clicks and now - known.click_at <= self.life_s and known.click_at <= trail.moment + CLAMP_S:
            added = {vendor: click for vendor, click in known.clicks.items() if vendor not in event.click_ids}
            if added:
                changes["click_ids"] = {**event.click_ids, **added}
                trail.origins.update(dict.fromkeys(added, known.origins["click"]))
        client = event.client
        lacks = not client.ip or not client.user_agent
        if lacks and event.action_source != "offline" and now - known.seen_at <= CLIENT_LIFE_S:
            filled = Client(ip=client.ip or known.ip, user_agent=client.user_agent or known.user_agent)
            if filled != client:
                changes["client"] = filled
                for name, own, new in (
                    ("client_ip", client.ip, filled.ip), ("client_user_agent", client.user_agent, filled.user_agent),
                ):  # fmt: skip
                    if new and not own:
                        trail.origins[name] = known.origins["client"]
        changes |= _choices(event, trail, known)
        return structs.replace(event, **changes) if changes else event

    # -- noting

    def note(self, trail: Trail, event: Event | None) -> tuple[Memorandum, ...]:
        """
        Return what is to be committed with the event; ``event`` is what the enrichers made of it, None when consent was
        denied.
        """
        barred = event is None or event.limited_data is True
        if event is not None and trail.sale is None and (barred or event.consent.sale_of_data is False):
            trail.sale, trail.sale_at = OPTED_OUT, trail.moment  # as the privacy step read it from a signal
        if event is None and trail.marketing is not False:
            trail.marketing, trail.marketing_at = False, trail.moment
        expires = int(self._clock() + self.life_s)
        written = []
        for kind, digest in trail.keys:
            record = self._cache.get(digest) or trail.records.get(digest)
            if record is None:
                if not self._has_room(digest):
                    continue
                record = Remembered()
            changed = _update(record, trail, kind, barred=barred)
            if not changed and record.is_empty:
                continue
            if not (_belongs(record, trail) or changed):
                continue
            record.expires = expires
            self._keep(digest, record)
            written.append(Memorandum(digest, record, trail.moment))
        return tuple(written)

    def _has_room(self, digest: bytes) -> bool:
        return self._outbox.has_room or self._outbox.may_remember(digest)

    def forget(self, memories: Sequence[Memorandum]) -> None:
        """Leave the cache's copies: their commit failed."""
        for digest, _, _ in memories:
            self._cache.pop(digest, None)

    async def erase(self, subjects: Sequence[bytes], *, requested_at: float) -> list[Settled]:
        """Erase what is remembered of these subjects, and all that the outbox has of them."""
        self._blank(subjects)
        ended = await self._outbox.erase(subjects, requested_at=requested_at)
        self._blank(subjects)  # what a hit brought while that was going on
        return ended

    def _blank(self, subjects: Sequence[bytes]) -> None:
        wanted = set(subjects)
        for digest, record in list(self._cache.items()):
            if digest in wanted or not wanted.isdisjoint(record.subjects):
                record.blank()  # in whatever commit it is on its way
                del self._cache[digest]


def _newest(keys: Sequence[tuple[str, bytes]], records: dict[bytes, Remembered]) -> Trail:
    """Return the newest of everything that these keys remember."""
    found = Trail(0.0, b"")
    for kind, digest in keys:
        record = records.get(digest)
        if record is None:
            continue
        if record.clicks is not None and record.click_at > found.click_at:
            found.clicks, found.click_at = record.clicks, record.click_at
            found.origins["click"] = f"memory:{kind}"
        if kind in _BROWSER and record.seen_at > found.seen_at and (record.ip or record.user_agent):
            found.ip, found.user_agent, found.seen_at = record.ip, record.user_agent, record.seen_at
            found.origins["client"] = f"memory:{kind}"
        if record.marketing is not None and record.marketing_at > found.marketing_at:
            found.marketing, found.marketing_at = record.marketing, record.marketing_at
        if record.sale is not None and record.sale_at > found.sale_at:
            found.sale, found.sale_at = record.sale, record.sale_at
    return found


def _tell(trail: Trail, event: Event) -> None:
    """Note what the event itself says."""
    moment, consent, client = trail.moment, event.consent, event.client
    if event.click_ids:
        trail.clicks, trail.click_at = event.click_ids, moment
    if (client.ip or client.user_agent) and event.action_source != "offline":
        trail.ip, trail.user_agent, trail.seen_at = client.ip, client.user_agent, moment
    if consent.marketing is not None:
        trail.marketing, trail.marketing_at = consent.marketing, moment
    if event.limited_data is True:
        trail.sale, trail.sale_at = LIMITED, moment
    elif consent.sale_of_data is False or consent.gpc is True:
        trail.sale, trail.sale_at = OPTED_OUT, moment
    elif event.limited_data is False or consent.sale_of_data is True:
        trail.sale, trail.sale_at = ALLOWED, moment


def _carry(trail: Trail, known: Trail) -> None:
    """Let what is known travel on to the event's other keys, with its own time."""
    if trail.clicks is None:
        trail.clicks, trail.click_at = known.clicks, known.click_at
    if trail.ip is None and trail.user_agent is None:
        trail.ip, trail.user_agent, trail.seen_at = known.ip, known.user_agent, known.seen_at
    if trail.marketing is None or known.marketing_at > trail.marketing_at:
        trail.marketing, trail.marketing_at = known.marketing, known.marketing_at
    if trail.sale is None or known.sale_at > trail.sale_at:
        trail.sale, trail.sale_at = known.sale, known.sale_at


def _choices(event: Event, trail: Trail, known: Trail) -> dict[str, object]:
    """Return what a remembered choice changes: a silent event follows it, and one that is older than it."""
    changes: dict[str, object] = {}
    consent = event.consent
    if known.marketing is False and (
        trail.marketing is None or (trail.marketing is True and known.marketing_at > trail.marketing_at)
    ):
        consent = structs.replace(consent, marketing=False)
    if known.sale and (trail.sale is None or (trail.sale == ALLOWED and known.sale_at > trail.sale_at)):
        if known.sale == LIMITED:
            changes["limited_data"] = True
        else:
            consent = structs.replace(consent, sale_of_data=False)
    if consent is not event.consent:
        changes["consent"] = consent
    if changes:
        changes["notes"] = (*event.notes, "privacy: remembered")
    return changes


def _update(record: Remembered, trail: Trail, kind: str, *, barred: bool) -> bool:
    """Bring the record up to date; returns whether it must be written."""
    changed = _update_choices(record, trail)
    if barred:
        if record.clicks is not None or record.ip is not None or record.user_agent is not None:
            record.clicks = record.ip = record.user_agent = None
            return True
        return changed
    if trail.clicks and _is_news(trail.clicks, trail.click_at, record.clicks, record.click_at, _CLICK_AGAIN_S):
        record.clicks, record.click_at = trail.clicks, trail.click_at
        changed = True
    if kind in _BROWSER and (trail.ip or trail.user_agent):
        mine, theirs = (trail.ip, trail.user_agent), (record.ip, record.user_agent)
        if _is_news(mine, trail.seen_at, theirs, record.seen_at, _CLIENT_AGAIN_S):
            record.ip, record.user_agent, record.seen_at = trail.ip, trail.user_agent, trail.seen_at
            changed = True
    return changed


def _is_news(mine: object, at: float, theirs: object, their_at: float, again_s: float) -> bool:
    return at > their_at + again_s or (at >= their_at and mine != theirs)


def _update_choices(record: Remembered, trail: Trail) -> bool:
    changed = False
    # a grant is worth keeping only where a refusal was
    if trail.marketing is not None and (trail.marketing is False or record.marketing is False):
        at = trail.marketing_at
        if _is_news(trail.marketing, at, record.marketing, record.marketing_at, _CLICK_AGAIN_S):
            record.marketing, record.marketing_at = trail.marketing, at
            changed = True
    if trail.sale is not None and (trail.sale or record.sale):
        # a signal does not weaken what the source said itself
        sale = LIMITED if trail.sale == OPTED_OUT and record.sale == LIMITED else trail.sale
        if _is_news(sale, trail.sale_at, record.sale, record.sale_at, _CLICK_AGAIN_S):
            record.sale, record.sale_at = sale, trail.sale_at
            changed = True
    return changed


def _belongs(record: Remembered, trail: Trail) -> bool:
    """Note whose the record is; returns whether that is news."""
    known = record.subjects
    missing = [subject for subject in (trail.site, *trail.person.all) if subject not in known]
    if not missing:
        return False
    site, *people = (*known, *missing) if known else missing
    record.subjects = (site, *people[-_MOST_SUBJECTS:])
    return True
