"""The security headers of everything that the operator's listener answers."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Nothing inline, nothing from elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "object-src 'none'; form-action 'self'; frame-ancestors 'none'"
)
_FEATURES = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
_ALWAYS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", _FEATURES),
    ("Cache-Control", "no-store"),
)


def hardened(send: Send, *, is_https: bool = False) -> Send:
    """Return a ``send`` that adds each header that an answer does not have."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
            headers = MutableHeaders(raw=message["headers"])
            for name, value in _ALWAYS:
                headers.setdefault(name, value)
            if is_https:
                headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        await send(message)

    return answer


class Hardened:
    """Middleware that adds the headers to all answers, to those of other middleware too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        await self._app(scope, receive, hardened(send) if scope["type"] == "http" else send)
