"""
Contents of the GPU in layers: what an earlier checkpoint of the workload has is not written again.

Called by: whoever seals (`write`) and whoever wakes (`read`). A checkpoint's new pieces are one
file, its layer; earlier layers that it still needs are hard links to the earlier checkpoint's
files, so that each checkpoint is whole by itself and any of them may be deleted.
Rule: a sealed file is never written to. Rule: a layer of which less than half is needed, or one too
many, is not kept: what is needed of it is written again, compared on the way; so a checkpoint's
files are at most twice its contents, and few.
"""

import os
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.artifacts import layers
from kybernate.artifacts.facts import GpuPart
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.layers import Piece
from kybernate.artifacts.v0 import File
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints import streams
from nodeagent.checkpoints.draft import Draft
from nodeagent.checkpoints.sealed import Sealed

MOST = 24  # layers of a checkpoint; each costs a look at a file
NEEDED = 0.5  # of a layer's bytes, for it to be kept
_AHEAD = 2 * streams.SIDE_BY_SIDE  # pieces that are hashed at once, or wait for their turn

Parts = Iterable[tuple[str, Iterator[bytes]]]
"""The file each part is listed in, and its bytes."""


class Spoilt(Unusable):
    """What an earlier checkpoint has is not what was sealed: nothing can be shared with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A checkpoint that one may share with: where its pieces are, by digest."""

    sealed: Sealed
    pieces: Mapping[bytes, Piece]

    @property
    def files(self) -> dict[str, File]:
        """Its files, by path."""
        return {file.path: file for file in self.sealed.manifest.files}


@dataclass(slots=True)
class _Laying:
    """One checkpoint's parts on their way into layers."""

    earlier: Earlier | None
    layer: str
    found: dict[bytes, Piece] = field(default_factory=dict)
    lists: dict[str, list[bytes]] = field(default_factory=dict)
    size: int = 0

    def fresh(self, parts: Parts) -> Iterator[bytes]:
        """What has to be written. Raises Spoilt."""
        old = self.earlier.pieces if self.earlier is not None else {}
        for path, content in parts:
            listed = self.lists[path] = []
            for piece, told in hashed(_cut(content)):
                listed.append(told)
                if told in self.found:
                    continue
                if told in old and old[told].size == len(piece):
                    self.found[told] = old[told]
                    continue
                yield self._new(piece, told)
        if self.earlier is not None:
            yield from self._again(self.earlier)

    def _new(self, piece: bytes, told: bytes) -> bytes:
        self.found[told] = Piece(self.layer, self.size, len(piece), told)
        self.size += len(piece)
        return piece

    def _again(self, earlier: Earlier) -> Iterator[bytes]:
        """What is needed of layers that are not kept. Raises Spoilt."""
        unkept = self._unkept(earlier)
        again = [piece for piece in self.found.values() if piece.layer in unkept]
        try:
            for piece in _contents(earlier.sealed.folder, again):
                yield self._new(piece, layers.digest(piece))
        except (Unusable, OSError) as problem:
            name = earlier.sealed.manifest.name
            raise Spoilt(Flaw.FILE_ALTERED, f"of the earlier {name}: {problem}") from problem

    def _unkept(self, earlier: Earlier) -> set[str]:
        needed: Counter[str] = Counter()
        for piece in self.found.values():
            if piece.layer != self.layer:
                needed[piece.layer] += piece.size
        files = earlier.files
        little = {layer for layer, size in needed.items() if size < NEEDED * files[layer].size}
        rest = sorted(needed.keys() - little, key=lambda layer: needed[layer], reverse=True)
        return little | set(rest[MOST - 1 :])


def earlier(sealed: Sealed) -> Earlier:
    """What one may share with it. Raises Unusable, OSError."""
    pieces: dict[bytes, Piece] = {}
    for part in sealed.manifest.facts.parts:
        if part.layered:
            pieces.update((piece.digest, piece) for piece in _listed(sealed, part))
    return Earlier(sealed=sealed, pieces=pieces)


def write(draft: Draft, folder: str, parts: Parts, before: Earlier | None) -> dict[str, str]:
    """Into the draft; the digest of each part, by the file it is listed in.

    Layers are in `folder`. Raises Spoilt, and as `Draft.write` does; then the draft is gone.
    """
    laying = _Laying(before, f"{folder}/layer-{uuid.uuid4().hex[:16]}")
    draft.write(laying.layer, laying.fresh(parts))
    for layer in sorted({piece.layer for piece in laying.found.values()} - {laying.layer}):
        assert before is not None  # nobody else's layers were found
        draft.share(before.sealed.folder / layer, before.files[layer])
    digests = {}
    for path, listed in laying.lists.items():
        pieces = [laying.found[told] for told in listed]
        draft.write(path, [layers.encode(pieces)])
        digests[path] = layers.of_all(pieces)
    return digests


def read(sealed: Sealed, part: GpuPart) -> Iterator[bytes]:
    """A part's bytes, each piece compared. Raises Unusable, OSError."""
    pieces = _listed(sealed, part)
    if layers.of_all(pieces) != part.digest:
        raise Unusable(Flaw.FILE_ALTERED, f"part {part.name} is not what was sealed")
    return _contents(sealed.folder, pieces)


def hashed(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Each with its digest, in order, some of them hashed side by side."""
    waiting: deque[tuple[bytes, Future[bytes]]] = deque()
    with ThreadPoolExecutor(streams.SIDE_BY_SIDE, "hash") as threads:
        for piece in pieces:
            waiting.append((piece, threads.submit(layers.digest, piece)))
            if len(waiting) > _AHEAD:
                first, told = waiting.popleft()
                yield first, told.result()
        while waiting:
            first, told = waiting.popleft()
            yield first, told.result()


def _listed(sealed: Sealed, part: GpuPart) -> tuple[Piece, ...]:
    sizes = {file.path: file.size for file in sealed.manifest.files}
    return layers.decode(b"".join(sealed.read(part.path)), sizes)


def _contents(folder: Path, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Raises Unusable, OSError."""
    wanted = list(pieces)
    for piece, (content, told) in zip(wanted, hashed(_bytes(folder, wanted)), strict=True):
        if told != piece.digest:
            raise Unusable(Flaw.FILE_ALTERED, piece.layer)
        yield content


def _bytes(folder: Path, pieces: Iterable[Piece]) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    files: dict[str, int] = {}
    with ExitStack() as stack:
        for piece in pieces:
            if piece.layer not in files:
                files[piece.layer] = os.open(folder / piece.layer, flags)
                stack.callback(os.close, files[piece.layer])
            content = os.pread(files[piece.layer], piece.size, piece.at)
            if len(content) != piece.size:
                raise Unusable(Flaw.FILE_SIZE, piece.layer)
            yield content


def _cut(content: Iterable[bytes]) -> Iterator[bytes]:
    """As it comes: whoever has it gives it by chunks, which are where they were the last time."""
    for run in content:
        for at in range(0, len(run), layers.LARGEST):
            yield run if len(run) <= layers.LARGEST else run[at : at + layers.LARGEST]
