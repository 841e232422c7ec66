"""
Faked: an address with many models behind it (below), well behaved or not. Real: the clients, over
real connections, and what they make of the answers.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Twist = Callable[[dict[str, Any], dict[str, Any]], int]
"""Changes the answer of a question; its status. 0: none, the connection is closed."""


def _well(_asked: dict[str, Any], _answer: dict[str, Any]) -> int:
    return 200


class Address:
    """Models at one `url`. `twist` says what goes wrong."""

    def __init__(self) -> None:
        self.twist: Twist = _well
        self.counted: Counter[str] = Counter()
        self.lock = threading.Lock()
        routes = type("Bound", (_Routes,), {"models": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), routes)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Routes(BaseHTTPRequestHandler):
    models: Address
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["model"]
        with self.models.lock:
            self.models.counted[name] += 1
            counter = self.models.counted[name]
        text = f"{name} answers request {counter} ({asked['prompt']}), contents intact."
        answer = {"model": name, "choices": [{"text": text}]}
        status = self.models.twist(asked, answer)
        if not status:
            self.close_connection = True
            return
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def address() -> Iterator[Address]:
    made = Address()
    yield made
    made.close()
