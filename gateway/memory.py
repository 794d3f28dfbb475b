"""
The memory: what a later event may need of an earlier hit, and what a person chose.

A hit's click id, and its address and user agent, are remembered under the event's join keys (client id, cart and
checkout token, hashed e-mail, external id; only keyed hashes of them are kept). A later event of the site that lacks
them gets them: the newest click id, within ``life_s``; address and user agent for a day at most, and only by the same
client or checkout, never by a person. An event's own values always win.

A denied consent or limited data is remembered under the same keys instead, and applies to later events until the
person's newer choice; nothing else is remembered then, and nothing is given to such an event.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.event import Event
from gateway.hit import Source
from gateway.identity import CLAMP_S
from gateway.outbox import ALLOWED, Memorandum, Outbox, Remembered
from gateway.outcome import Settled
from gateway.subjects import NOBODY, Person, person_of, site_subjects
from gateway.trail import CLIENT_LIFE_S, Trail, carry, completed, decide, drop_stale, stricter, tell

__all__ = ["ORDER", "Memory", "Trail"]

#: Where the step stands among enrichers: after ``client`` and ``click_id``, before ``privacy``.
ORDER = 25
#: Keys that stand for one browser.
_BROWSER = frozenset({"client", "checkout"})
#: The same values are written again only after so long: a visitor's pages cost one write an hour, not one each.
_CLIENT_AGAIN_S = 3_600
_CLICK_AGAIN_S = 86_400
_CACHED = 20_000
#: A browser that very many people share is not traced to all of them.
_MOST_SUBJECTS = 32


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
        self._cache: OrderedDict[bytes, Remembered] = OrderedDict()
        #: Erasures so far, and those under way.
        self._erasures = 0
        self._erasing = 0

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
        now = self._clock()
        trail.erasures = self._erasures
        missing = self._cached(trail, now)
        if missing:
            for key, record in (await self._outbox.recall(missing)).items():
                # another hit may have brought it meanwhile
                trail.records[key] = self._cache.get(key) or self._keep(key, record)
        known = self._newest(trail, now) if trail.records else None
        tell(trail, event)
        if known is not None:
            event = completed(event, trail, known)
            carry(trail, known)
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

    def _cached(self, trail: Trail, now: float) -> list[bytes]:
        """Take the records of the trail's keys from the cache; returns the keys to ask the store for."""
        cache, may_remember, missing = self._cache, self._outbox.may_remember, []
        for _, digest in trail.keys:
            record = cache.get(digest)
            if record is not None:
                if record.expires > now:
                    trail.records[digest] = record
                else:
                    del cache[digest]
            elif may_remember(digest):
                missing.append(digest)
        return missing

    def _keep(self, digest: bytes, record: Remembered) -> Remembered:
        cache = self._cache
        cache[digest] = record
        cache.move_to_end(digest)
        if len(cache) > _CACHED:
            cache.popitem(last=False)
        return record

    def _newest(self, trail: Trail, now: float) -> Trail:
        """
        Return the newest of everything that the trail's keys remember and that may still be used.

        What was seen after the event did not lead to it; a choice counts for events of any time.
        """
        found, latest, records = Trail(0.0, b""), trail.moment + CLAMP_S, trail.records
        oldest, seen = now - self.life_s, now - CLIENT_LIFE_S
        choices: list[tuple[float, int]] = []
        for kind, digest in trail.keys:
            record = records.get(digest)
            if record is None:
                continue
            at = record.click_at
            if record.clicks is not None and at > found.click_at and oldest < at <= latest:
                found.clicks, found.click_at = record.clicks, at
                found.origins["click"] = f"memory:{kind}"
            at = record.seen_at
            if kind in _BROWSER and at > found.seen_at and seen < at <= latest and (record.ip or record.user_agent):
                found.ip, found.user_agent, found.seen_at = record.ip, record.user_agent, at
                found.origins["client"] = f"memory:{kind}"
            at = record.marketing_at
            if record.marketing is not None and (
                at > max(found.marketing_at, oldest) or (at == found.marketing_at and not record.marketing)
            ):
                found.marketing, found.marketing_at = record.marketing, at
            if record.sale is not None and record.sale_at > oldest:
                choices.append((record.sale_at, record.sale))
        for at, sale in sorted(choices):
            found.sale, found.sale_at = stricter(found.sale, sale), at
        return found

    # -- noting

    def note(self, trail: Trail, event: Event | None) -> tuple[Memorandum, ...]:
        """
        Return what is to be committed with the event; ``event`` is what the enrichers made of it, None when consent was
        denied.
        """
        barred = event is None or event.limited_data is True
        decide(trail, event, barred=barred)
        if not barred and trail.records and (self._erasing or trail.erasures != self._erasures):
            return ()  # what it was told may have been erased since, and must not come back with it
        # a person who chose otherwise since is neither remembered by this hit nor forgotten
        is_overruled = barred and (trail.marketing is True if event is None else trail.sale == ALLOWED)
        now = self._clock()
        drop_stale(trail, now, self.life_s)
        cache, has_room, owners = self._cache, self._outbox.has_room, (trail.site, *trail.person.all)
        written = []
        for kind, digest in trail.keys:
            record = cache.get(digest) or trail.records.get(digest)
            if record is None:
                if not (has_room or self._outbox.may_remember(digest)):
                    continue
                record = Remembered(owners)
                changed = _change(record, trail, kind, barred=barred, keeps=is_overruled)
                if not _is_worth_it(record):
                    continue
            else:
                drop_stale(record, now, self.life_s)
                changed = _change(record, trail, kind, barred=barred, keeps=is_overruled)
                changed |= _belongs(record, owners) and not record.is_empty
            if changed or not record.is_saved:
                record.is_saved = False
                record.expires = self._end_of(record)
                self._keep(digest, record)
                written.append(Memorandum(digest, record, trail.moment))
        return tuple(written)

    def _end_of(self, record: Remembered) -> int:
        """Return when the last of what is remembered may be used no more."""
        end = record.seen_at + CLIENT_LIFE_S if record.ip or record.user_agent else 0.0
        if record.clicks is not None:
            end = max(end, record.click_at + self.life_s)
        if record.marketing is not None:
            end = max(end, record.marketing_at + self.life_s)
        if record.sale is not None:
            end = max(end, record.sale_at + self.life_s)
        return int(end) + 1

    def forget(self, memories: Sequence[Memorandum]) -> None:
        """Leave the cache's copies: their commit failed."""
        for digest, _, _ in memories:
            self._cache.pop(digest, None)

    async def erase(self, subjects: Sequence[bytes], *, requested_at: float) -> list[Settled]:
        """Erase what is remembered of these subjects, and all that the outbox has of them."""
        self._erasures += 1
        self._erasing += 1
        self._blank(subjects)
        try:
            # a request that claims to come from later must not refuse what is still to come
            return await self._outbox.erase(subjects, requested_at=min(requested_at, self._clock()))
        finally:
            self._blank(subjects)  # what a hit brought while that was going on
            self._erasing -= 1

    def _blank(self, subjects: Sequence[bytes]) -> None:
        wanted = set(subjects)
        for digest, record in list(self._cache.items()):
            if digest in wanted or not wanted.isdisjoint(record.subjects):
                record.blank()  # in whatever commit it is on its way
                del self._cache[digest]


def _is_worth_it(record: Remembered) -> bool:
    """Whether there is more than permissions: those are worth a row only where something else is."""
    return bool(record.clicks or record.ip or record.user_agent or record.marketing is False or record.sale)


def _wipe(record: Remembered) -> bool:
    """Forget everything but the choices; returns whether there was anything."""
    if record.clicks is None and record.ip is None and record.user_agent is None:
        return False
    record.clicks = record.ip = record.user_agent = None
    return True


def _update(record: Remembered, trail: Trail, kind: str) -> bool:
    """Bring click ids and client up to date; returns whether the record must be written."""
    changed = False
    if trail.clicks and _is_news(trail.clicks, trail.click_at, record.clicks, record.click_at, _CLICK_AGAIN_S):
        record.clicks, record.click_at = trail.clicks, trail.click_at
        changed = True
    if kind in _BROWSER and (trail.ip or trail.user_agent):
        mine, theirs = (trail.ip, trail.user_agent), (record.ip, record.user_agent)
        # half of what is known is no news
        is_part = mine != theirs and trail.ip in (None, record.ip) and trail.user_agent in (None, record.user_agent)
        again_s = CLIENT_LIFE_S if is_part else _CLIENT_AGAIN_S
        if _is_news(theirs if is_part else mine, trail.seen_at, theirs, record.seen_at, again_s):
            record.ip, record.user_agent, record.seen_at = trail.ip, trail.user_agent, trail.seen_at
            changed = True
    return changed


def _is_news(mine: object, at: float, theirs: object, their_at: float, again_s: float) -> bool:
    return at > their_at + again_s or (at >= their_at and mine != theirs)


def _update_choices(record: Remembered, trail: Trail) -> bool:
    changed = False
    if trail.marketing is not None:
        at = trail.marketing_at
        if _is_news(trail.marketing, at, record.marketing, record.marketing_at, _CLICK_AGAIN_S):
            record.marketing, record.marketing_at = trail.marketing, at
            changed = True
    if trail.sale is not None:
        sale = stricter(record.sale, trail.sale)
        if _is_news(sale, trail.sale_at, record.sale, record.sale_at, _CLICK_AGAIN_S):
            record.sale, record.sale_at = sale, trail.sale_at
            changed = True
    return changed


def _change(record: Remembered, trail: Trail, kind: str, *, barred: bool, keeps: bool) -> bool:
    """Bring the record up to date; with ``keeps`` an event that is barred takes nothing away."""
    changed = False
    if trail.marketing is not None or trail.sale is not None:
        changed = _update_choices(record, trail)
    if not barred:
        return _update(record, trail, kind) or changed
    return (not keeps and _wipe(record)) or changed


def _belongs(record: Remembered, owners: tuple[bytes, ...]) -> bool:
    """Note whose the record is; returns whether that is news."""
    known = record.subjects
    missing = [owner for owner in owners if owner not in known]
    if not missing:
        return False
    site, *people = (*known, *missing) if known else missing
    record.subjects = (site, *people[-_MOST_SUBJECTS:])
    return True
