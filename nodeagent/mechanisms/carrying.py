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
from nodeagent.gpuworker import places
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
    return _HEAD.size + index + (sum(map(places.size, set(copy.stored))) if copy else 0)


def opened(content: Iterable[bytes]) -> Opened:
    """The beginning is read, the chunks follow. Raises Damaged."""
    flow = _Flow(iter(content))
    magic, index, listed = _HEAD.unpack(flow.take(_HEAD.size))
    if magic != _MAGIC or max(index, listed) > _LARGEST:
        raise Damaged("these are not the contents of a part")
    head, copy = flow.take(index), copies.decode(flow.take(listed)) if listed else None
    return Opened(head, copy, flow.chunks(numbered(copy) if copy else []))


def numbered(copy: Copy) -> list[int]:
    """Bytes of each chunk of a stream, in order. Raises Damaged."""
    sizes = {_number(place): places.size(place) for place in set(copy.stored)}
    if sorted(sizes) != list(range(len(sizes))) or not all(0 < s <= GRAIN for s in sizes.values()):
        raise Damaged("the list of a copy's chunks names one that is not there")
    return [sizes[number] for number in range(len(sizes))]


def placed(copy: Copy, ours: Sequence[int]) -> Copy:
    """With the pool's places for numbers."""
    found = (ZERO if one == ZERO else ours[_number(one)] for one in copy.places)
    return replace(copy, places=array("Q", found))


def read(slabs: Slabs, some: Iterable[int]) -> Iterator[bytes]:
    """Chunks of the pool, pressed ones as they are. Raises OSError, Damaged."""
    for place, file, at in _where(slabs, some, os.O_RDONLY):
        size = places.size(place)
        chunk = os.pread(file, size, at)
        if len(chunk) != size:
            raise Damaged(f"chunk {place} of the pool is cut short")
        yield chunk


def write(slabs: Slabs, some: Iterable[int], chunks: Iterator[bytes]) -> None:
    """Chunks of the pool, of which nobody needs what they held. Raises OSError, Damaged."""
    for place, file, at in _where(slabs, some, os.O_WRONLY):
        if os.pwrite(file, next(chunks), at) != places.size(place):
            raise OSError("a slab took less than a chunk")


def _where(slabs: Slabs, some: Iterable[int], flags: int) -> Iterator[tuple[int, int, int]]:
    """Each place with its slab's descriptor and the byte in it."""
    files: dict[int, int] = {}
    by_number = {slab.number: slab for slab in slabs.all()}
    try:
        for place in some:
            number, inside = divmod(places.begins(place), slabs.size)
            if number not in files:
                files[number] = os.open(by_number[number].path, flags | os.O_CLOEXEC)
            yield place, files[number], inside
    finally:
        for file in files.values():
            os.close(file)


def _number(place: int) -> int:
    """Of a chunk in a stream; one that is pressed has it in place of where its bytes begin."""
    return places.span(place)[0] if places.is_pressed(place) else place


def _renumbered(copy: Copy, stored: Sequence[int]) -> Copy:
    number = {place: _as_number(n, place) for n, place in enumerate(stored)}
    listed = array("Q", (ZERO if one == ZERO else number[one] for one in copy.places))
    return replace(copy, places=listed)


def _as_number(number: int, place: int) -> int:
    if places.is_pressed(place):
        return places.pressed(number, places.span(place)[1])
    return number


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

    def chunks(self, sizes: Iterable[int]) -> Iterator[bytes]:
        """Chunks of so many bytes, and then the end, which may have to be seen. Raises Damaged."""
        for size in sizes:
            yield self.take(size)
        if self._held or next(self._pieces, b""):
            raise Damaged("the contents of a part go on after their end")
