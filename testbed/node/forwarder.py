"""
Ports of the machine's loopback, reachable inside a node, so that what serves on loopback need not
be told of nodes.

Called by: `testbed.node.realnode`, as a program; `command` gives its arguments.
Rule: the listening sockets are made in the node's network namespace and belong to it; everything
else happens in the machine's. Nothing listens on the machine, and no firewall rule is needed.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testbed.node import kernel

LOOPBACK = "127.0.0.1"
_LISTENING = "0A"  # TCP_LISTEN
_CHUNK = 1 << 16  # bytes; a watch event or an image layer's piece


@dataclass(frozen=True, slots=True)
class Forward:
    """An address inside the node, and the port of the machine's loopback it leads to."""

    address: str
    port: int
    target: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}:{self.target}"

    @classmethod
    def parse(cls, text: str) -> "Forward":
        """The reverse of str."""
        address, port, target = text.split(":")
        return cls(address, int(port), int(target))


def command(first: int, forwards: Sequence[Forward]) -> list[str]:
    """Arguments of this program, for the node whose first process is `first`."""
    python = [sys.executable, "-S", "-m", "testbed.node.forwarder"]
    return [*python, str(first), *map(str, forwards)]


def listens(first: int, forwards: Sequence[Forward]) -> bool:
    """Whether all of them are open in the node whose first process is `first`."""
    lines = Path(f"/proc/{first}/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    there = {local for _, local, _, state, *_ in fields if state == _LISTENING}
    return {_as_kernel_shows(one) for one in forwards} <= there


def _as_kernel_shows(forward: Forward) -> str:
    """Hexadecimal; the address as a number of this machine."""
    number = int.from_bytes(socket.inet_aton(forward.address), sys.byteorder)
    return f"{number:08X}:{forward.port:04X}"


def main() -> None:
    """Serves until it is ended, or its node has ended."""
    first, *texts = sys.argv[1:]
    forwards = [Forward.parse(text) for text in texts]
    asyncio.run(_serve(int(first), forwards))


def _listen(first: int, forwards: Sequence[Forward]) -> list[socket.socket]:
    """Sockets of the node's network namespace; we are back in our own afterwards."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/proc/{first}/ns/net", os.O_RDONLY)
    kernel.setns(theirs)
    try:
        return [socket.create_server((one.address, one.port)) for one in forwards]
    finally:
        kernel.setns(ours)


async def _serve(first: int, forwards: Sequence[Forward]) -> None:
    """Until the node's first process ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(os.pidfd_open(first), ended.set)
    for forward, there in zip(forwards, _listen(first, forwards), strict=True):
        await asyncio.start_server(partial(_connect, forward.target), sock=there)
    await ended.wait()


async def _connect(target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both directions of one connection until both have ended."""
    try:
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, target)
    except OSError:
        writer.transport.abort()  # as refused as it can be: the kernel has accepted already
        return
    await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
    writer.close()
    there_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """One direction; its end is handed on, and a reset in either place ends it, too."""
    try:
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except OSError:
        sink.transport.abort()


if __name__ == "__main__":
    main()
