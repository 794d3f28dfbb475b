"""What is installed, the configuration as it is understood, the store, and who changed what."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator.pages.framework import Pages
from gateway.operator.shown import sections
from gateway.outbox.schema import sqlite_version

_PACKAGES = (
    "tag-gateway", "click", "cryptography", "httpx", "hypercorn", "jinja2", "msgspec", "phonenumbers",
    "pluggy", "prometheus-client", "starlette", "uvicorn", "uvloop",
)  # fmt: skip
_AUDITED = 50


def versions() -> list[tuple[str, str]]:
    """Return what this runs on: packages that are not installed are left out."""
    found = [("Python", platform.python_version()), ("SQLite", sqlite_version()[0])]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def routes(pages: Pages) -> list[Route]:
    """Return the routes."""
    known = versions()

    async def show(request: Request) -> Response:
        gateway = pages.gateway
        config = gateway.parts.config
        counts = await gateway.outbox.counts()
        values: dict[str, Any] = {
            "plugins": gateway.parts.host.listing(),
            "switched_off": gateway.switched_off,
            "failures": {name: count for (name,), count in gateway.tally.plugin_failures.items()},
            "sections": sections(gateway.parts),
            "warnings": gateway.parts.warnings,
            "file": str(config.path),
            "store": str(config.store_path),
            "counts": counts,
            "versions": known,
            "audit": gateway.audit.last(_AUDITED),
            "audit_file": str(gateway.audit.path),
        }
        return await pages.render(request, "plugins.html", **values)

    return [pages.route("/plugins", show)]
