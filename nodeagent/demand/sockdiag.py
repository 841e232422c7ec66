"""
TCP sockets of a network namespace, as the kernel shows them: sock_diag(7) over netlink.

Called by: `lines`, with a netlink socket that was made in the namespace, for such a socket stays
there. One look is one request, in the older form that `ss` uses too: it alone asks for IPv4 and
IPv6 at once, and each request walks the whole host's table, which takes milliseconds. Nothing is
changed. The layouts are those of <linux/inet_diag.h> and <linux/tcp.h>.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

PROTOCOL = 4  # NETLINK_SOCK_DIAG
_GET_TCP = 18  # TCPDIAG_GETSOCK
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_INFO = 2  # INET_DIAG_INFO, an attribute with struct tcp_info
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ASK = struct.Struct("=BBBB48x2I")  # family, two lengths, extensions, any socket, states, database
_IDS = struct.Struct("=BBBB2H16s16sI2I")
_PORTS = struct.Struct("!2H")
_NUMBERS = struct.Struct("=5I")  # expires, rqueue, wqueue, uid, inode
_AGES = struct.Struct("=4I")  # milliseconds since data sent, ack sent, data received, ack received
_AGES_AT, _RECEIVED_AT, _SENT_AT = 44, 128, 156  # in struct tcp_info
_BUFFER = 64 * 1024
_PATIENCE_S = 1.0
_numbers = count(1)  # of requests: what a look that was given up still says is told apart


class DiagFailed(OSError):
    """The kernel does not answer as it should."""


class Tcp(IntEnum):
    """States of a connection that matter here, as the kernel counts them."""

    ESTABLISHED = 1
    CLOSE_WAIT = 8  # the client said that it sends no more
    LISTEN = 10


_STATES = sum(1 << state for state in Tcp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """One of them. Of a listener, `unread` is who waits to be accepted and `most` how many may;
    else `unread` is bytes. Seconds since data came or went, in the kernel's ticks and of one
    moment, so that they can be compared; bytes received and packets of data sent in all.

    `inode` is 0 while nobody has accepted it.
    """

    cookie: int
    state: int
    port: int
    peer: str
    unread: int
    most: int
    inode: int
    received: int = 0
    sent: int = 0
    sent_ago: float = 0.0
    received_ago: float = 0.0


def look(line: socket.socket) -> tuple[Socket, ...]:
    """All of the namespace that `line` was made in. Raises OSError."""
    line.settimeout(_PATIENCE_S)
    return tuple(_dump(line, next(_numbers) % 2**32))


def _dump(line: socket.socket, number: int) -> Iterator[Socket]:
    ask = _ASK.pack(socket.AF_UNSPEC, 0, 0, 1 << (_INFO - 1), _STATES, 0)
    head = _HEADER.pack(_HEADER.size + len(ask), _GET_TCP, _REQUEST | _DUMP, number, 0)
    line.send(head + ask)
    while True:
        for kind, sequence, body in _messages(line.recv(_BUFFER)):
            if sequence != number:
                continue  # the rest of a look that was given up
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise DiagFailed(-struct.unpack_from("=i", body)[0], "sock_diag refuses")
            yield _socket(body)


def _messages(answer: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, _, sequence, _ = _HEADER.unpack_from(answer, at)
        if length < _HEADER.size:
            raise DiagFailed(0, "an answer of no length")
        yield kind, sequence, answer[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _socket(body: bytes) -> Socket:
    family, state, _, _, _, _, _, peer, _, low, high = _IDS.unpack_from(body)
    port, _ = _PORTS.unpack_from(body, 4)
    _, unread, most, _, inode = _NUMBERS.unpack_from(body, _IDS.size)
    received, sent, sent_ago, received_ago = _traffic(body)
    return Socket(
        cookie=high << 32 | low,
        state=state,
        port=port,
        peer=_address(peer, family),
        unread=unread,
        most=most,
        inode=inode,
        received=received,
        sent=sent,
        sent_ago=sent_ago,
        received_ago=received_ago,
    )


def _address(packed: bytes, family: int) -> str:
    """An IPv4 client of an IPv6 socket is written as IPv4."""
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(packed[:4]))
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _traffic(body: bytes) -> tuple[int, int, float, float]:
    """Bytes received, packets sent, seconds since data went, seconds since data came."""
    at = _IDS.size + _NUMBERS.size
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if kind == _INFO and length >= 4 + _SENT_AT + 4:
            start = at + 4
            sent, _, came, _ = _AGES.unpack_from(body, start + _AGES_AT)
            (received,) = struct.unpack_from("=Q", body, start + _RECEIVED_AT)
            (packets,) = struct.unpack_from("=I", body, start + _SENT_AT)
            return received, packets, sent / 1000, came / 1000
        if length < 4:
            break
        at += (length + 3) & ~3
    return 0, 0, 0.0, 0.0
