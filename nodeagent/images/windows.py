"""
Where files of pages are cut when an image is sealed: by windows of the processes' address space.

Called by: the story that seals. In a file of pages all pages of a process stand one behind the
other, so one page more shifts all that follow; cut by addresses, a window in which nothing changed
is the chunk that it was in the last image. Rule: an image that is not understood is cut as any
other file is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nodeagent.images import wire
from nodeagent.images.folders import CRIU
from nodeagent.images.pages import MAPS, Run, file_of, run
from nodeagent.images.wire import Message

SMALLEST, LARGEST = 64 * 1024, 2 * 1024 * 1024  # bytes of a window; no chunk is larger
MOST = 65_536  # windows of a process, while they are not of the largest size


def cuts(image: Path) -> dict[str, tuple[int, ...]]:
    """Bytes of each piece, in order, by the file's path below the image. Raises OSError."""
    found: dict[str, tuple[int, ...]] = {}
    several: set[str] = set()
    try:
        for file in sorted((image / CRIU).glob(MAPS)):
            _, entries = wire.read(file)
            name = f"{CRIU}/{file_of(file.parent, entries).name}"
            if name in found:
                several.add(name)
            found[name] = _pieces([run(Message(entry)) for entry in entries[1:]])
    except wire.NotAnImage:
        return {}
    return {name: pieces for name, pieces in found.items() if name not in several}


def _pieces(runs: Sequence[Run]) -> tuple[int, ...]:
    size = SMALLEST
    pieces = tuple(_of(runs, size))
    while len(pieces) > MOST and size < LARGEST:
        size *= 2
        pieces = tuple(_of(runs, size))
    return pieces


def _of(runs: Sequence[Run], size: int) -> Iterator[int]:
    """Bytes that are in the file, of each window that has some."""
    window, held = -1, 0
    for one in runs:
        address, end = one.address, one.address + one.bytes_here
        while address < end:
            if address // size != window:
                if held:
                    yield held
                window, held = address // size, 0
            step = min(end, (window + 1) * size) - address
            address, held = address + step, held + step
    if held:
        yield held
