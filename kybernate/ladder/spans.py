"""
Spans: chunks of a pack that are fetched at once, and what is made of them.

Called by: `reading`. Rule: a chunk's tag and name are checked before its bytes are given to
anybody.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kybernate.artifacts import names, packs
from kybernate.artifacts.chunks import TAG, DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest, Zeros
from kybernate.artifacts.packs import Pack
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.port import Store

MOST = packs.FULL
"""Bytes of sealed chunks that are fetched at once."""
ROOM = (-(-MOST // 4096) + 2) * 4096
"""For the whole blocks of a disk that a span is in."""


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk of a pack, and where in which file it belongs."""

    number: int
    file: str
    at: int


@dataclass(frozen=True, slots=True)
class Span:
    """Chunks of a pack that stand one after the other, and where they belong."""

    pack: Pack
    places: list[Place]

    @property
    def begin(self) -> int:
        """Where the first begins."""
        return self.pack.offsets[self.places[0].number]

    @property
    def end(self) -> int:
        """Where the last ends."""
        last = self.places[-1].number
        return self.pack.offsets[last] + self.pack.chunks[last].size + TAG

    def size(self, place: Place) -> int:
        """Bytes of a chunk."""
        return self.pack.chunks[place.number].size

    def open(
        self, place: Place, content: memoryview, key: DomainKey, into: memoryview
    ) -> memoryview:
        """A chunk's bytes, of the span's, at the beginning of `into`. Raises Unusable."""
        chunk = self.pack.chunks[place.number]
        begin = self.pack.offsets[place.number] - self.begin
        found = into[: chunk.size]
        key.open(chunk.name, content[begin : begin + chunk.size + TAG], found)
        return found

    def fetched(self, store: Store, domain: str, into: memoryview | None = None) -> memoryview:
        """Its sealed chunks. Raises Unusable where the pack is not there, or not long enough."""
        size = self.end - self.begin
        try:
            found = store.get(names.pack_key(domain, self.pack.name), self.begin, size, into)
        except Absent:
            raise Unusable(Flaw.PACK_MISSING, self.pack.name) from None
        if len(found) != size:
            raise Unusable(Flaw.PACK_ALTERED, f"{self.pack.name} is cut short")
        return found


def joined(several: Iterable[tuple[Pack, Place]]) -> Iterator[Span]:
    """Those that are neighbours in a pack, or the same again, are fetched together, as long as
    neither what is fetched nor what is made of it is more than a span."""
    span: Span | None = None
    opened = 0
    for pack, place in several:
        size = pack.chunks[place.number].size
        if span and span.pack is pack and 0 <= place.number - span.places[-1].number <= 1:
            span.places.append(place)
            opened += size
            if span.end - span.begin <= MOST and opened <= MOST:
                continue
            span.places.pop()
        if span:
            yield span
        span, opened = Span(pack, [place]), size
    if span:
        yield span


def places(manifest: Manifest) -> Iterator[tuple[Pack, Place]]:
    """Of all files, in the manifest's order; zeros have none."""
    for file in manifest.files:
        at = 0
        for piece in file.content:
            if isinstance(piece, Zeros):
                at += piece.size
                continue
            pack = manifest.packs[piece.pack]
            for number in range(piece.first, piece.first + piece.count):
                yield pack, Place(number, file.path, at)
                at += pack.chunks[number].size
