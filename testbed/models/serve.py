"""
A model server: counts requests in the card's memory and proves with each answer that its contents
are whole.

`POST /predict` -> {"counter", "intact", "seconds"}; waits while the model is parked.
`GET /state` -> {"name", "seat", "pid", "counter", "answered", "waiting"} from what is known without
the card, so it answers at once.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from kybernate.api import names
from kybernate.clients.errors import Refused, Retry
from testbed.models.weights import Weights


class Model:
    """What the server knows without asking the card."""

    def __init__(self, weights: Weights, environment: Mapping[str, str]) -> None:
        self._weights = weights
        self._name = environment.get("POD_NAME", "")
        self._seat = environment.get(names.ENV_SEAT, "")
        self._lock = threading.Lock()
        self._counter = 0
        self._answered = 0
        self._waiting = 0

    def predict(self) -> dict[str, object]:
        """Count, check, answer."""
        started = time.monotonic()
        with self._lock:
            self._waiting += 1
        try:
            counter, intact = self._weights.count(), self._weights.intact()
        finally:
            with self._lock:
                self._waiting -= 1
        with self._lock:
            self._counter = max(self._counter, counter)
            self._answered += 1
        return {"counter": counter, "intact": intact, "seconds": time.monotonic() - started}

    def state(self) -> dict[str, object]:
        """What it was when last seen."""
        with self._lock:
            return {
                "name": self._name,
                "seat": self._seat,
                "pid": os.getpid(),
                "counter": self._counter,
                "answered": self._answered,
                "waiting": self._waiting,
            }


class Routes(BaseHTTPRequestHandler):
    """One request. `model` is set by `server`."""

    model: ClassVar[Model]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the body waited 40 ms

    def do_POST(self) -> None:
        """/predict"""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/predict":
            self._answer(404, {"error": "no such path"})
            return
        try:
            self._answer(200, self.model.predict())
        except (Refused, Retry) as error:
            self._answer(503, {"error": str(error)})

    def do_GET(self) -> None:
        """/state, /healthz"""
        match self.path:
            case "/state":
                self._answer(200, self.model.state())
            case "/healthz":
                self._answer(200, {"ok": True})
            case _:
                self._answer(404, {"error": "no such path"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: answers are what counts."""

    def _answer(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Waiting requests do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 128


def server(model: Model, address: str, port: int) -> Server:
    """A server bound to the address, not yet serving. Raises OSError when it is taken."""
    routes = type("BoundRoutes", (Routes,), {"model": model})
    return Server((address, port), routes)
