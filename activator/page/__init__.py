"""
The page to look at, and what it shows: plain HTML, SVG and JavaScript, and figures over SSE.

Called by: the activator's front, which serves `asset(path)` and streams `frame(board.snapshot())`
at `EVENTS`, and tells a `Board` what happens. The terminal of `make demo-multiplex` reads the same
stream. Nothing is built, nothing comes from another host: `HEADERS` has browsers hold it to that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activator.page.board import Board, Place

EVENTS = "/ui/events"
STATE = "/ui/state"
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FOLDER = Path(__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = "page.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    content_type: str
    body: bytes


def asset(path: str) -> Asset | None:
    """What belongs at this path of a URL, without its query; None where nothing does."""
    return _FILES.get(path)


def frame(snapshot: Mapping[str, Any]) -> bytes:
    """One event of the stream. Browsers come back a second after they lost it."""
    return f"retry: 1000\ndata: {json.dumps(snapshot, separators=(',', ':'))}\n\n".encode()


def _read() -> dict[str, Asset]:
    found = {}
    for file in sorted(_FOLDER.iterdir()):
        kind = _TYPES.get(file.suffix)
        if kind is not None:
            found[f"/ui/{file.name}"] = Asset(kind, file.read_bytes())
    page = found.pop(f"/ui/{_PAGE}")
    return found | dict.fromkeys(("/", "/ui", "/ui/"), page)


_FILES = _read()

__all__ = ["EVENTS", "HEADERS", "STATE", "Asset", "Board", "Place", "asset", "frame"]
