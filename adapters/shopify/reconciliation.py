"""
``shopify reconcile``: reads recent orders again and hands each to the gateway as its webhook would have come.

Source: Shopify, api/admin-rest 2026-10, resources/order: an order has the shape of the webhook's body, 250 on a page,
the next page in the ``Link`` header. The REST Admin API is legacy since 2024-10-01 (closed to new public apps since
2025-04-01) and served in 2026-10; without ``read_all_orders`` it reaches back 60 days.
"""

import asyncio
import base64
import hmac
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec

from adapters.shopify.admin import Admin, Sleep
from gateway import Answer, CommandContext, CommandFailed, Hit, Source, Struct, Unreachable, coerce

FATES = ("accepted", "merged", "duplicate", "dropped", "rejected")
_SPAN = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_TRIES = 6
#: More at once would cost the client more than shared commits save the store.
_AT_ONCE = 4


class Count:
    """What became of the orders so far; ``reasons`` counts ``(fate, reason)``."""

    def __init__(self) -> None:
        self.read = 0
        self.fates: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()

    def add(self, reply: "_Reply") -> None:
        """Count one order."""
        self.read += 1
        for event in reply.events:
            self.fates[event.outcome] += 1
            if event.reason:
                self.reasons[event.outcome, event.reason] += 1


class _Page(Struct, frozen=True, kw_only=True):
    orders: tuple[msgspec.Raw, ...]


class _Outcome(Struct, frozen=True, kw_only=True):
    outcome: str
    reason: str | None = None


class _Reply(Struct, frozen=True, kw_only=True):
    events: tuple[_Outcome, ...] = ()


def since(text: str, now: float) -> str:
    """
    Read ``30m``, ``2h``, ``3d``, or a date or time in ISO 8601 (UTC unless it says otherwise).

    Returns what Shopify takes.

    Raises:
        ValueError: It is none of these.
    """
    span = _SPAN.fullmatch(text.strip())
    if span:
        moment = datetime.fromtimestamp(now, UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def selection(updated_at_min: str, topic: str) -> dict[str, str]:
    """Return the query of the orders that a topic tells of: any, or the paid ones."""
    query = {"status": "any", "updated_at_min": updated_at_min}
    return {**query, "financial_status": "paid"} if topic == "orders/paid" else query


async def total(admin: Admin, query: dict[str, str]) -> int | None:
    """Return how many orders there are to read, None when Shopify does not say."""
    answer = await admin.get("orders/count.json", query)
    try:
        return coerce.integer(coerce.mapping(msgspec.json.decode(answer.body)).get("count"))
    except msgspec.DecodeError:
        return None


async def reconcile(
    context: CommandContext,
    source: Source,
    query: dict[str, str],
    topic: str,
    *,
    page_size: int = 250,
    on_progress: Callable[[Count], None] = lambda _: None,
    sleep: Sleep = asyncio.sleep,
) -> Count:
    """
    Hand every order of the selection to the gateway, a page in memory at a time; harmless to repeat.

    Args:
        query: From :func:`selection`.
        topic: ``orders/create`` or ``orders/paid``: which webhook is made up for.
        on_progress: Hears the count every few orders.

    Raises:
        CommandFailed: Shopify or the gateway refuses; what was handed over stays.
    """
    count = Count()
    async for orders in _pages(Admin(context.http, source, sleep), {**query, "limit": str(page_size)}):
        for first in range(0, len(orders), _AT_ONCE):
            hits = [_hit(source, topic, bytes(order)) for order in orders[first : first + _AT_ONCE]]
            for reply in await asyncio.gather(*(_hand_over(context, hit, sleep) for hit in hits)):
                count.add(reply)
            on_progress(count)
    return count


async def _pages(admin: Admin, query: dict[str, str]) -> AsyncIterator[tuple[msgspec.Raw, ...]]:
    cursor: str | None = None
    while True:
        asked = query if cursor is None else {"limit": query["limit"], "page_info": cursor}
        answer = await admin.get("orders.json", asked)
        try:
            page = msgspec.json.decode(answer.body, type=_Page)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise CommandFailed("Shopify's answer is no list of orders: is admin_base_url another server?") from None
        yield page.orders
        following = _next_cursor(answer)
        if following is None:
            return
        if following == cursor:
            raise CommandFailed("Shopify names the same page as the next one. Run it again, with a shorter --since.")
        cursor = following


def _next_cursor(answer: Answer) -> str | None:
    """Return the cursor of ``Link: <…>; rel="next"``; its host is not followed, the token goes to the shop only."""
    for link in answer.headers.get("link", "").split(","):
        target, _, relation = link.partition(";")
        if re.search(r'rel="?next"?', relation):
            found = parse_qs(urlsplit(target.strip().strip("<>")).query).get("page_info")
            return found[0] if found else None
    return None


def _hit(source: Source, topic: str, body: bytes) -> Hit:
    signature = base64.b64encode(hmac.digest(source.secrets[0].value.encode(), body, "sha256")).decode()
    headers = {
        "content-type": "application/json", "x-shopify-topic": topic,
        "x-shopify-shop-domain": source.options.shop, "x-shopify-hmac-sha256": signature,
    }  # fmt: skip
    return Hit(source=source, headers=headers, body=body)


async def _hand_over(context: CommandContext, hit: Hit, sleep: Sleep) -> _Reply:
    for _ in range(_TRIES):
        try:
            answer = await context.submit(hit)
        except Unreachable as error:
            raise CommandFailed(f"{str(error).capitalize()}. Run it again: nothing is counted twice.") from error
        if answer.status in (200, 202, 400):
            return _read(answer)
        if answer.status not in (429, 503):
            raise CommandFailed(
                f"The gateway refuses orders of source '{hit.source.name}' (HTTP {answer.status}). If gateway.toml was "
                "changed, reload the gateway; else try 'tag-gateway explain' on a webhook."
            )
        wait_s = coerce.decimal(answer.headers.get("retry-after"))
        await sleep(5.0 if wait_s is None else float(wait_s))
    raise CommandFailed("The gateway is too busy. Run it again later: nothing is counted twice.")


def _read(answer: Answer) -> _Reply:
    """Read what became of one order; one that the adapter cannot read has no list of events, kept (202) or not."""
    reply = msgspec.json.decode(answer.body, type=_Reply)
    reason = "quarantined" if answer.status == 202 else "unreadable"
    return reply if reply.events else _Reply(events=(_Outcome(outcome="rejected", reason=reason),))
