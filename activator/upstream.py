"""
One connection to a model: a request is sent, its answer passed to the client as it comes.

Called by: `exchange`, `pool` (which keeps idle ones), asyncio. Rules: an answer goes to the one
client whose request was sent, and no other is sent on this connection before its last byte; an
answer that breaks off breaks the client's connection; a client that reads slowly slows the model
down, and fills no memory of ours.
"""

import asyncio
from typing import Protocol, cast

import httptools

from activator import messages
from activator.front import Front
from activator.messages import Header, Request

MOST_HEAD = 64 << 10  # bytes of an answer's head


class Carried(Protocol):
    """Who wants to know how it went. Exactly one of the two is called, once."""

    front: Front
    request: Request
    more: tuple[Header, ...]  # fields of ours for the head of the answer

    def carried(self, upstream: "Upstream") -> None:
        """The answer has been passed on, or broke off after it began."""

    def failed(self, upstream: "Upstream", why: str) -> None:
        """Not a byte of an answer came."""


class Upstream(asyncio.Protocol):
    """`fresh` until its first answer is over; `reusable` once an answer left it usable."""

    def __init__(self) -> None:
        self._carried: Carried | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._out: list[bytes] = []
        self._headers: list[Header] = []
        self._reason = b""
        self._head_size = 0
        self._begun = False  # the head was passed on
        self._chunks = False  # we frame the body by chunks
        self._until_close = False  # the model ends it by closing
        self._finished = False  # its last byte is there
        self._stray = False  # and more after it, which nobody asked for
        self.tunnels = False
        self.fresh = True
        self.reusable = False
        self.idle_since = 0.0
        self.lost = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        carried = self._carried
        if carried is None:  # an answer nobody asked for
            self.close()
        elif self.tunnels:
            carried.front.write(data)
        else:
            self._parse(data)

    def eof_received(self) -> bool:
        """Called by asyncio."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.lost = True
        self.reusable = False
        carried = self._carried
        if carried is None:
            return
        if self.tunnels or (self._begun and self._until_close and error is None):
            carried.request.keep = carried.request.keep and self._chunks and not self.tunnels
            self._ended()
        else:
            self._broke(f"the model closed the connection{f': {error}' if error else ''}")

    def pause_writing(self) -> None:
        """Called by asyncio: the model reads slowly. Only a tunnel's client can be slowed down."""
        if self.tunnels and self._carried is not None:
            self._carried.front.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self.tunnels and self._carried is not None:
            self._carried.front.transport.resume_reading()

    # the parser's side

    def on_status(self, reason: bytes) -> None:
        """The words after the status."""
        self._reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self._finished:
            self._stray = True
            return
        status = self._parser.get_status_code()
        if status == 101:
            self._change_protocol()
        elif status >= 200:
            self._begin(status)

    def on_body(self, part: bytes) -> None:
        """A part of the body, without its framing."""
        if self._stray:
            return
        if self._chunks:
            self._out.append(b"%x\r\n%b\r\n" % (len(part), part))
        else:
            self._out.append(part)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._stray:
            return
        if not self._begun:  # 100, 103: the answer is still to come
            self._headers, self._reason = [], b""
            return
        self.reusable = self._parser.should_keep_alive() and not self._until_close
        if not self.tunnels:
            self._finished = True

    # the carrier's side

    def carry(self, carried: Carried, data: bytes) -> None:
        """Send a request. Only where nothing is under way."""
        self._parser = httptools.HttpResponseParser(self)
        self._carried = carried
        self._headers, self._reason, self._head_size = [], b"", 0
        self._begun = self._chunks = self._until_close = False
        self._finished = self._stray = self.reusable = False
        carried.front.carrying = self
        self.transport.write(data)

    def send(self, data: bytes) -> None:
        """Through a tunnel."""
        self.transport.write(data)

    def let_go(self) -> None:
        """The client left: the model is told by a closed connection, and nobody is called."""
        self._carried = None
        self.close()

    def pause(self) -> None:
        """The client reads slowly."""
        if not self.lost:
            self.transport.pause_reading()

    def resume(self) -> None:
        """It has caught up."""
        if not self.lost:
            self.transport.resume_reading()

    def close(self) -> None:
        """At once."""
        self.lost = True
        self.reusable = False
        self.transport.abort()

    # within

    def _parse(self, data: bytes) -> None:
        if not self._begun:
            self._head_size += len(data)
        rest = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as problem:
            self._flush()
            self._broke(f"the model's answer is not HTTP/1.1: {problem}")
            return
        if not self._begun and self._head_size > MOST_HEAD:
            self._broke(f"the head of the model's answer has more than {MOST_HEAD} bytes")
            return
        self._flush()
        if self.tunnels and self._carried is not None:
            self._open_tunnel(self._carried, rest)
        elif self._finished:
            self.reusable = self.reusable and not self._stray
            self._ended()

    def _flush(self) -> None:
        if self._out and self._carried is not None:
            self._carried.front.write(b"".join(self._out))
            self._out = []

    def _begin(self, status: int) -> None:
        carried = self._carried
        assert carried is not None
        request = carried.request
        framing = {name.lower(): value for name, value in self._headers}
        bodyless = request.method == b"HEAD" or status in (204, 304)
        headers = messages.passed_on(self._headers)
        length = framing.get(b"content-length")
        if length is not None and b"transfer-encoding" not in framing:
            headers.append((b"Content-Length", length))
        elif not bodyless:
            self._until_close = b"transfer-encoding" not in framing
            self._chunks = request.modern
            if self._chunks:
                headers.append((b"Transfer-Encoding", b"chunked"))
            else:
                request.keep = False
        headers += carried.more
        headers.append((b"Connection", b"keep-alive" if request.keep else b"close"))
        self._out.append(messages.head_bytes(status, self._reason, headers))
        self._begun = True
        if request.method == b"HEAD":  # the parser waits for a body that does not come
            self._finished = True
            self.reusable = False

    def _change_protocol(self) -> None:
        carried = self._carried
        assert carried is not None
        if not carried.request.upgrade:
            raise ValueError("it changes the protocol, and was not asked to")
        headers = messages.passed_on(self._headers, frozenset({b"upgrade"}))
        headers.append((b"Connection", b"Upgrade"))
        self._out.append(messages.head_bytes(101, self._reason, headers))
        self._begun = self.tunnels = True
        carried.request.keep = False

    def _open_tunnel(self, carried: Carried, rest: bytes) -> None:
        if rest:
            carried.front.write(rest)
        early, carried.front.early = carried.front.early, []
        for data in early:
            self.transport.write(data)
        carried.front.transport.resume_reading()

    def _ended(self) -> None:
        carried, self._carried = self._carried, None
        assert carried is not None
        self.fresh = False
        if self._chunks:
            carried.front.write(b"0\r\n\r\n")
        carried.carried(self)

    def _broke(self, why: str) -> None:
        carried, self._carried = self._carried, None
        self.close()
        assert carried is not None
        if self._begun:
            carried.front.broken()
            carried.carried(self)
        else:
            carried.failed(self, why)
