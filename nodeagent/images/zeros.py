"""
Pages of zeros taken out of an image: memory without a page in it comes back as zeros anyway.

Called by: `nodeagent.images.dumping`, when CRIU has written the image and before it is finished.
What the driver keeps of an empty GPU context in its process is half a GB, nearly all of it zeros,
and pages are most of what a wake waits for.
Rule: only of private memory without a file, which CRIU marks; under any other mapping may be
something else than zeros. Pieces of 64 KiB, so that the map stays short.
Rule: it is done in place. An image that this was ended in the middle of was not finished.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.images import wire
from nodeagent.images.pages import MAPS, PAGE, Run, file_of, run
from nodeagent.images.wire import Message

_PIECE = 16 * PAGE
_ZEROS = bytes(_PIECE)
_WORD = bytes(8)
_BLOCK = 2**22  # bytes that are moved at once
_WORTH = 2**24  # bytes: for less nothing is moved


@dataclass(frozen=True, slots=True)
class _Kept:
    """Some of a run, and where its bytes are in the file of pages."""

    entry: bytes
    at: int
    size: int


def take_out(images: Path) -> int:
    """The bytes that an image is smaller by. Raises wire.NotAnImage, OSError."""
    maps = sorted(images.glob(MAPS))
    read = [wire.read(file) for file in maps]
    pages = [file_of(images, entries) for _, entries in read]
    return sum(
        _of_one(file, head, entries, one)
        for file, (head, entries), one in zip(maps, read, pages, strict=True)
        if pages.count(one) == 1 and one.exists()
    )


def _of_one(file: Path, head: bytes, entries: Sequence[bytes], pages: Path) -> int:
    descriptor = os.open(pages, os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor).st_size
        kept = list(_kept(entries[1:], descriptor, before))
        after = sum(one.size for one in kept)
        if before - after < _WORTH:
            return 0
        _close_up(kept, descriptor)
        os.ftruncate(descriptor, after)
    finally:
        os.close(descriptor)
    wire.write(file, head, [entries[0], *(one.entry for one in kept)])
    return before - after


def _close_up(kept: Sequence[_Kept], descriptor: int) -> None:
    """Towards the beginning: what is written over was read before."""
    to = 0
    for one in kept:
        for first in range(0, one.size if one.at != to else 0, _BLOCK):
            some = os.pread(descriptor, min(_BLOCK, one.size - first), one.at + first)
            if os.pwrite(descriptor, some, to + first) != len(some):
                raise OSError("pages were cut")
        to += one.size


def _kept(entries: Sequence[bytes], descriptor: int, there: int) -> Iterator[_Kept]:
    at = 0
    for raw in entries:
        entry = Message(raw)
        found = run(entry)
        size = found.bytes_here
        if at + size > there:
            raise wire.NotAnImage("there are fewer pages than its map says")
        if found.zero_without:
            yield from _pieces(entry, found, descriptor, at)
        else:
            yield _Kept(raw, at, size)
        at += size


def _pieces(entry: Message, whole: Run, descriptor: int, at: int) -> Iterator[_Kept]:
    """What is left of a run: from one piece of zeros to the next."""
    first = 0
    for begin in range(0, whole.bytes_here, _PIECE):
        if _is_zero(descriptor, at + begin, min(_PIECE, whole.bytes_here - begin)):
            if begin > first:
                yield _some(entry, whole, at, first, begin)
            first = min(begin + _PIECE, whole.bytes_here)
    if first < whole.bytes_here:
        yield _some(entry, whole, at, first, whole.bytes_here)


def _some(entry: Message, whole: Run, at: int, first: int, end: int) -> _Kept:
    return _Kept(whole.part(entry, first, end - first), at + first, end - first)


def _is_zero(descriptor: int, at: int, size: int) -> bool:
    """Most of what is not zeros shows in its first word: one look at each piece, and no more."""
    if size < _PIECE or os.pread(descriptor, len(_WORD), at) != _WORD:
        return False
    return os.pread(descriptor, size, at) == _ZEROS
