"""Where a vendor's page sends the operator's browser back to after a login, and what the browser shows then."""

from starlette.responses import HTMLResponse, Response

from gateway.config import Config
from gateway.errors import ConfigError

CALLBACK = "/oauth/callback"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - nothing is bound to it here


def callback_of(config: Config) -> str:
    """
    Return the address that a vendor sends the browser back to.

    Raises:
        ConfigError: The operator's listener is not served, so nobody could come back.
    """
    table = config.operator
    if table.password is None:
        raise ConfigError("A login comes back to the operator's listener: set [operator] password, and restart.")
    if table.url is not None:
        return table.url.rstrip("/") + CALLBACK
    host, _, port = table.bind.rpartition(":")
    return f"http://{_EVERYWHERE.get(host, host)}:{port}{CALLBACK}"


def page(problem: str | None) -> Response:
    """Return the page that the browser ends on; nothing of the request is in it."""
    from gateway.operator.pages.statics import Statics  # needs the routes' roles, which name this callback

    static = Statics().url
    heading = "Access granted" if problem is None else "Access not granted"
    text = "Close this page, or go on to" if problem is None else "Begin again in the terminal, which says why, or with"
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }
    html = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{heading} · Tag gateway</title><link rel="icon" href="{static("icon.svg")}">'
        f'<link rel="stylesheet" href="{static("app.css")}"><body class="entry"><main><div class="card">'
        f'<h1>{heading}</h1><p>{text} <a href="/audiences">the audiences</a>.</p></div></main></html>'
    )
    return HTMLResponse(html, 200 if problem is None else 400, headers)
