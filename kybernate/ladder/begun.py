"""
What is already there of files that were being fetched when somebody was interrupted.

Called by: agents, before they fetch. Rule: nothing is believed: each chunk is named anew.
"""

from collections.abc import Iterator
from pathlib import Path

from kybernate.artifacts.chunks import CHUNK, DomainKey, is_zero
from kybernate.artifacts.manifest import File, Manifest, Zeros
from kybernate.ladder.writing import cut


def begun(folder: Path, manifest: Manifest, key: DomainKey) -> dict[str, int]:
    """By path below the folder: how many bytes from a file's beginning on are right, in whole
    chunks. Those of which none are, are not named."""
    found = {file.path: _right(folder / file.path, file, manifest, key) for file in manifest.files}
    return {path: size for path, size in found.items() if size}


def _right(path: Path, file: File, manifest: Manifest, key: DomainKey) -> int:
    size = 0
    try:
        for content, name in zip(cut(path), _names(file, manifest), strict=False):
            whole = len(content) == min(CHUNK, file.size - size)
            if not whole or not (is_zero(content) if name is None else key.name(content) == name):
                break
            size += len(content)
    except OSError:  # it is not there, or cannot be read: then it is fetched
        return size
    return size


def _names(file: File, manifest: Manifest) -> Iterator[bytes | None]:
    """Of each chunk of a file in order; None for one of zeros."""
    for piece in file.content:
        if isinstance(piece, Zeros):
            yield from (None for _ in range(0, piece.size, CHUNK))
        else:
            listed = manifest.packs[piece.pack].chunks
            yield from (one.name for one in listed[piece.first : piece.first + piece.count])
