"""Yourplatform: server-to-server events with a Bearer secret."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from gateway import (
    Adapter,
    Context,
    Event,
    Hit,
    Key,
    Normalized,
    Purchase,
    Rejected,
    User,
    coerce,
    hookimpl,
    json_body,
    verify,
)

#: The platform's names, and the canonical ones. What is not here is dropped as unmapped, unless event_names maps it.
NAMES = {"order": "checkout", "cart": "add_to_cart", "register": "signup"}


class Yourplatform(Adapter):
    """Takes one JSON object: ``{"event", "email"?, "total"?, "currency"?, "order"?, "time"?}``."""

    name: ClassVar[str] = "yourplatform"
    side: ClassVar[Literal["server", "public", "either"]] = "server"

    def verify(self, hit: Hit) -> None:
        """Demand ``Authorization: Bearer <secret>``."""
        verify.bearer(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """Return the one event of the hit."""
        body = json_body(hit.body)
        source_name = coerce.text(body.get("event")) if isinstance(body, dict) else None
        if source_name is None:
            raise Rejected("missing_event", "The body has no 'event'.", hint='Send {"event": "order", …}.')
        order = coerce.text(body.get("order"))
        return [
            Event(
                name=NAMES.get(source_name, ""),
                source_name=source_name,
                keys=(Key(kind="order", value=order),) if order else (),
                time=coerce.unix_time(body.get("time")),
                user=User(email=coerce.texts(body.get("email"))),
                purchase=Purchase(
                    value=coerce.decimal(body.get("total")),
                    currency=coerce.currency(body.get("currency")),
                    order_id=order,
                ),
            )
        ]


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Register the adapter."""
    return [Yourplatform()]
