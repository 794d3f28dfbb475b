"""The browser tag's JSON: the gateway's own format, from pages (public) and from servers (with a secret)."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from gateway import Adapter, Asset, Context, Hit, Normalized, Rejected, Source, hookimpl, verify
from gateway.plugins.browser_tag.payload import MAX_EVENTS, items_of, payload_of
from gateway.plugins.browser_tag.quick import quick_events

_TAG = Asset(
    content=Path(__file__).with_name("tag.js").read_bytes(),
    media_type="text/javascript; charset=utf-8",
)


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

    def asset(self, source: Source, name: str, url: str) -> Asset | None:  # noqa: ARG002 - the tag finds its own address
        """
        Return ``tag.js``, the script for pages.

        Raises:
            Rejected: 404, the source is a server source: a page could not prove itself to it.
        """
        if name != "tag.js":
            return None
        if source.is_server:
            raise Rejected(
                "no_tag",
                "A source with secrets has no tag.js.",
                status=404,
                hint="Pages need a source of their own: adapter browser_tag with allowed_origins instead of secrets.",
            )
        return _TAG


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Register the browser tag."""
    return [BrowserTag()]
