"""
One client's connection: requests read whole, taken to the desk one by one, answered in order.

Called by: asyncio. Rules: a request is held in memory before anybody is woken for it, so a slow
client costs nobody's GPU; what is too large, too slow or not HTTP is refused here; a client that
goes away (also by closing its half) takes its request with it.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from activator import messages
from activator.memory import Memory
from activator.messages import Header, Request

if TYPE_CHECKING:
    from activator.upstream import Upstream

MOST_HEAD = 64 << 10  # bytes of a request's head; vLLM's own servers take as many
_AHEAD = 16  # requests a client may send before the first is answered


class Desk(Protocol):
    """Who takes requests."""

    most_body: int
    memory: Memory

    def take(self, front: "Front", request: Request) -> None:
        """A whole request; exactly one answer follows, and `front.done` after its last byte."""

    def arrived(self, front: "Front") -> bool:
        """Whether this connection may stay."""

    def left(self, front: "Front") -> None:
        """It is gone, with what it waited for."""

    def now(self) -> float:
        """Monotonic seconds."""


class Front(asyncio.Protocol):
    """`transport` writes to the client. `carrying` is the upstream whose answer is under way."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parser = httptools.HttpRequestParser(self)
        self._coming: Request | None = None  # being read
        self._body: list[bytes] = []
        self._in_head = False  # of a request that is being read
        self._sizes = [0, 0]  # of its head, in whole reads, and of its body
        self._kept = 0  # bytes of bodies, of all requests that are not answered
        self._waiting: deque[Request] = deque()
        self._refused: tuple[int, str] | None = None
        self._upgraded = False
        self.request: Request | None = None  # taken, not answered yet
        self.exchange: object | None = None  # the desk's, for the request that is taken
        self.carrying: Upstream | None = None
        self.early: list[bytes] = []  # what came after a request for another protocol
        self.since = desk.now()  # reading a request, or idle, since then
        self.peer = ""
        self.closed = False  # nothing is written any more
        self.lingers = False  # it was turned away, and is still read
        self.slow = False  # more is written than it reads
        self._taking = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        if not self._desk.arrived(self):
            self.closed = True
            transport.abort() if isinstance(transport, asyncio.Transport) else transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._upgraded:
            self._other_protocol(data)
            return
        if self._refused or self.closed:
            return
        in_head = self._in_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded = True
            rest = data[upgrade.args[0] :]
            if rest:
                self._other_protocol(rest)
        except httptools.HttpParserError as problem:
            self._refuse(400, f"not an HTTP/1.1 request: {problem}")
        self._sizes[0] += len(data) if in_head and self._in_head else 0
        if self._sizes[0] > MOST_HEAD:
            self._refuse(431, f"the head of a request has at most {MOST_HEAD} bytes")
        if len(self._waiting) > _AHEAD:
            self.transport.pause_reading()
        self._next()

    def eof_received(self) -> bool:
        """Called by asyncio: it will not send any more, which is how clients leave."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Called by asyncio."""
        self.closed = True
        self._waiting.clear()
        self._desk.memory.give_back(self._kept)
        self._kept = 0
        self._desk.left(self)

    def pause_writing(self) -> None:
        """Called by asyncio: the client reads slowly."""
        self.slow = True
        if self.carrying is not None:
            self.carrying.pause()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.slow = False
        if self.carrying is not None:
            self.carrying.resume()

    # the parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._coming = Request(peer=self.peer)
        self._body = []
        self._in_head, self._sizes = True, [0, 0]
        self.since = self._desk.now()

    def on_url(self, part: bytes) -> None:
        """Its target, perhaps in parts."""
        assert self._coming is not None
        self._coming.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        assert self._coming is not None
        self._coming.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is there."""
        request = self._coming
        assert request is not None
        request.method = self._parser.get_method()
        request.modern = self._parser.get_http_version() == "1.1"
        request.keep = self._parser.should_keep_alive()
        self._in_head, self._sizes[0] = False, 0
        for name, value in request.headers:
            lower = name.lower()
            if lower == b"host":
                request.host = value
            elif lower == b"upgrade" and self._parser.should_upgrade():
                request.upgrade = value.lower()
            elif lower == b"content-length" and int(value) > self._desk.most_body:
                self._too_large()
            elif lower == b"expect" and not self._refused and not self._busy:
                self.transport.write(messages.CONTINUE)

    def on_body(self, part: bytes) -> None:
        """A part of its body."""
        self._sizes[1] += len(part)
        if self._sizes[1] > self._desk.most_body:
            self._too_large()
        elif self._refused:
            return
        elif self._desk.memory.take(len(part)):
            self._kept += len(part)
            self._body.append(part)
        else:
            self._refuse(429, "the bodies of requests fill the memory they may take; ask again")

    def on_message_complete(self) -> None:
        """It is whole."""
        request = self._coming
        assert request is not None
        request.body = b"".join(self._body)
        self._coming, self._body = None, []
        if not self._refused:
            self._waiting.append(request)

    # the desk's side

    @property
    def _busy(self) -> bool:
        return self.request is not None or bool(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether its client asks nothing now."""
        return not (self._busy or self.reading or self.closed)

    @property
    def reading(self) -> bool:
        """Whether a request has begun and is not whole yet."""
        return self._coming is not None

    def write(self, data: bytes) -> None:
        """To the client."""
        if not self.closed:
            self.transport.write(data)

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = messages.JSON,
        more: tuple[Header, ...] = (),
    ) -> None:
        """A whole answer of our own to the request that is taken."""
        request = self.request
        assert request is not None
        if request.upgrade:
            request.keep = False
        answer = messages.answer_bytes(
            status,
            body,
            keep=request.keep,
            content_type=content_type,
            more=more,
            bodyless=request.method == b"HEAD",
        )
        self.write(answer)
        self.done()

    def done(self) -> None:
        """The request that was taken is answered to its last byte."""
        request, self.request = self.request, None
        self.exchange = self.carrying = None
        self.since = self._desk.now()
        if request is None or self.closed:
            return
        self._desk.memory.give_back(len(request.body))
        self._kept -= len(request.body)
        if not request.keep:
            self.close()
            return
        if not self.transport.is_reading() and len(self._waiting) <= _AHEAD:
            self.transport.resume_reading()
        self._next()

    def broken(self) -> None:
        """The answer broke off in its middle: so does the connection, or it would look whole."""
        self.closed = True
        self.transport.abort()

    def close(self) -> None:
        """After what is written."""
        self.closed = True
        self.transport.close()

    def late(self) -> None:
        """The client took too long for its request."""
        self._refuse(408, "the request took too long to arrive")
        self._next()

    def _next(self) -> None:
        if self._taking:  # `done` within `take`: the loop below goes on
            return
        self._taking = True
        try:
            while self._waiting and self.request is None and not self.closed:
                self.request = self._waiting.popleft()
                self._desk.take(self, self.request)
        finally:
            self._taking = False
        if self._refused and self.request is None and not self.closed:
            self._turn_away(*self._refused)

    def _turn_away(self, status: int, why: str) -> None:
        """Say why, and read on for a moment: closed at once, the client would not see the answer
        for the reset that follows what it still sends."""
        body = messages.error_body(status, why, "bad_request")
        more = ((b"Retry-After", b"1"),) if status == 429 else ()
        self.write(messages.answer_bytes(status, body, keep=False, more=more))
        self.closed, self.since = True, self._desk.now()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.lingers = True
        else:
            self.transport.close()

    def _too_large(self) -> None:
        self._refuse(413, f"a request's body has at most {self._desk.most_body} bytes here")

    def _refuse(self, status: int, why: str) -> None:
        self._refused = self._refused or (status, why)
        self._body = []

    def _other_protocol(self, data: bytes) -> None:
        if self.carrying is not None and self.carrying.tunnels:
            self.carrying.send(data)
            return
        self.early.append(data)
        if sum(map(len, self.early)) > MOST_HEAD:
            self.transport.pause_reading()
