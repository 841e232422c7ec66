"""
A small HTTP server for /metrics, /healthz and /readyz, where there is no Flask.

Called by: every `__main__`. Rules: it serves GET only, with a deadline per connection; a route that
fails answers 500 and is logged.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from kybernate.runtime import addresses, metrics
from kybernate.runtime.health import Health, Report
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.threaded import ThreadedServer
from kybernate.runtime.tls import TlsFiles

_DEADLINE_S = 10.0  # for a client that connects and says nothing
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route says."""

    body: bytes
    status: int = 200
    content_type: str = _TEXT


Route = Callable[[], Answer]


class HttpServer:
    """Serves GET routes from threads of its own. `address` is real after the construction."""

    def __init__(
        self, listen: str, routes: Mapping[str, Route], tls: TlsFiles | None = None
    ) -> None:
        """Binds at once. Raises OSError, ValueError (see `parse_listen`)."""
        host, port = addresses.parse_listen(listen)
        self._server = _Server(host, port, _Conversation, deadline=_DEADLINE_S)
        self._server.context = tls.server_context() if tls else None
        self._server.routes = dict(routes)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name=f"http-{port}", daemon=True
        )

    @property
    def address(self) -> tuple[str, int]:
        """(host, port), the port chosen where 0 was asked for."""
        host, port = self._server.server_address[:2]
        return str(host), port

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and free the address."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "HttpServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def telemetry(listen: str, health: Health, measured: Metrics) -> HttpServer:
    """The server behind `--metrics-listen`: /metrics, /healthz, /readyz, plain HTTP."""
    return HttpServer(
        listen,
        {
            "/metrics": lambda: Answer(measured.text(), content_type=metrics.CONTENT_TYPE),
            "/healthz": lambda: _answer(health.healthz()),
            "/readyz": lambda: _answer(health.readyz()),
        },
    )


def _answer(report: Report) -> Answer:
    return Answer(report.text.encode(), report.status)


class _Server(ThreadedServer):
    routes: dict[str, Route]


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True  # head and body are two writes: the body waited 40 ms

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        route = self.server.routes.get(path)
        if route is None:
            self._say(Answer(b"no such page\n", 404))
            return
        try:
            answer = route()
        except Exception:
            get_logger().exception("route failed", path=path)
            answer = Answer(b"failed\n", 500)
        self._say(answer)

    def _say(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        get_logger().debug("served", line=format % args)
