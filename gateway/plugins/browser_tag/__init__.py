"""The browser tag's JSON: the gateway's own format, from pages (public) and from servers (with a secret)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from gateway import Adapter, Context, Hit, Normalized, hookimpl, verify
from gateway.plugins.browser_tag.payload import MAX_EVENTS, items_of, payload_of
from gateway.plugins.browser_tag.quick import quick_events


class BrowserTag(Adapter):
    """
    Takes one event, or an array of up to 1,000.

    POST brings JSON under any content type (``sendBeacon`` says ``text/plain``), GET base64url in ``?d=``.
    """

    name: ClassVar[str] = "browser_tag"
    side: ClassVar[Literal["server", "public", "either"]] = "either"
    methods: ClassVar[frozenset[str]] = frozenset({"GET", "POST"})

    def verify(self, hit: Hit) -> None:
        """Demand the secret of a server source (Bearer), or an allowed origin of a public one."""
        verify.authenticate(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """Return one item for each event of the hit."""
        plain = quick_events(hit.body, hit.source, MAX_EVENTS) if hit.body else None
        return items_of(payload_of(hit), hit.source) if plain is None else plain


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Register the browser tag."""
    return [BrowserTag()]
