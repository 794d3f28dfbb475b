"""
Signing in at Pinterest: OAuth's authorization code flow; refresh tokens rotate.

Source: OpenAPI 5.23.0, ``oauth/token``, and developers.pinterest.com, "Set up authentication and authorization" (read
2026-11): scopes separated by commas, no PKCE. ``continuous_refresh`` is what apps made before 2025-09-25 need; for
newer ones it changes nothing.
"""

from gateway import OAuthApp, Secret
from gateway.plugins.pinterest.audience_options import AudienceOptions

SCOPE = "ads:read,ads:write"


def app(options: AudienceOptions, where: str) -> OAuthApp:
    """Return the app of the options, which have ``app_id`` and ``app_secret``; ``where`` is for messages."""
    return OAuthApp(
        vendor="Pinterest",
        where=where,
        client_id=options.app_id,
        client_secret=options.app_secret or Secret(value=""),
        authorize_url=options.authorize_url,
        token_url=f"{options.base_url.rstrip('/')}/oauth/token",
        scope=SCOPE,
        extra={"continuous_refresh": "true"},
    )
