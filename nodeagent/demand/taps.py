"""
A hint that something came for a pod: a packet socket in its network namespace, readable when a TCP
packet arrived there.

Called by: `namespaces`, for pods that are parked only: on a running one a tap would copy each
packet's header. Rule: a hint says "look", never more; what is so is seen by `sockdiag`. The filter
lets the kernel drop what nobody looks at before it costs anything.
"""

import ctypes
import socket
import struct
from contextlib import suppress

EVERYTHING = socket.htons(0x0003)  # ETH_P_ALL
_ATTACH = 26  # SO_ATTACH_FILTER
_ROOM = 4096  # bytes kept for us: one hint is as good as ten
_MOST = 64  # read away at once

# Classic BPF over packets that begin with the IP header: (code, jump if, jump if not, value).
_LOAD_BYTE, _LOAD_WORD, _EQUAL, _SHIFT, _RETURN = 0x30, 0x20, 0x15, 0x74, 0x06
_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_OUTGOING, _TCP = 4, 6
_PROGRAM = (
    (_LOAD_BYTE, 0, 0, _PACKET_TYPE),
    (_EQUAL, 7, 0, _OUTGOING),  # ours: drop
    (_LOAD_BYTE, 0, 0, 0),
    (_SHIFT, 0, 0, 4),
    (_EQUAL, 0, 2, 4),
    (_LOAD_BYTE, 0, 0, 9),  # IPv4: protocol
    (_EQUAL, 3, 2, _TCP),
    (_LOAD_BYTE, 0, 0, 6),  # IPv6: next header; one with extensions is looked for now and then
    (_EQUAL, 1, 0, _TCP),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 1),  # one byte is enough
)


def only_tcp(tap: socket.socket) -> None:
    """Have it be readable for TCP that comes in, and for nothing else. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *step) for step in _PROGRAM)
    kept = ctypes.create_string_buffer(code)
    tap.setsockopt(
        socket.SOL_SOCKET, _ATTACH, struct.pack("@HP", len(_PROGRAM), ctypes.addressof(kept))
    )
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    tap.setblocking(False)


def drained(tap: socket.socket) -> None:
    """Hear all hints there are."""
    with suppress(BlockingIOError):
        for _ in range(_MOST):
            tap.recv(1)
