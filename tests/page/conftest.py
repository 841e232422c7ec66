"""
Real: the page's files, its board and stream, a headless Chromium. Faked: the activator around them,
a few lines of HTTP server that stops and starts when a test wants.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from activator.page import EVENTS, HEADERS, STATE, Board, asset, frame
from testbed.browser import Tab, browser


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Served:
    """The page at `url`, with what its `board` says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.board = Board(self.clock)
        self.asked: list[str] = []
        self.told = 0  # frames
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        self._over = threading.Event()
        routes = type("Bound", (_Routes,), {"served": self, "over": self._over})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), routes)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None


class _Routes(BaseHTTPRequestHandler):
    served: Served
    over: threading.Event

    def do_GET(self) -> None:
        self.served.asked.append(self.path)
        if self.path == EVENTS:
            self._stream()
            return
        found = asset(self.path.partition("?")[0])
        body = found.body if found else json.dumps(self.served.board.snapshot()).encode()
        self.send_response(200 if found or self.path == STATE else 404)
        self.send_header("Content-Type", found.content_type if found else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while not self.over.wait(0.1):
                self.wfile.write(frame(self.served.board.snapshot()))
                self.wfile.flush()
                self.served.told += 1
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def _browser(chromium: None) -> Iterator[Tab]:
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(_browser: Tab) -> Tab:
    """At its usual size, with nothing remembered."""
    _browser.size(1280)
    _browser.prefer(color_scheme="light", reduced_motion="reduce")
    return _browser
