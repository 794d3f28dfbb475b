"""
Klaviyo as a source of audiences: its lists and segments, as described by OpenAPI 2026-07-15.

==============  =====================================================
``source.py``   :class:`Klaviyo`: groups, sizes, pages of members
``objects.py``  what its answers hold, and who is left out
``oauth.py``    the sign-in, in place of a private key
``options.py``  ``[audience_sources.NAME]``
==============  =====================================================
"""

from collections.abc import Sequence

from gateway import AudienceSource, Context, hookimpl
from gateway.plugins.klaviyo.source import Klaviyo

__all__ = ["Klaviyo", "register_audience_sources"]


@hookimpl
def register_audience_sources(context: Context) -> Sequence[type[AudienceSource]]:  # noqa: ARG001 - the hook's signature
    """Register the source type ``klaviyo``."""
    return [Klaviyo]
