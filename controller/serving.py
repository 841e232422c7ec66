"""The HTTPS server of the bundle: a WSGI application in threads, for clients that poll.

Called by `__main__`. gunicorn needs its certificate at start and forks; the controller issues its
own certificate, and has threads. So this is the standard library's server: GET and HEAD only,
connections kept alive between two polls, a deadline for whoever says nothing.
"""

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from controller.bundle_app import App
from kybernate.clients.clock import Clock
from kybernate.runtime import addresses
from kybernate.runtime.logs import get_logger
from kybernate.runtime.threaded import ThreadedServer
from kybernate.runtime.tls import TlsFiles

_DEADLINE_S = 15.0  # longer than the pause between two polls
_RETRY_S = 1.0  # between two looks for our certificate


class BundleServer:
    """Serves once there is a certificate; without a TLS folder, in plain text at once."""

    def __init__(self, listen: str, app: App, tls: Path | None, clock: Clock) -> None:
        """Binds at once, so that a taken address is told at start. Raises OSError, ValueError."""
        host, port = addresses.parse_listen(listen)
        self._tls, self._clock = tls, clock
        self._server = _Server(host, port, _Conversation, deadline=_DEADLINE_S)
        self._server.app = app
        self._stopping = threading.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bundles", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """(host, port), the port chosen where 0 was asked for."""
        host, port = self._server.server_address[:2]
        return str(host), port

    @property
    def serving(self) -> bool:
        """Whether connections are answered."""
        return self._serving.is_set()

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and free the address."""
        self._stopping.set()
        if self._serving.is_set():
            self._server.shutdown()
        if self._thread.is_alive():
            self._thread.join()
        self._server.server_close()

    def _run(self) -> None:
        while self._tls is not None and self._server.context is None:
            self._server.context = _context(self._tls)
            if self._server.context is None and self._clock.wait(self._stopping, _RETRY_S):
                return
        self._serving.set()
        self._server.serve_forever(0.1)


def _context(folder: Path) -> ssl.SSLContext | None:
    try:
        return TlsFiles(folder).server_context()
    except OSError as problem:  # an ssl.SSLError is an OSError
        get_logger().debug("no certificate yet", detail=str(problem))
        return None


class _Server(ThreadedServer):
    app: App


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        environ = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": self.path.partition("?")[0],
            "HTTP_IF_NONE_MATCH": self.headers.get("If-None-Match", ""),
        }
        for part in self.server.app(environ, self._begin):
            self.wfile.write(part)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _begin(self, status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object]:
        code, _, text = status.partition(" ")
        self.send_response(int(code), text)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        return self.wfile.write

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        get_logger().debug("served", line=format % args)
