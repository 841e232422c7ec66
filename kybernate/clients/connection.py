"""
HTTP to the API server: bytes out, bytes in. What they mean is `kube.py`'s.

`HttpTransport` is the real one; `testing/fakekube.py` has one in memory. Rules: every read has a
timeout; only reads are tried again by themselves; a token is read again when its file changes;
errors of the network become Unavailable here and nowhere else.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as HttpTimeout

from kybernate.clients.errors import Unavailable
from kybernate.clients.kubeconfig import Access

# A peer that vanished without a word (half-open connection) is found by the kernel in half a
# minute: probes after 15 s of silence, three of them 5 s apart.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]
_CONNECT_S = 5.0
_CONNECTIONS = 16  # kept alive; more are opened when all are in use
# A reused connection may have been closed by the server a moment ago, and a starting server answers
# 503: two more tries, 0.1 s and 0.2 s later. Never for writes, which may have been done.
_READS = urllib3.Retry(
    total=2,
    read=1,
    backoff_factor=0.1,
    status_forcelist=(502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,
)
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `once`: not even a read is tried again."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    timeout: float = 30.0  # seconds without a byte; for a stream: of silence
    once: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Whatever the server said, also when it is an error."""

    status: int
    body: bytes
    retry_after: float | None = None


class Lines(Protocol):
    """An answer that goes on: one JSON document per line."""

    def __iter__(self) -> Iterator[bytes]:
        """Raises Unavailable when the connection breaks or is silent for too long."""
        ...

    def close(self) -> None:
        """End it; from any thread, also while another one is iterating."""
        ...


class Transport(Protocol):
    """Carries requests."""

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status. Raises Unavailable when there is none."""
        ...

    def stream(self, request: Request) -> "Answer | Lines":
        """The lines of a 200; the answer where it is anything else. Raises Unavailable."""
        ...

    def close(self) -> None:
        """Let go of idle connections."""
        ...


class HttpTransport:
    """Kept-alive connections to one server. Safe for several threads."""

    def __init__(self, access: Access) -> None:
        self._server = access.server
        self._token = _Token(access.token, access.token_file)
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            headers={"Accept": "application/json", "User-Agent": "kybernate"},
            socket_options=[*HTTPConnection.default_socket_options, *_KEEPALIVE],
            ssl_context=access.ssl_context,
        )

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status. Raises Unavailable when there is none."""
        retried = request.method == "GET" and not request.once
        try:
            response = self._open(request, preload=True, retries=_READS if retried else False)
        except HTTPError as problem:
            raise _unavailable(request, problem) from problem
        return Answer(response.status, response.data, _retry_after(response))

    def stream(self, request: Request) -> Answer | Lines:
        """The lines of a 200; the answer where it is anything else. Raises Unavailable."""
        try:
            response = self._open(request, preload=False, retries=False)
            if response.status == 200:
                return _HttpLines(request, response)
            return Answer(response.status, response.data, _retry_after(response))
        except HTTPError as problem:
            raise _unavailable(request, problem) from problem

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.clear()

    def _open(
        self, request: Request, *, preload: bool, retries: urllib3.Retry | bool
    ) -> urllib3.BaseHTTPResponse:
        headers = {**self._pool.headers, **self._token.header()}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        url = self._server + request.path
        if request.query:
            url += "?" + urlencode(request.query)
        return self._pool.request(
            request.method,
            url,
            body=request.body,
            headers=headers,
            preload_content=preload,
            redirect=False,
            retries=retries,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, request.timeout), read=request.timeout),
        )


class _HttpLines:
    def __init__(self, request: Request, response: urllib3.BaseHTTPResponse) -> None:
        self._request = request
        self._response = response
        self._reading = self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        self._reading = True
        rest = b""
        try:
            while chunk := self._response.read1(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
        except HTTPError as problem:
            if not self._closed:  # else it broke because we wanted it to
                raise _unavailable(self._request, problem) from problem
        finally:
            self._response.close()

    def close(self) -> None:
        self._closed = True
        # It wakes a blocked read; the reader then closes the response. A response that ended
        # already has no socket to shut down.
        with suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()
        if not self._reading:
            self._response.close()


class _Token:
    """A bearer token; from a file, it is read again when the file changes."""

    def __init__(self, token: str, file: Path | None) -> None:
        self._token = token
        self._file = file
        self._seen = 0

    def header(self) -> dict[str, str]:
        if self._file is not None:
            self._refresh(self._file)
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _refresh(self, file: Path) -> None:
        try:
            changed = file.stat().st_mtime_ns
            if changed != self._seen:
                self._token = file.read_text().strip()
                self._seen = changed
        except OSError as problem:
            # The one we have may still be good; without any, the kubelet has yet to write it.
            if not self._token:
                raise Unavailable(0, "NoToken", str(problem)) from problem


def _unavailable(request: Request, problem: HTTPError) -> Unavailable:
    reason = "Timeout" if isinstance(problem, HttpTimeout) else "Network"
    return Unavailable(0, reason, f"{request.method} {request.path}: {problem}")


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
