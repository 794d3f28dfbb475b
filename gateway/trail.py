"""
What one event found in the memory and told: filled in from what is known, before anything new is noted.

Nothing here looks anything up: :mod:`gateway.memory` does.
"""

from msgspec import structs

from gateway.event import Client, Consent, Event, User
from gateway.outbox import ALLOWED, LIMITED, OPTED_OUT, Remembered
from gateway.subjects import NOBODY, Person

#: Source: the project's design, *Memory*: address and user agent 24 h at most.
CLIENT_LIFE_S = 86_400


class Trail:
    """
    What one event found and told: made by :meth:`Memory.recall`, used by :meth:`Memory.note`.

    The values are the newest of what the event itself says and what is known under its keys, each with its time.
    """

    # defaults of the class: one is made for each event, and most of it stays as it is
    #: Whose event it is, and of which identifiers that was made.
    person: Person = NOBODY
    user: User | None = None
    #: How many erasures there had been when the records were read.
    erasures: int = 0
    clicks: dict[str, str] | None = None
    click_at: float = 0.0
    ip: str | None = None
    user_agent: str | None = None
    seen_at: float = 0.0
    marketing: bool | None = None
    marketing_at: float = 0.0
    sale: int | None = None
    sale_at: float = 0.0

    def __init__(self, moment: float, site: bytes) -> None:
        self.moment = moment
        self.site = site
        self.keys: list[tuple[str, bytes]] = []
        self.records: dict[bytes, Remembered] = {}
        #: Signals that the event got from the memory, and by which key.
        self.origins: dict[str, str] = {}


def completed(event: Event, trail: Trail, known: Trail) -> Event:
    """Fill in what the event lacks; its own values stay, and one that is denied or limited gets nothing."""
    changes = _choices(event, trail, known)
    if _is_barred(event, changes):
        return structs.replace(event, **changes) if changes else event
    if known.clicks:
        added = {vendor: click for vendor, click in known.clicks.items() if vendor not in event.click_ids}
        if added:
            changes["click_ids"] = {**event.click_ids, **added}
            trail.origins.update(dict.fromkeys(added, known.origins["click"]))
    client = event.client
    if known.seen_at and event.action_source != "offline" and not (client.ip and client.user_agent):
        filled = Client(ip=client.ip or known.ip, user_agent=client.user_agent or known.user_agent)
        if filled != client:
            changes["client"] = filled
            for name, own, new in (
                ("client_ip", client.ip, filled.ip), ("client_user_agent", client.user_agent, filled.user_agent),
            ):  # fmt: skip
                if new and not own:
                    trail.origins[name] = known.origins["client"]
    return structs.replace(event, **changes) if changes else event


def _is_barred(event: Event, changes: dict[str, object]) -> bool:
    if event.limited_data is True or "limited_data" in changes or event.consent.marketing is False:
        return True
    consent = changes.get("consent")
    return isinstance(consent, Consent) and consent.marketing is False


def tell(trail: Trail, event: Event) -> None:
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


def carry(trail: Trail, known: Trail) -> None:
    """Let what is known travel on to the event's other keys, with its own time."""
    if trail.clicks is None:
        trail.clicks, trail.click_at = known.clicks, known.click_at
    if trail.ip is None and trail.user_agent is None:
        trail.ip, trail.user_agent, trail.seen_at = known.ip, known.user_agent, known.seen_at
    if trail.marketing is None or known.marketing_at > trail.marketing_at:
        trail.marketing, trail.marketing_at = known.marketing, known.marketing_at
    if known.sale is not None and trail.sale is not None and known.sale + trail.sale == LIMITED + OPTED_OUT:
        trail.sale, trail.sale_at = LIMITED, max(known.sale_at, trail.sale_at)
    elif trail.sale is None or known.sale_at > trail.sale_at:
        trail.sale, trail.sale_at = known.sale, known.sale_at


def stricter(before: int | None, now: int) -> int:
    """Return the choice that counts: a signal does not weaken what the source said itself."""
    return LIMITED if before == LIMITED and now == OPTED_OUT else now


def decide(trail: Trail, event: Event | None, *, barred: bool) -> None:
    """Note what the privacy step read from a signal, unless the person chose otherwise since."""
    if event is None:
        if trail.marketing is None or (trail.marketing and trail.marketing_at <= trail.moment):
            trail.marketing, trail.marketing_at = False, trail.moment
    elif (barred or event.consent.sale_of_data is False) and (
        trail.sale is None or (trail.sale == ALLOWED and trail.sale_at <= trail.moment)
    ):
        trail.sale, trail.sale_at = OPTED_OUT, trail.moment


def drop_stale(holder: Trail | Remembered, now: float, life_s: float) -> None:
    """Leave out what is too old to be used."""
    if holder.clicks is not None and holder.click_at + life_s <= now:
        holder.clicks = None
    if holder.seen_at + CLIENT_LIFE_S <= now:
        holder.ip = holder.user_agent = None
    if holder.marketing is not None and holder.marketing_at + life_s <= now:
        holder.marketing = None
    if holder.sale is not None and holder.sale_at + life_s <= now:
        holder.sale = None


def _choices(event: Event, trail: Trail, known: Trail) -> dict[str, object]:
    """Return what a remembered choice changes: a silent event follows it, and one that is older than it."""
    changes: dict[str, object] = {}
    consent = event.consent
    if known.marketing is False and (
        trail.marketing is None or (trail.marketing is True and known.marketing_at > trail.marketing_at)
    ):
        consent = structs.replace(consent, marketing=False)
    if known.sale and (
        trail.sale is None
        or (trail.sale == ALLOWED and known.sale_at > trail.sale_at)
        or (trail.sale == OPTED_OUT and known.sale == LIMITED)
    ):
        if known.sale == LIMITED:
            changes["limited_data"] = True
        else:
            consent = structs.replace(consent, sale_of_data=False)
    if consent is not event.consent:
        changes["consent"] = consent
    if changes:
        changes["notes"] = (*event.notes, "privacy: remembered")
    return changes
