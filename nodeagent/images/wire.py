"""
CRIU's image files on this machine's disk; what is in them is `kybernate.artifacts.criu`.

Called by: `nodeagent.images.refit`, `pages`.
"""

from collections.abc import Sequence
from pathlib import Path

from kybernate.artifacts import criu
from kybernate.artifacts.criu import Message, NotAnImage

__all__ = ["Message", "NotAnImage", "read", "write"]


def read(file: Path) -> tuple[bytes, list[bytes]]:
    """An image file's head and its entries. Raises NotAnImage, OSError."""
    return criu.split(file.read_bytes(), file.name)


def write(file: Path, head: bytes, entries: Sequence[bytes]) -> None:
    """A new image file. Raises OSError."""
    file.write_bytes(criu.joined(head, entries))
