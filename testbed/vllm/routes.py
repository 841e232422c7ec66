"""
vLLM's HTTP endpoints. One thread a connection.

Called by: `__main__`. Errors have vLLM's form: `{"error": {"message", "type", "param", "code"}}`;
an endpoint that was not switched on is not there (404), as its router is not attached then.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from kybernate.clients.errors import Refused, Retry
from kybernate.clients.simgpu import OutOfMemory
from testbed.vllm.engine import Broken, Engine

_STATES = {0: "awake", 1: "weights_offloaded", 2: "discard_all"}
_MODES = ("abort", "wait")
_USUAL_TOKENS = 16
_ECHOED = 64  # characters of a prompt that its answer repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How it was started. Seconds; `sleep_mode` and `dev_mode` are vLLM's two switches."""

    model: str
    version: str = "0.14.0"
    sleep_mode: bool = True
    dev_mode: bool = True
    token_seconds: float = 0.002
    wake_seconds: float = 0.0


class Routes(BaseHTTPRequestHandler):
    """One request. `engine` and `serving` are set by `server`."""

    engine: ClassVar[Engine]
    serving: ClassVar[Serving]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """/health, /version, /v1/models, /metrics, /is_sleeping"""
        match urlsplit(self.path).path:
            case "/health" | "/ping":
                self._send(200, b"", "text/plain")
            case "/version":
                self._json(200, {"version": self.serving.version})
            case "/v1/models":
                self._json(200, {"object": "list", "data": [self._card()]})
            case "/metrics":
                self._send(200, self._metrics().encode(), "text/plain; version=0.0.4")
            case "/is_sleeping" if self.serving.dev_mode:
                self._json(200, {"is_sleeping": self.engine.level > 0})
            case _:
                self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """/v1/completions, /sleep, /wake_up"""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        match address.path:
            case "/v1/completions":
                self._complete(body)
            case "/sleep" if self.serving.dev_mode:
                self._switch(lambda: self._sleep(query))
            case "/wake_up" if self.serving.dev_mode:
                tags = query.get("tags", [])
                self._switch(lambda: self.engine.wake_up(tags, self.serving.wake_seconds))
            case _:
                self._json(404, {"detail": "Not Found"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet: answers are what counts."""

    # sleep mode

    def _sleep(self, query: Mapping[str, list[str]]) -> None:
        level, mode = query.get("level", ["1"])[0], query.get("mode", ["abort"])[0]
        if level not in ("1", "2") or mode not in _MODES:
            raise Broken(f"level {level}, mode {mode}: 1 or 2, and one of {', '.join(_MODES)}")
        self.engine.sleep(int(level), mode)

    def _switch(self, act: Any) -> None:
        if not self.serving.sleep_mode:
            self._fault(500, "Sleep mode is not enabled. Please set enable_sleep_mode=True")
            return
        try:
            act()
        except OutOfMemory as full:
            self._fault(500, f"CUDA out of memory. {full}")
        except (Broken, Refused, Retry) as broken:
            self._fault(500, str(broken))
        else:
            self._send(200, b"", "text/plain")

    # serving

    def _complete(self, body: bytes) -> None:
        try:
            asked = json.loads(body)
            tokens = int(asked.get("max_tokens") or _USUAL_TOKENS)
            asked["prompt"]
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            self._fault(400, f"the body is not a completion request: {wrong!r}", "BadRequestError")
            return
        if asked.get("model") not in (None, self.serving.model):
            said = f"The model `{asked['model']}` does not exist."
            self._fault(404, said, "NotFoundError", "model")
            return
        took, streamed = max(1, tokens) * self.serving.token_seconds, bool(asked.get("stream"))
        steps = max(1, tokens) if streamed else 1
        pieces = self.engine.answer(steps, took / steps)
        told = self._told(str(asked["prompt"])[:_ECHOED], pieces)
        try:
            self._stream(told) if streamed else self._whole(told, tokens)
        except (Refused, Retry) as error:
            self._fault(503, str(error))

    def _told(
        self, prompt: str, pieces: Iterator[tuple[int, bool, bool]]
    ) -> Iterator[tuple[str, str | None]]:
        """Text and finish reason, piece by piece; the first one says everything."""
        text = ""
        for counter, intact, aborted in pieces:
            whole = "intact" if intact else "DAMAGED"
            text = text or (
                f"{self.serving.model} answers request {counter} ({prompt}), contents {whole}."
            )
            yield ("" if aborted else text), ("abort" if aborted else None)
            text = " ok"
        if not aborted:
            yield "", "length"

    def _whole(self, told: Iterator[tuple[str, str | None]], tokens: int) -> None:
        pieces = list(told)
        text = "".join(piece for piece, _ in pieces)
        self._json(200, self._completion(text, pieces[-1][1], {"completion_tokens": tokens}))

    def _stream(self, told: Iterator[tuple[str, str | None]]) -> None:
        first = next(told)  # what fails, fails before the status is sent
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event(json.dumps(self._completion(*first)))
        for text, reason in told:
            self._event(json.dumps(self._completion(text, reason)))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, content: str) -> None:
        line = f"data: {content}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _completion(
        self, text: str, reason: str | None, usage: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.serving.model,
            "choices": [choice],
            "usage": usage,
        }

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.serving.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.serving.model,
        }

    def _metrics(self) -> str:
        label = f'model_name="{self.serving.model}"'
        engine, lines = self.engine, []
        for name, value in (("running", engine.running), ("waiting", engine.waiting)):
            lines.append(f"# TYPE vllm:num_requests_{name} gauge")
            lines.append(f'vllm:num_requests_{name}{{engine="0",{label}}} {value:.1f}')
        lines.append("# TYPE vllm:engine_sleep_state gauge")
        for level, state in _STATES.items():
            now = float(engine.level == level)
            lines.append(f'vllm:engine_sleep_state{{{label},sleep_state="{state}"}} {now}')
        return "\n".join(lines) + "\n"

    # the wire

    def _fault(
        self, status: int, message: str, kind: str = "InternalServerError", param: str | None = None
    ) -> None:
        error = {"message": message, "type": kind, "param": param, "code": status}
        self._json(status, {"error": error})

    def _json(self, status: int, body: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Waiting requests do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 256


def server(engine: Engine, serving: Serving, address: str, port: int) -> Server:
    """Bound to the address, not yet serving. Raises OSError when it is taken."""
    routes = type("BoundRoutes", (Routes,), {"engine": engine, "serving": serving})
    return Server((address, port), routes)
