"""
A parked part as it stands in its slot: which segments, which chunk of the pool each 2 MiB is, the
fingerprints and their key. The bytes themselves are in slabs.

Pure but for `read` and `write`; called by `guestcopy` and `chunks`. Rule: it is put in place whole,
after what it speaks of; it carries its own digest, and is not believed without.
"""

import hashlib
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodeagent.disk.durable import DRAFT
from nodeagent.disk.pool import Damaged
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import KEY_SIZE, SIZE

ZERO = 2**64 - 1  # the place of a chunk that is all zeros: it is stored nowhere
SUFFIX = ".copy"
_MAGIC = b"KYBCOPY1"
_HEAD = struct.Struct(f"<8sII{KEY_SIZE}s")
_SEGMENT = struct.Struct("<3Q")
_DIGEST = 16

Place = tuple[int, int, int]
"""A segment: its id, address and bytes."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One part's. `places` and `prints` have one entry for each chunk, in the segments' order."""

    segments: tuple[Place, ...]
    key: bytes
    places: "array[int]"
    prints: bytes  # 16 bytes each

    @property
    def stored(self) -> "array[int]":
        """The chunks of the pool it needs."""
        if ZERO not in self.places:
            return self.places[:]
        return array("Q", (place for place in self.places if place != ZERO))


def named(part: str) -> str:
    """A part's name as a file's: never a path."""
    return "guest-" + hashlib.blake2b(part.encode(), digest_size=16).hexdigest()


def encode(copy: Copy) -> bytes:
    """The file's bytes: head, segments, places, fingerprints, and a digest of it all."""
    head = _HEAD.pack(_MAGIC, len(copy.segments), len(copy.places), copy.key)
    segments = b"".join(_SEGMENT.pack(*one) for one in copy.segments)
    body = head + segments + copy.places.tobytes() + copy.prints
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def decode(content: bytes) -> Copy:
    """What a file says. Raises Damaged."""
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.blake2b(body, digest_size=_DIGEST).digest() != digest or len(body) < _HEAD.size:
        raise Damaged("the list of a copy's chunks was changed in the pool")
    magic, segments, chunks, key = _HEAD.unpack_from(body)
    places = _HEAD.size + segments * _SEGMENT.size
    prints = places + chunks * 8
    if magic != _MAGIC or len(body) != prints + chunks * SIZE:
        raise Damaged("the list of a copy's chunks is of another version")
    listed = tuple(_SEGMENT.iter_unpack(body[_HEAD.size : places]))
    return Copy(listed, key, array("Q", body[places:prints]), body[prints:])


def read(path: Path) -> Copy:
    """Raises Damaged, also where there is none."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise Damaged(f"the list of a copy's chunks is not there: {error}") from error


def write(path: Path, copy: Copy) -> None:
    """Whole or not at all. It lives in memory with the slabs: nothing is synced. Raises OSError."""
    draft = path.with_name(path.name + DRAFT)
    draft.write_bytes(encode(copy))
    draft.replace(path)


def laid_out(copy: Copy | None, key: bytes, segments: Iterable[Place]) -> tuple[list[int], bytes]:
    """What an older copy knows of these segments, chunk by chunk: places and fingerprints. Where
    it knows nothing the place is ZERO and the fingerprint one that no chunk has."""
    known = _by_address(copy) if copy is not None and copy.key == key else {}
    places: list[int] = []
    prints: list[bytes] = []
    for _, address, size in segments:
        count = size // GRAIN
        first = known.get((address, size))
        if first is None or copy is None:
            places.extend([ZERO] * count)
            prints.append(b"\xff" * (SIZE * count))
        else:
            places.extend(copy.places[first : first + count])
            prints.append(copy.prints[first * SIZE : (first + count) * SIZE])
    return places, b"".join(prints)


def _by_address(copy: Copy) -> dict[tuple[int, int], int]:
    """Where each segment's chunks begin."""
    found, first = {}, 0
    for _, address, size in copy.segments:
        found[address, size] = first
        first += size // GRAIN
    return found
