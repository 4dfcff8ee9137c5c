"""The operator's page at `/`: static files, which ask for the admin token once and use the API like any program.

Order of events: the files are read once, off the loop, when the first of them is asked for; each answer has an ETag, so
that a browser asks again and gets 304. The policy of the page allows nothing from elsewhere, no inline script or style,
and no form that is sent: a text that became markup by a slip could still do nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import hdrs, web

FOLDER: Final = Path(__file__).parent / "page"
INDEX: Final = "index.html"
TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, and asked for again each time: after an upgrade nobody has half of the old page.
    "Cache-Control": "no-cache",
}


class PageFile(NamedTuple):
    """One file as it is served."""

    body: bytes
    content_type: str
    etag: str


def read_files() -> dict[str, PageFile]:
    """Read all files of the page. Blocks."""
    found = {}
    for path in FOLDER.iterdir():
        if path.suffix in TYPES:
            body = path.read_bytes()
            found[path.name] = PageFile(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
    return found


def routes() -> list[web.RouteDef]:
    """Make the routes, for everybody: there is nothing in these files that is not in the repository."""
    files: dict[str, PageFile] = {}

    async def load() -> Mapping[str, PageFile]:
        if not files:
            files.update(await asyncio.to_thread(read_files))
        return files

    async def get_index(request: web.Request) -> web.Response:
        return _answer(request, (await load()).get(INDEX))

    async def get_file(request: web.Request) -> web.Response:
        return _answer(request, (await load()).get(request.match_info["name"]))

    return [web.get("/", get_index), web.get("/page/{name}", get_file)]


def _answer(request: web.Request, file: PageFile | None) -> web.Response:
    if file is None:
        raise web.HTTPNotFound
    # Files change with a release alone, so most answers of a page that is loaded again are empty ones.
    if any(each.value == file.etag for each in request.if_none_match or ()):
        response = web.Response(status=304)
    else:
        response = web.Response(body=file.body, content_type=file.content_type, charset="utf-8")
    response.etag = file.etag
    response.headers.update(HEADERS)
    # As bytes of a known length, whatever the client asks for.
    response.headers[hdrs.X_CONTENT_TYPE_OPTIONS] = "nosniff"
    return response
