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

from kybernate.artifacts.chunks import Bytes
from kybernate.stores.pages import taken
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
    chunks: Iterator[Bytes]


def stream(index: bytes, copy: Copy | None, slabs: Slabs) -> Iterator[Bytes]:
    """The bytes of a part: what comes before the chunks, then each of them. Raises OSError,
    Damaged."""
    stored = sorted(set(copy.stored)) if copy else []
    listed = copies.encode(_renumbered(copy, stored)) if copy else b""
    yield _HEAD.pack(_MAGIC, len(index), len(listed)) + index + listed
    yield from read(slabs, stored)


def size(index: int, copy: Copy | None) -> int:
    """Bytes of a stream, about."""
    return _HEAD.size + index + (sum(map(places.size, set(copy.stored))) if copy else 0)


def opened(content: Iterable[Bytes]) -> Opened:
    """The beginning is read, the chunks follow. Raises Damaged."""
    flow = _Flow(iter(content))
    magic, index, listed = _HEAD.unpack(flow.take(_HEAD.size))
    if magic != _MAGIC or max(index, listed) > _LARGEST:
        raise Damaged("these are not the contents of a part")
    head = bytes(flow.take(index))
    copy = copies.decode(bytes(flow.take(listed))) if listed else None
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


def read(slabs: Slabs, some: Iterable[int]) -> Iterator[Bytes]:
    """Chunks of the pool, pressed ones as they are: copies, for who gets them has them longer than
    they are held. Raises OSError, Damaged."""
    for place, file, at in _where(slabs, some, os.O_RDONLY):
        chunk = taken(places.size(place))
        if os.preadv(file, [chunk], at) != len(chunk):
            raise Damaged(f"chunk {place} of the pool is cut short")
        yield chunk


def write(slabs: Slabs, some: Iterable[int], chunks: Iterator[Bytes]) -> None:
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
    """Bytes in pieces of any size, taken in pieces of ours. A piece that is just as large as what
    is asked for is not copied."""

    def __init__(self, pieces: Iterator[Bytes]) -> None:
        self._pieces, self._held = pieces, memoryview(b"")

    def take(self, count: int) -> Bytes:
        """Exactly so many. Raises Damaged at an early end."""
        self._more()
        if len(self._held) >= count:
            taken, self._held = self._held[:count], self._held[count:]
            return taken
        joined = bytearray()
        while len(joined) < count:
            if not self._more():
                raise Damaged("the contents of a part are cut short")
            part = self._held[: count - len(joined)]
            joined += part
            self._held = self._held[len(part) :]
        return joined

    def chunks(self, sizes: Iterable[int]) -> Iterator[Bytes]:
        """Chunks of so many bytes, and then the end, which may have to be seen. Raises Damaged."""
        for size in sizes:
            yield self.take(size)
        if self._more():
            raise Damaged("the contents of a part go on after their end")

    def _more(self) -> bool:
        """Whether there is any; a piece may be empty."""
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._held = memoryview(piece)
        return True
