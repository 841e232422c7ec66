"""
GPU contents that an agent of before sealed in layers (docs/reference/checkpoint-v0.md): read.

Called by: whoever wakes. Nothing is sealed like this any more: equal chunks are there once.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from kybernate.artifacts import layers
from kybernate.artifacts.chunks import CHUNK
from kybernate.artifacts.facts import GpuPart
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.layers import Piece
from kybernate.artifacts.manifest import File, Zeros
from kybernate.ladder import reading
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.sealed import Sealed


def read(sealed: Sealed, part: GpuPart) -> Iterator[bytes]:
    """A part's bytes, each piece compared. Raises Unusable, and what the store raises."""
    sizes = {file.path: file.size for file in sealed.manifest.files}
    pieces = layers.decode(b"".join(sealed.read(part.path)), sizes)
    if layers.of_all(pieces) != part.digest:
        raise Unusable(Flaw.FILE_ALTERED, f"part {part.name} is not what was sealed")
    found: dict[str, _Layer] = {}
    for piece in pieces:
        if piece.layer not in found:
            found[piece.layer] = _Layer(sealed, sealed.file(piece.layer))
        yield found[piece.layer].read(piece)


class _Layer:
    """A layer's file, read piece by piece: the pieces of it that hold one are looked for."""

    def __init__(self, sealed: Sealed, file: File) -> None:
        self._sealed, self._key = sealed, sealed.shelf.key(sealed.manifest)
        self._file = file
        cut = list(_cut(sealed, file))
        self._begins = list(accumulate((part.size for part in cut), initial=0))
        self._parts = cut

    def read(self, piece: Piece) -> bytes:
        first = bisect_right(self._begins, piece.at) - 1
        last = bisect_right(self._begins, piece.at + piece.size - 1)
        content = b"".join(self._part(number) for number in range(first, last))
        begin = piece.at - self._begins[first]
        content = content[begin : begin + piece.size]
        if layers.digest(content) != piece.digest:
            raise Unusable(Flaw.FILE_ALTERED, piece.layer)
        return content

    def _part(self, number: int) -> bytes:
        shelf, manifest = self._sealed.shelf, self._sealed.manifest
        part = self._parts[number]
        return reading.piece(shelf.store, manifest, self._key, part, (0, part.size))


def _cut(sealed: Sealed, file: File) -> Iterator[File]:
    """A file as one for each of its chunks."""
    for piece in file.content:
        if isinstance(piece, Zeros):
            for at in range(0, piece.size, CHUNK):
                size = min(CHUNK, piece.size - at)
                yield File(path=file.path, size=size, content=(Zeros(size),))
            continue
        chunks = sealed.manifest.packs[piece.pack].chunks
        for number in range(piece.first, piece.first + piece.count):
            one = type(piece)(piece.pack, number, 1)
            yield File(path=file.path, size=chunks[number].size, content=(one,))
