"""An OPA on loopback that knows one simple policy: for agents that run as processes of their own.

Whoever waits longest is next; a holder that had its slice may go. `away` closes every connection.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeOpa:
    """A context manager. Its terms may be changed while it serves."""

    def __init__(self, slice_seconds: float = 0.0, min_runtime_seconds: float = 0.0) -> None:
        self.slice_seconds = slice_seconds
        self.min_runtime_seconds = min_runtime_seconds
        self.retry_seconds = 0.2  # after which the time-slice verdict is to be asked for again
        self.revision = "sha256:0123456789ab"
        self.ignored: dict[str, list[Any]] = {}  # addresses, ports
        self.metrics: dict[str, Any] = {"requests": ["vllm:num_requests_running"], "steps": []}
        self.demotes = False  # whoever is parked, at once
        self.places: dict[str, str] = {}  # in which tier somebody's parked contents should be
        self.shared: set[tuple[str, str]] = set()  # gold images' namespaces, and with which
        self.away = False
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeOpa":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, package: str, question: dict[str, Any]) -> object:
        """The verdict of a package."""
        self.asked.append((package, question))
        if package == "timeslice":
            return self._timeslice(question)
        if package == "preemption":
            return self._preemption(question["holder"])
        if package == "tiering":
            parked = question.get("parked")
            if parked and (tier := self.places.get(question["workload"]["key"])):
                return {"tier": tier, "reason": "Placed", "after_seconds": 1}
            return self._parked(parked) if parked else _tiering(question["workload"])
        if package == "sharing":
            allow = (question["image"]["namespace"], question["namespace"]) in self.shared
            return {"allow": allow, "reason": "Shared" if allow else "NotShared"}
        if package == "settings":
            return {"callers": self.ignored}
        if package == "metrics":
            return self.metrics
        return None

    def _timeslice(self, question: dict[str, Any]) -> dict[str, Any]:
        terms = {
            "slice_seconds": self.slice_seconds,
            "min_runtime_seconds": self.min_runtime_seconds,
        }
        everybody = [*question["holders"], *question["waiting"]]
        waiting = sorted(question["waiting"], key=lambda one: -one["waiting_seconds"])
        return {
            "next": waiting[0]["key"],
            "reason": "LongestWait",
            "terms": {one["key"]: terms for one in everybody},
            "retry_seconds": self.retry_seconds,
        }

    def _preemption(self, holder: dict[str, Any]) -> dict[str, Any]:
        left = max(self.slice_seconds, self.min_runtime_seconds) - holder["running_seconds"]
        if left > 0:
            return {"allow": False, "reason": "MinRuntime", "retry_seconds": left}
        return {"allow": True, "reason": "SliceEnded"}

    def _parked(self, parked: dict[str, Any]) -> dict[str, Any]:
        """Down when somebody needs the room, or as a test says; up when it is next in line."""
        if parked["nvme_short"] > 0 and parked["tier"] == "nvme":
            return {"tier": "object", "reason": "NvmeNeeded", "value": 1.0}
        if parked["ram_short"] > 0 or self.demotes:
            return {"tier": "nvme", "reason": "RoomNeeded", "value": 1.0}
        if parked["place"] == 0:
            return {"tier": "ram", "reason": "Next", "value": 2.0}
        return {"tier": parked["tier"], "reason": "Kept"}


def _tiering(holder: dict[str, Any]) -> dict[str, Any]:
    wish, idle = holder["idle_after_seconds"], holder["idle_seconds"]
    if wish is None or idle is None or holder["in_flight"] or holder["pinned"]:
        return {"tier": "vram", "reason": "NotAsked"}
    if idle < wish:
        return {"tier": "vram", "reason": "NotIdleYet", "after_seconds": wish - idle}
    return {"tier": "ram", "reason": "Idle"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, opa: FakeOpa) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.opa = opa

    def handle_error(self, *_: object) -> None:
        """A client that was killed is not our business."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the body waited 40 ms

    def do_POST(self) -> None:
        """`/v1/data/kyb/PACKAGE/verdict`, or `.../settings/NAME`."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.opa.away:
            self.close_connection = True
            return
        parts = self.path.split("?")[0].split("/")
        package = parts[-1] if parts[-1] == "metrics" else parts[-2]
        verdict = self.server.opa.answer(package, body["input"])
        provenance = {"bundles": {"kyb": {"revision": self.server.opa.revision}}}
        answer = {"provenance": provenance, **({"result": verdict} if verdict else {})}
        encoded = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: object) -> None:
        """Quiet."""
