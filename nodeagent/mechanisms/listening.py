"""
Where a container's own processes listen, from /proc. Called by `vllmsleep`.

Sockets are matched by inode, so that a neighbour in the same network namespace (a sidecar, or on a
light node everybody) is never taken for the workload.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from nodeagent.linux.processes import PROC, tree

_LISTENS = "0A"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
Address = tuple[str, int]


def addresses(pid: int) -> tuple[Address, ...]:
    """Host and port of every TCP listener of the process and those below it, lowest port first."""
    pids = tree(pid)
    mine = frozenset(inode for one in pids for inode in _sockets(one))
    found = {where for table in ("tcp", "tcp6") for where in _listeners(pid, table, mine)}
    return tuple(sorted(found, key=lambda one: (one[1], one[0])))


def _sockets(pid: int) -> Iterator[str]:
    folder = PROC / str(pid) / "fd"
    with suppress(OSError):
        for descriptor in folder.iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def _listeners(pid: int, table: str, inodes: Iterable[str]) -> Iterator[Address]:
    try:
        lines = (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTENS and fields[9] in inodes:
            yield _address(fields[1])


def _address(text: str) -> Address:
    """`0100007F:1F90`: words of four bytes as the machine has them, then the port."""
    words, _, port = text.partition(":")
    raw = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    host = socket.inet_ntop(family, raw).removeprefix("::ffff:")
    return _ANYWHERE.get(host, host), int(port, 16)
