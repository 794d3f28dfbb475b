"""Somebody who logs in to the operator's pages, without a browser: cookies, tokens of forms, nothing else."""

import re
from typing import Any

import httpx

HTML = {"Accept": "text/html,application/xhtml+xml"}
_TOKEN = re.compile(r'name="csrf" value="([^"]*)"')


class Visitor:
    """
    A visitor of an operator's app.

    Args:
        app: What ``operator_app`` gave, with passwords.
        address: Where the visitor is.
        base_url: ``https://…`` for one behind TLS.
    """

    def __init__(self, app: Any, address: str = "127.0.0.1", base_url: str = "http://operator") -> None:
        transport = httpx.ASGITransport(app, client=(address, 50_000))
        self.client = httpx.AsyncClient(transport=transport, base_url=base_url, headers=HTML)

    async def __aenter__(self) -> "Visitor":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def login(self, password: str, path: str = "/") -> httpx.Response:
        """Fill in the form and send it; returns the answer, a redirect when it was right."""
        shown = await self.client.get("/login", params={"next": path})
        fields = {"csrf": token_of(shown.text), "password": password, "next": path}
        return await self.client.post("/login", data=fields)

    async def page(self, path: str, status: int = 200) -> str:
        """Return a page's text."""
        answer = await self.client.get(path)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text[:300]}"
        return answer.text

    async def send(self, path: str, page: str = "/", **fields: str) -> httpx.Response:
        """Send a form with the token of a page."""
        return await self.client.post(path, data={"csrf": token_of(await self.page(page)), **fields})


def token_of(text: str) -> str:
    """Return the token of a page's first form."""
    found = _TOKEN.search(text)
    assert found is not None, text[:300]
    return found[1]
