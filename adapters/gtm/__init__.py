"""Google Tag Manager: raw GA4 hits, event data of a server container, and stape's Data Client."""

from collections.abc import Sequence
from typing import ClassVar

from adapters.gtm.envelope import event_data
from adapters.gtm.event import normalized
from adapters.gtm.options import Options
from gateway import Adapter, Context, Hit, Normalized, Struct, hookimpl, verify


class GtmAdapter(Adapter):
    """
    The adapter ``gtm``: a server container posts event data (*server*), or pages send GA4 hits (*public*).

    In a server source the connection belongs to the tagging server: the shopper is ``ip_override`` and
    ``user_agent`` in the payload.
    """

    name: ClassVar[str] = "gtm"
    methods: ClassVar[frozenset[str]] = frozenset({"GET", "POST"})
    Options: ClassVar[type[Struct]] = Options

    def verify(self, hit: Hit) -> None:
        """Demand the bearer secret of a server source, or an allowed origin of a public one."""
        verify.authenticate(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """
        Return one item for each event of the hit, in order.

        Raises:
            Rejected: 400 when neither query nor body holds an event, 413 for more than 1,000 events.
        """
        return [normalized(data, hit.source) for data in event_data(hit)]


@hookimpl
def register_adapters(context: Context) -> Sequence[Adapter]:  # noqa: ARG001 - the hook's signature
    """Register ``gtm``."""
    return [GtmAdapter()]
