"""
The fake API server over HTTP on loopback: for the real client, and for processes under test.

    with FakeHttp(fake) as api:
        Kube.from_kubeconfig(api.kubeconfig(tmp_path / "kubeconfig"))
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from kybernate.clients.connection import Answer, Request
from kybernate.clients.errors import Unavailable
from kybernate.testing.fakekube import FakeKube


class FakeHttp:
    """Serves one FakeKube. An outage of it closes connections without an answer."""

    def __init__(self, fake: FakeKube) -> None:
        self.fake = fake
        self._server = _Server(fake)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here. Returns `path`."""
        path.write_bytes(
            orjson.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake"}}],
                    "current-context": "fake",
                }
            )
        )
        return path

    def __enter__(self) -> "FakeHttp":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.server.break_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, fake: FakeKube) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), _Conversation)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report."""


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True  # head and body are two writes: the body waited 40 ms

    def _converse(self) -> None:
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            self.rfile.read(size) if size else None,
            self.headers.get("Content-Type", ""),
        )
        try:
            if request.query.get("watch") == "true":
                self._stream(request)
            else:
                self._answer(self.server.fake.server.send(request))
        except Unavailable:
            self.close_connection = True

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _stream(self, request: Request) -> None:
        lines = self.server.fake.server.stream(request)
        if isinstance(lines, Answer):
            self._answer(lines)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            self.wfile.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _converse  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""
