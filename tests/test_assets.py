"""Files of adapters over HTTP: ``GET /in/{source}/tag.js``."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Adapter, Asset, Context, Hit, Normalized, Source, hookimpl
from gateway.ingress import public_app
from gateway.testing import running

ROOT = Path(__file__).parents[1]
TAG = ROOT / "gateway/plugins/browser_tag/tag.js"
ORIGIN = "https://shop.example"
CONFIG: dict[str, Any] = {
    "sources": {
        "tag": {"adapter": "browser_tag", "allowed_origins": [ORIGIN]},
        "api": {"adapter": "browser_tag", "secrets": ["s3cret"]},
        "px": {"adapter": "shopify_pixel", "allowed_origins": ["null"]},
        "hook": {"adapter": "shopify", "secrets": ["s3cret"], "options": {"shop": "shop.myshopify.com"}},
    }
}


class Odd(Adapter):
    """A stranger's adapter with files of its own."""

    name = "odd"
    side = "public"

    def verify(self, hit: Hit) -> None:
        """Take everything."""

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        return []

    def asset(self, source: Source, name: str, url: str) -> Asset | None:
        if name == "raises":
            raise ZeroDivisionError
        if name == "hangs":
            time.sleep(1.3)
        if name == "text":
            return "no asset"  # type: ignore[return-value]
        return Asset(content=url.encode(), media_type="text/plain") if name == "url" else None


class Odds:
    @hookimpl
    def register_adapters(self, context: Context) -> Sequence[Adapter]:
        return [Odd()]


@asynccontextmanager
async def client(folder: Path, config: Mapping[str, Any] = CONFIG, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with running(config, folder, **more) as found:
        transport = httpx.ASGITransport(public_app(found.gateway.ingress, found.gateway.ready))
        async with httpx.AsyncClient(transport=transport, base_url="http://tags.example.com") as opened:
            yield opened


def get(folder: Path, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with client(folder) as opened:
            return await opened.request(method, path, headers=headers)

    return asyncio.run(scenario())


def test_the_tag_is_small() -> None:
    """The tag costs a page at most 4 KB."""
    assert len(gzip.compress(TAG.read_bytes(), 9)) <= 4096


def test_the_tag_is_plain() -> None:
    """No page's policy is in its way: nothing is evaluated, written into the page or fetched from elsewhere."""
    code = TAG.read_text("utf-8")
    for forbidden in (
        "eval(",
        "new Function",
        "innerHTML",
        "document.write",
        "createElement",
        "setTimeout(",
        "import ",
    ):
        assert forbidden not in code


def test_tag_js_is_served(tmp_path: Path) -> None:
    """A page of any site may load it, proxies may keep it, nothing may take it for something else."""
    answer = get(tmp_path, "/in/tag/tag.js")
    assert answer.status_code == 200
    assert answer.content == TAG.read_bytes()
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["etag"].startswith('"')


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, deflate, br", "gzip"), ("br;q=1.0, GZIP;q=0.5", "gzip"), ("br", ""), ("gzip;q=0", ""), ("", "")],
)
def test_the_tag_is_compressed_for_who_can_read_it(tmp_path: Path, accepted: str, coding: str) -> None:
    """The file is small on the wire, too; each form has its own ETag."""
    answer = get(tmp_path, "/in/tag/tag.js", **{"Accept-Encoding": accepted})
    plain = get(tmp_path, "/in/tag/tag.js", **{"Accept-Encoding": "identity"})
    assert answer.headers.get("content-encoding", "") == coding
    assert answer.content == plain.content == TAG.read_bytes(), "the client has unpacked it"
    assert (int(answer.headers["content-length"]) <= 4096) == bool(coding)
    assert (answer.headers["etag"] != plain.headers["etag"]) == bool(coding)
    assert "Accept-Encoding" in answer.headers["vary"]


def test_an_unchanged_file_is_not_sent_again(tmp_path: Path) -> None:
    """If-None-Match is answered 304 without a body; another tag brings the file."""
    tag = get(tmp_path, "/in/tag/tag.js").headers["etag"]
    for given in (tag, f"W/{tag}", f'"old", {tag}', "*"):
        answer = get(tmp_path, "/in/tag/tag.js", **{"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert "content-length" not in answer.headers
    assert get(tmp_path, "/in/tag/tag.js", **{"If-None-Match": '"old"'}).status_code == 200


def test_head_has_the_headers_only(tmp_path: Path) -> None:
    """HEAD tells the length and sends nothing."""
    answer = get(tmp_path, "/in/tag/tag.js", "HEAD", **{"Accept-Encoding": "identity"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(TAG.stat().st_size)


def test_a_server_source_has_no_tag(tmp_path: Path) -> None:
    """A page cannot keep a secret: the answer says which source it needs."""
    answer = get(tmp_path, "/in/api/tag.js")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "no_tag"
    assert "allowed_origins" in answer.json()["error"]["hint"]


def test_another_adapter_has_no_tag(tmp_path: Path) -> None:
    """A source that takes no GET says so, file or not."""
    assert get(tmp_path, "/in/hook/tag.js").status_code == 405


def test_a_get_hit_is_still_a_hit(tmp_path: Path) -> None:
    """A pixel below the source's path is no file."""
    answer = get(tmp_path, "/in/tag/p.gif?d=eyJldmVudF9uYW1lIjoicGFnZV92aXNpdCJ9", Origin=ORIGIN)
    assert answer.headers["content-type"] == "image/gif"


def test_pixel_js_knows_its_address(tmp_path: Path) -> None:
    """The code for the shop is complete: the source's address stands in it, over https."""
    script = get(tmp_path, "/in/px/pixel.js").text
    assert 'const GATEWAY = "https://tags.example.com/in/px";' in script
    local = get(tmp_path, "/in/px/pixel.js", Host="127.0.0.1:8000").text
    assert 'const GATEWAY = "http://127.0.0.1:8000/in/px";' in local


@pytest.mark.parametrize("host", ['x";alert(1)//', "a b", "", "shop.example/evil"])
def test_a_strange_host_is_not_written(tmp_path: Path, host: str) -> None:
    """What a header says is no part of a script unless it is a host."""
    script = get(tmp_path, "/in/px/pixel.js", Host=host).text
    assert 'const GATEWAY = "http://localhost/in/px";' in script


def test_the_pixel_of_the_page_is_the_file() -> None:
    """The served file differs from the repository's in its address only."""
    assert (ROOT / "adapters/shopify/pixel.js").read_text("utf-8").count("https://tags.example.com/in/shop_pixel") == 1


def test_a_strangers_file_costs_only_itself(tmp_path: Path) -> None:
    """A stranger's adapter may raise, hang or return nonsense: that request is answered 503 and nothing else."""

    async def scenario() -> dict[str, int]:
        config = {"sources": {"odd": {"adapter": "odd", "allowed_origins": [ORIGIN]}}}
        async with client(tmp_path, config, plugins={"odd": Odds()}) as opened:
            names = ("url", "raises", "text", "hangs", "url")
            return {name: (await opened.get(f"/in/odd/{name}")).status_code for name in names}

    assert asyncio.run(scenario()) == {"url": 200, "raises": 503, "text": 503, "hangs": 503}
