"""
One vLLM server as the agent speaks to it: over HTTP, inside its pod's network namespace.

Called by: `vllmsleep`. The endpoints are vLLM's own, from its pages Sleep Mode (0.14 and later) and
Production Metrics; the development ones are there only with `VLLM_SERVER_DEV_MODE=1`.
Errors are the port's: NotPossible (it will not), NotYet (it does not answer, or not in time),
CardFull (it found no room). What a server says is read as data, and bounded in size.
"""

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from nodeagent.mechanisms import CardFull, NotPossible, NotYet

Connect = Callable[[float], socket.socket]
"""A connection to the server, for calls that may take so many seconds. Raises OSError."""

_MOST = 4 * 2**20  # bytes of an answer: /metrics is the largest
_ASK_S = 5.0  # what only looks
_REQUESTS = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? +(\S+)", re.MULTILINE)
_FULL = ("out of memory", "cudaerrormemoryallocation")
_SWITCHES = "start it with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    def said(self) -> str:
        """The text of a refusal, in one short line."""
        try:
            error = json.loads(self.body)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError):
            text = self.body.decode(errors="replace")
        return " ".join(text.split())[:200] or f"status {self.status}"


class Server:
    """Stateless: every call is a connection of its own, since a frozen server keeps none alive."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def sleeping(self) -> bool:
        """Whether it sleeps. Raises NotPossible where it has no sleep mode."""
        answer = self._ask("GET", "/is_sleeping", _ASK_S)
        if answer.status == 404:
            raise NotPossible(f"the server has no /is_sleeping: {_SWITCHES}")
        return bool(self._json(answer, "/is_sleeping").get("is_sleeping"))

    def requests(self) -> int:
        """How many are running or waiting in it, by its own metrics."""
        answer = self._good("GET", "/metrics", _ASK_S)
        found = _REQUESTS.findall(answer.body.decode(errors="replace"))
        if not found:
            raise NotPossible("the server's /metrics does not tell vllm:num_requests_running")
        try:
            return round(sum(float(value) for _, value in found))
        except (ValueError, OverflowError) as error:
            raise NotPossible(f"the server's /metrics cannot be read: {error}") from error

    def identity(self) -> str:
        """What tells it from another one: its version and its models, sorted."""
        version = self._json(self._good("GET", "/version", _ASK_S), "/version").get("version", "")
        models = self._json(self._good("GET", "/v1/models", _ASK_S), "/v1/models").get("data", [])
        try:
            return json.dumps([str(version), sorted(str(one["id"]) for one in models)])
        except (KeyError, TypeError) as error:
            raise NotPossible(f"the server's /v1/models cannot be read: {error!r}") from error

    def sleep(self, limit: float) -> None:
        """Level 1: weights to host memory. Requests that began meanwhile end before it, where the
        server knows `mode`; older ones do not read it."""
        answer = self._ask("POST", "/sleep?level=1&mode=wait", limit)
        if answer.status == 404:
            raise NotPossible(f"the server has no /sleep: {_SWITCHES}")
        if answer.status != 200:
            raise NotPossible(f"the server does not sleep: {answer.said()}")

    def wake_up(self, limit: float) -> None:
        """Back into VRAM. Raises CardFull: what it does then is in its own hands."""
        answer = self._ask("POST", "/wake_up", limit)
        if answer.status == 200:
            return
        said = answer.said()
        if any(word in said.lower() for word in _FULL):
            raise CardFull(f"the server found no room: {said}")
        raise NotYet(f"the server does not wake up: {said}")

    def _good(self, method: str, path: str, limit: float) -> Answer:
        answer = self._ask(method, path, limit)
        if answer.status != 200:
            raise NotPossible(f"the server answers {path} with {answer.status}: {answer.said()}")
        return answer

    def _json(self, answer: Answer, path: str) -> dict[str, Any]:
        try:
            body = json.loads(answer.body)
        except ValueError:
            body = None
        if answer.status != 200 or not isinstance(body, dict):
            raise NotPossible(f"the server answers {path} with {answer.status}: {answer.said()}")
        return body

    def _ask(self, method: str, path: str, limit: float) -> Answer:
        spoken = http.client.HTTPConnection("localhost")
        late = threading.Event()
        try:
            with closing(self._connect(limit)) as line, _ended(line, limit, late):
                spoken.sock = line
                spoken.request(method, path, headers={"Connection": "close"})
                answer = spoken.getresponse()
                return Answer(answer.status, answer.read(_MOST))
        except (OSError, http.client.HTTPException) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise NotYet(f"the server does not answer {path} in {limit:g} s") from error
            raise NotYet(f"the server does not answer {path}: {error!r}") from error


@contextmanager
def _ended(line: socket.socket, limit: float, late: threading.Event) -> Iterator[None]:
    """Ends the connection when the time is over, also where answers come drop by drop."""

    def end() -> None:
        late.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
