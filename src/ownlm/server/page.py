"""The page at `/`: static files of this package, without a build step and without anything from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import FileResponse, PlainTextResponse, Response

from ownlm.server.errors import ApiError

FOLDER = Path(__file__).parent / "page"
# Nothing from other servers, no code in the document itself: what a model writes cannot become a program.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


def index(routes: list[str]) -> Response:
    """The page; where there is none, what can be asked."""
    if (FOLDER / "index.html").is_file():
        return page_file("index.html")
    return PlainTextResponse("ownlm answers at\n" + "\n".join(routes) + "\n", headers=HEADERS)


def page_file(name: str) -> Response:
    """A file of the page.

    Raises:
        ApiError: 404: there is none.
    """
    path = FOLDER / name
    plain = (
        re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", name, re.ASCII) is not None
    )  # no way out of the folder
    if not plain or path.suffix not in TYPES or not path.is_file():
        raise ApiError(404, "There is no such file.")
    return FileResponse(path, media_type=TYPES[path.suffix], headers=HEADERS)
