"""
The list of a GPU part that lies in layers: docs/reference/checkpoint-v0.md. Pure.

Called by: agents, which write and read them (`nodeagent/checkpoints/layers.py`). Rule: a list was
signed with its checkpoint, and what it names is looked for among that checkpoint's files all the
same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

FORMAT, VERSION = "kybernate-layers", 1
LARGEST = 2 * 1024 * 1024  # bytes of a piece: how VRAM is parked, too
DIGEST = 32  # bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a part: the file they are in, from where, how many, and their BLAKE2b."""

    layer: str
    at: int
    size: int
    digest: bytes


def digest(content: bytes) -> bytes:
    """Of a piece."""
    return blake2b(content, digest_size=DIGEST).digest()


def of_all(pieces: Iterable[Piece]) -> str:
    """Of a part, in hex: of its pieces' digests, one after the other."""
    whole = blake2b(digest_size=DIGEST)
    for piece in pieces:
        whole.update(piece.digest)
    return whole.hexdigest()


def encode(pieces: Iterable[Piece]) -> bytes:
    """The file of a part."""
    listed = list(pieces)
    layers = sorted({piece.layer for piece in listed})
    number = {layer: n for n, layer in enumerate(layers)}
    rows = [[number[p.layer], p.at, p.size, p.digest.hex()] for p in listed]
    return orjson.dumps({"format": FORMAT, "version": VERSION, "layers": layers, "pieces": rows})


def decode(content: bytes, sizes: Mapping[str, int]) -> tuple[Piece, ...]:
    """In order. `sizes` are those of the checkpoint's files. Raises Unusable."""
    try:
        whole = orjson.loads(content)
        if whole["format"] != FORMAT or whole["version"] != VERSION:
            raise Unusable(Flaw.VERSION, f"layers {names.shown(str(whole['version']))}")
        found = tuple(_piece(row, whole["layers"]) for row in whole["pieces"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Unusable(Flaw.MALFORMED, f"a list of layers: {names.shown(str(error))}") from error
    for piece in found:
        inside = 0 <= piece.at <= sizes.get(piece.layer, -1) - piece.size
        if not inside or not 0 < piece.size <= LARGEST:
            raise Unusable(Flaw.MALFORMED, f"a piece outside of {names.shown(piece.layer)}")
    return found


def _piece(row: Any, layers: Any) -> Piece:
    layer, at, size, told = row
    if not all(type(number) is int and number >= 0 for number in (layer, at, size)):
        raise ValueError("a number that is none")
    content = bytes.fromhex(told)
    if len(content) != DIGEST or not isinstance(layers[layer], str):
        raise ValueError("a digest or a name that is none")
    return Piece(layers[layer], at, size, content)
