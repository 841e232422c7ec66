"""
A part as one stream of bytes, for a checkpoint: index, list of chunks, then each chunk once.

Called by `bulk`. The layout is in docs/reference/checkpoint-v0.md. Rule: the fingerprints go with
the bytes, so what is not right after a wake is noticed by the resume.
"""

import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nodeagent.disk.pool import Damaged
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.mechanisms import copies
from nodeagent.mechanisms.copies import ZERO, Copy
from nodeagent.mechanisms.slabs import Slabs

_MAGIC = b"KYBPART1"
_HEAD = struct.Struct("<8sQQ")  # bytes of the index, bytes of the list; without one: no chunks
_LARGEST = 2**32


@dataclass(frozen=True, slots=True)
class Opened:
    """What a stream begins with. `copy`'s places number the chunks that follow."""

    index: bytes
    copy: Copy | None
    chunks: Iterator[bytes]


def stream(index: bytes, copy: Copy | None, slabs: Slabs) -> Iterator[bytes]:
    """The bytes of a part. Raises OSError, Damaged."""
    stored = sorted(set(copy.stored)) if copy else []
    listed = copies.encode(_renumbered(copy, stored)) if copy else b""
    yield _HEAD.pack(_MAGIC, len(index), len(listed)) + index + listed
    yield from read(slabs, stored)


def size(index: int, copy: Copy | None) -> int:
    """Bytes of a stream, about."""
    return _HEAD.size + index + (len(set(copy.stored)) * GRAIN if copy else 0)


def opened(content: Iterable[bytes]) -> Opened:
    """The beginning is read, the chunks follow. Raises Damaged."""
    flow = _Flow(iter(content))
    magic, index, listed = _HEAD.unpack(flow.take(_HEAD.size))
    if magic != _MAGIC or max(index, listed) > _LARGEST:
        raise Damaged("these are not the contents of a part")
    head, copy = flow.take(index), copies.decode(flow.take(listed)) if listed else None
    count = len(set(copy.stored)) if copy else 0
    return Opened(head, copy, flow.chunks(count))


def placed(copy: Copy, places: Sequence[int]) -> Copy:
    """With the pool's places for numbers. Raises Damaged."""
    try:
        ours = array("Q", (ZERO if one == ZERO else places[one] for one in copy.places))
    except IndexError:
        raise Damaged("the list of a copy's chunks names one that is not there") from None
    return replace(copy, places=ours)


def read(slabs: Slabs, places: Iterable[int]) -> Iterator[bytes]:
    """Chunks of the pool. Raises OSError, Damaged."""
    for place, file, at in _where(slabs, places, os.O_RDONLY):
        chunk = os.pread(file, GRAIN, at)
        if len(chunk) != GRAIN:
            raise Damaged(f"chunk {place} of the pool is cut short")
        yield chunk


def write(slabs: Slabs, places: Iterable[int], chunks: Iterator[bytes]) -> None:
    """Chunks of the pool, of which nobody needs what they held. Raises OSError, Damaged."""
    for _, file, at in _where(slabs, places, os.O_WRONLY):
        if os.pwrite(file, next(chunks), at) != GRAIN:
            raise OSError("a slab took less than a chunk")


def _where(slabs: Slabs, places: Iterable[int], flags: int) -> Iterator[tuple[int, int, int]]:
    """Each place with its slab's descriptor and the byte in it."""
    files: dict[int, int] = {}
    by_number = {slab.number: slab for slab in slabs.all()}
    each = slabs.size // GRAIN
    try:
        for place in places:
            number = place // each
            if number not in files:
                files[number] = os.open(by_number[number].path, flags | os.O_CLOEXEC)
            yield place, files[number], place % each * GRAIN
    finally:
        for file in files.values():
            os.close(file)


def _renumbered(copy: Copy, stored: Sequence[int]) -> Copy:
    number = {place: n for n, place in enumerate(stored)}
    places = array("Q", (ZERO if one == ZERO else number[one] for one in copy.places))
    return replace(copy, places=places)


class _Flow:
    """Bytes in pieces of any size, taken in pieces of ours."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, bytearray()

    def take(self, count: int) -> bytes:
        """Exactly so many. Raises Damaged at an early end."""
        while len(self._held) < count:
            piece = next(self._pieces, b"")
            if not piece:
                raise Damaged("the contents of a part are cut short")
            self._held += piece
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def chunks(self, count: int) -> Iterator[bytes]:
        """So many chunks, and then the end, which may have to be seen. Raises Damaged."""
        for _ in range(count):
            yield self.take(GRAIN)
        if self._held or next(self._pieces, b""):
            raise Damaged("the contents of a part go on after their end")
