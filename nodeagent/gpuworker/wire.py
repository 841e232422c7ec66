"""
What agent and worker say to each other: packets of JSON, descriptors beside them.

Used by both ends (`client`, `serving`). The worker greets with its build; then one request, one
reply. Both are of one build, so there are no versions of this.
"""

import hashlib
import socket
from pathlib import Path
from typing import Any

import orjson

MOST = 200_000  # bytes of a packet; the kernel takes about this much
DESCRIPTORS = 128
_ROOM = 256 * 1024


def build() -> str:
    """Of the worker's files, as they are on the disk now."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".py", ".ptx"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def send(to: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Raises OSError, ValueError where the message is too long."""
    packet = orjson.dumps(message)
    if len(packet) > MOST:
        raise ValueError(f"a message of {len(packet)} bytes is too long")
    socket.send_fds(to, [packet], descriptors or [])


def receive(source: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message and its descriptors. EOFError at the end. Raises OSError, ValueError."""
    packet, descriptors, flags, _ = socket.recv_fds(source, _ROOM, DESCRIPTORS)
    if not packet:
        raise EOFError
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("a message was cut")
    return orjson.loads(packet), list(descriptors)
