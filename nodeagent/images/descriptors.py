"""
What a process's sockets are: asked of the sockets themselves, which takes no stop of the process.

Called by: `nodeagent.images.fitness`, mechanisms that wait for a connection to be closed.
"""

import ctypes
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_PIDFD_GETFD = 438  # the same number on every architecture
_DOMAIN, _PROTOCOL = 39, 38  # SO_DOMAIN, SO_PROTOCOL
_STREAMS_FINE = frozenset(
    {
        socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_RAW, socket.IPPROTO_ICMP,
        socket.IPPROTO_ICMPV6, 136,  # UDP-Lite
    }
)  # fmt: skip
_PROTOCOLS = {132: "SCTP", 262: "MPTCP", 256: "SMC"}
_NETLINK, _PACKET = 16, 17
_FAMILIES = {38: "AF_ALG", 40: "AF_VSOCK", 44: "AF_XDP", 31: "AF_BLUETOOTH", 29: "AF_CAN"}


def unsupported(pid: int, number: int) -> str:
    """Which kind of socket CRIU cannot dump; empty for the others, and where it is gone."""
    with suppress(OSError), _borrowed(pid, number) as one:
        family = one.getsockopt(socket.SOL_SOCKET, _DOMAIN)
        if family in (socket.AF_UNIX, _NETLINK, _PACKET):
            return ""
        if family not in (socket.AF_INET, socket.AF_INET6):
            return _FAMILIES.get(family, f"family {family}")
        protocol = one.getsockopt(socket.SOL_SOCKET, _PROTOCOL)
        if one.type is socket.SOCK_RAW or protocol in _STREAMS_FINE:
            return ""
        return _PROTOCOLS.get(protocol, f"protocol {protocol}")
    return ""


def outside(pids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The processes with a connected unix socket whose peer is none of them, and that peer.

    The kernel tells who was there when it was connected, which is enough for a warning.
    """
    inside = set(pids)
    for pid in pids:
        with suppress(FileNotFoundError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(entry.readlink()).startswith("socket:"):
                        peer = _peer(pid, int(entry.name))
                        if peer and peer not in inside:
                            yield pid, peer


def _peer(pid: int, number: int) -> int:
    with _borrowed(pid, number) as one:
        if one.getsockopt(socket.SOL_SOCKET, _DOMAIN) != socket.AF_UNIX:
            return 0
        one.getpeername()  # raises where it is not connected
        raw = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(raw[:4], "little", signed=True)


def _borrowed(pid: int, number: int) -> socket.socket:
    """Another process's socket as one of ours; closing ours leaves it open. Raises OSError."""
    whose = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.syscall(_PIDFD_GETFD, whose, number, 0)
    finally:
        os.close(whose)
    if descriptor < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return socket.socket(fileno=descriptor)
