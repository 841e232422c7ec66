"""
Packs: many sealed chunks as one object, with a list of them at its end.

Called by: whoever seals (Packing), whoever wakes or looks for chunks (`listed`, `decode_list`).
Rule: a pack is named by its list, and what its chunks hold follows from their names.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from blake3 import blake3

from kybernate.artifacts import chunks
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

MAGIC = b"KYBPACK1"
FULL = 32 * 1024 * 1024  # bytes of sealed chunks that a writer puts into one
MAX_CHUNKS = 4096  # in one pack: small files must not make a list that is longer than the chunks
MAX_PACK = 64 * 1024 * 1024  # bytes that a reader takes
_ENTRY = struct.Struct("<32sI")
_END = struct.Struct("<I8s")
END = _END.size
LARGEST = len(MAGIC) + FULL + MAX_CHUNKS * _ENTRY.size + END  # bytes of what a writer makes


@dataclass(frozen=True, slots=True)
class Chunk:
    """One of a pack: its name, and the bytes of its contents."""

    name: bytes
    size: int


@dataclass(frozen=True)
class Pack:
    """What is in one, in order."""

    chunks: tuple[Chunk, ...]

    @cached_property
    def name(self) -> str:
        """64 hex digits."""
        return blake3(encode_list(self.chunks)).hexdigest()

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each sealed chunk begins."""
        ends = accumulate((one.size + chunks.TAG for one in self.chunks), initial=len(MAGIC))
        return tuple(ends)[:-1]

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        each = chunks.TAG + _ENTRY.size
        return len(MAGIC) + sum(one.size + each for one in self.chunks) + END


class Packing:
    """One that is being filled, in a buffer of at least LARGEST bytes that the caller owns."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._chunks: list[Chunk] = []
        self._end = len(MAGIC)
        buffer[: self._end] = MAGIC

    def fits(self, size: int) -> bool:
        """Whether a chunk of so many bytes still has a place."""
        within = self._end - len(MAGIC) + size + chunks.TAG <= FULL
        return within and len(self._chunks) < MAX_CHUNKS

    def place(self, name: bytes, size: int) -> tuple[int, memoryview]:
        """Its number, and where it is to be sealed into: any time before `finish`, by any thread.

        Call it only where it `fits`.
        """
        begin, self._end = self._end, self._end + size + chunks.TAG
        self._chunks.append(Chunk(name, size))
        return len(self._chunks) - 1, self._buffer[begin : self._end]

    def finish(self) -> tuple[Pack, memoryview]:
        """The pack, and its bytes; every chunk has been sealed into its place."""
        pack = Pack(tuple(self._chunks))
        tail = encode_list(pack.chunks) + _END.pack(len(pack.chunks), MAGIC)
        self._buffer[self._end : self._end + len(tail)] = tail
        return pack, self._buffer[: self._end + len(tail)]


def encode_list(listed: Sequence[Chunk]) -> bytes:
    """The list, as it stands in a pack and in a manifest."""
    return b"".join(_ENTRY.pack(one.name, one.size) for one in listed)


def decode_list(content: bytes) -> Pack:
    """A pack of this list. Raises Unusable."""
    count, rest = divmod(len(content), _ENTRY.size)
    if rest or not 1 <= count <= MAX_CHUNKS:
        raise Unusable(Flaw.PACK_ALTERED, f"a list of {len(content)} bytes")
    pack = Pack(tuple(Chunk(*entry) for entry in _ENTRY.iter_unpack(content)))
    if not all(1 <= one.size <= chunks.CHUNK for one in pack.chunks) or pack.size > MAX_PACK:
        raise Unusable(Flaw.PACK_ALTERED, "a chunk or a pack of a size that is not allowed")
    return pack


def listed(content: Bytes) -> Pack:
    """What is in a whole pack; its chunks are not opened. Raises Unusable."""
    view = memoryview(content)
    if not len(MAGIC) + END <= len(view) <= MAX_PACK or view[: len(MAGIC)] != MAGIC:
        raise Unusable(Flaw.PACK_ALTERED, f"no pack: {len(view)} bytes")
    count, magic = _END.unpack(view[-END:])
    begin = len(view) - END - count * _ENTRY.size
    if magic != MAGIC or begin < len(MAGIC):
        raise Unusable(Flaw.PACK_ALTERED, "its end is not that of a pack")
    pack = decode_list(bytes(view[begin : len(view) - END]))
    if pack.size != len(view):
        raise Unusable(Flaw.PACK_ALTERED, f"{len(view)} bytes of {pack.size}")
    return pack


def check(name: str, content: Bytes) -> Pack:
    """That a whole object is the pack of this name, as far as can be told without the domain's
    key: its size and its list. Raises Unusable."""
    pack = listed(content)
    if pack.name != name:
        raise Unusable(Flaw.PACK_ALTERED, f"pack {name} holds {pack.name}")
    return pack
