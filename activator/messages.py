"""
HTTP/1.1 as bytes: a request as it came, heads for the other side, and answers of our own. Pure.

Called by: `front`, `upstream`, `desk`. Parsing is httptools' (the parser of Node.js, strict about
framing); heads are written anew, never passed through, so what we understood is what the other side
reads. Rule: fields that are about one connection stay on it (RFC 9110, section 7.6.1).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

Header = tuple[bytes, bytes]

_REASONS = {
    200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 502: b"Bad Gateway",
    503: b"Service Unavailable", 505: b"HTTP Version Not Supported",
}  # fmt: skip
# Of one connection only; `expect` is answered by us, lengths are written by us.
_ONE_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate",
        b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
        b"content-length",
    }
)  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"application/json"


@dataclass(slots=True)
class Request:
    """One request, whole once `front` hands it on. `body` is at most what settings allow."""

    method: bytes = b""
    target: bytes = b""
    headers: list[Header] = field(default_factory=list)
    host: bytes = b""
    body: bytes = b""
    modern: bool = True  # HTTP/1.1: understands chunks
    keep: bool = True  # its client wants to go on afterwards
    upgrade: bytes = b""  # the protocol it wants to change to: `websocket`, in lower case
    peer: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method in (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")


def passed_on(headers: Iterable[Header], keep: frozenset[bytes] = frozenset()) -> list[Header]:
    """Without what is about one connection, but for `keep`."""
    headers = list(headers)
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    left = (_ONE_HOP | named) - keep if named else _ONE_HOP - keep
    return [header for header in headers if header[0].lower() not in left]


def request_bytes(request: Request, target: bytes) -> bytes:
    """As the model gets it: framed by a length, with who asked."""
    headers = passed_on(request.headers)
    parts = [b"%b %b HTTP/1.1\r\n" % (request.method, target)]
    parts += [b"%b: %b\r\n" % header for header in headers]
    if request.peer:
        parts.append(b"X-Forwarded-For: %b\r\n" % request.peer.encode())
    if request.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade)
    if request.body or request.method in (b"POST", b"PUT", b"PATCH"):
        parts.append(b"Content-Length: %d\r\n" % len(request.body))
    parts += [b"\r\n", request.body]
    return b"".join(parts)


def head_bytes(status: int, reason: bytes, headers: Iterable[Header]) -> bytes:
    """The head of an answer."""
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason or _REASONS.get(status, b""))]
    parts += [b"%b: %b\r\n" % header for header in headers]
    parts.append(b"\r\n")
    return b"".join(parts)


def answer_bytes(
    status: int,
    body: bytes,
    *,
    keep: bool,
    content_type: bytes = JSON,
    more: Iterable[Header] = (),
    bodyless: bool = False,
) -> bytes:
    """An answer of ours."""
    headers = [
        (b"Content-Type", content_type),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"keep-alive" if keep else b"close"),
        *more,
    ]
    return head_bytes(status, b"", headers) + (b"" if bodyless else body)


def error_body(status: int, message: str, code: str) -> bytes:
    """In the shape that clients of OpenAI's API read."""
    kind = "invalid_request_error" if status < 500 else "service_unavailable"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return orjson.dumps({"error": error}) + b"\n"
