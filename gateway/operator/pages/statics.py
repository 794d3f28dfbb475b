"""Style sheets, scripts and icons of the pages: read once, found under a hash of their content, kept by browsers."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator.roles import PageRoute

_FOLDER = Path(__file__).parent / "static"
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Statics:
    """The files of one folder."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _KINDS}
        self._digests = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in self._files.items()}

    def url(self, name: str) -> str:
        """Return the address of a file; raises KeyError when there is none."""
        return f"/static/{self._digests[name]}/{name}"

    def routes(self) -> list[Route]:
        """Return the route; the files say nothing of this gateway, and the page to log in needs them."""
        return [PageRoute("/static/{digest}/{name}", self._serve, "anyone", ("GET",))]

    async def _serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self._digests.get(name) != request.path_params["digest"]:
            raise HTTPException(404)
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._files[name], 200, headers, _KINDS[Path(name).suffix])
