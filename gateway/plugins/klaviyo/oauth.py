"""
Signing in at Klaviyo: OAuth with PKCE.

Source: developers.klaviyo.com, "Set up OAuth" (read 2026-11): scopes separated by spaces; the token endpoint is at
a.klaviyo.com only.
"""

from gateway import OAuthApp, Secret
from gateway.plugins.klaviyo.options import KlaviyoOptions

SCOPE = "lists:read segments:read profiles:read"


def app(options: KlaviyoOptions, where: str) -> OAuthApp:
    """Return the app of the options, which have ``client_id`` and ``client_secret``; ``where`` is for messages."""
    return OAuthApp(
        vendor="Klaviyo",
        where=where,
        client_id=options.client_id,
        client_secret=options.client_secret or Secret(value=""),
        authorize_url=options.authorize_url,
        token_url=f"{options.base_url.rstrip('/')}/oauth/token",
        scope=SCOPE,
        pkce=True,
    )
