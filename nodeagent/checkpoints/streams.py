"""
Bytes on their way: hashed while they are written, and hashed where they lie.

Called by: drafts, the store. Rule: files are opened without following links. Hashing and disk work
side by side: both let go of the interpreter.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

BLOCK = 2 * 1024 * 1024  # bytes: larger ones are no faster, and leave the processor's cache
_LOOK_EVERY = 64 * 1024 * 1024  # bytes between two looks at the room
SIDE_BY_SIDE = min(4, os.cpu_count() or 1)  # files hashed at once; a disk is slower than four


def pour(
    chunks: Iterable[bytes | memoryview],
    into: BinaryIO,
    room: Callable[[int], None],
    after: int = 0,
) -> tuple[int, str]:
    """Write all of it; bytes and SHA-256. `room(bytes so far)` may raise. The first `after` bytes
    of the file are there and stay, and what else is in it goes."""
    digest, size = sha256(), after
    for left in range(after, 0, -BLOCK):
        digest.update(into.read(min(left, BLOCK)))
    into.truncate(after)
    looked = size
    with ThreadPoolExecutor(1) as beside:
        for chunk in chunks:
            if size + len(chunk) - looked >= _LOOK_EVERY:
                room(size + len(chunk))
                looked = size
            hashing = beside.submit(digest.update, chunk)
            try:
                into.write(chunk)
            finally:
                hashing.result()
            size += len(chunk)
    return size, digest.hexdigest()


def blocks(path: Path, offset: int = 0) -> Iterator[bytes]:
    """A file's bytes from `offset` on. Raises OSError, for a link too."""
    with _opened(path) as file:
        file.seek(offset)
        while block := file.read(BLOCK):
            yield block


def digest_of(path: Path, *, durable: bool = False) -> tuple[int, str]:
    """Bytes and SHA-256. With `durable` it is on the disk afterwards. Raises OSError."""
    digest, size, buffer = sha256(), 0, bytearray(BLOCK)
    view = memoryview(buffer)
    with _opened(path) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(view[:count])
            size += count
        if durable:
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def _opened(path: Path) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags), "rb", buffering=0)
