"""
Maps of an image's memory: which pages of a process are in its file of pages, one behind the other.

Called by: `nodeagent.images.restoring`, before a restoration, and by `nodeagent.images.zeros`.
Rule: CRIU reads a file of pages that is too short without end, and would never say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.images import wire
from nodeagent.images.wire import Message

MAPS = "pagemap-*.img"
PAGE = 4096
# pagemap_head and pagemap_entry of CRIU's images/pagemap.proto
_PAGES_ID = 1
_ADDRESS, _COUNT, _IN_PARENT, _FLAGS, _LONG_COUNT = 1, 2, 3, 4, 5
_PARENT, _LAZY, _PRESENT = 1 << 0, 1 << 1, 1 << 2
_MOST = 2**32 - 1  # of `_COUNT`; what it is then CRIU does not look at


@dataclass(frozen=True, slots=True)
class Run:
    """Pages of a process, one behind the other. Bytes."""

    address: int
    size: int
    flags: int

    @property
    def bytes_here(self) -> int:
        """How many are in the file of pages."""
        return self.size if self.flags & _PRESENT else 0

    @property
    def zero_without(self) -> bool:
        """Whether what is not in the file is zeros: CRIU marks private memory without a file as
        what may come later."""
        return self.flags & (_PARENT | _LAZY | _PRESENT) == _LAZY | _PRESENT

    def part(self, entry: Message, first: int, size: int) -> bytes:
        """The entry of some of it, made of the whole one's."""
        one = Message(entry.raw())
        one.put(_ADDRESS, self.address + first)
        one.put(_COUNT, min(size // PAGE, _MOST))
        if one.number(_LONG_COUNT):
            one.put(_LONG_COUNT, size // PAGE)
        return one.raw()


def run(entry: Message) -> Run:
    """What an entry of a map says."""
    count = entry.number(_LONG_COUNT) or entry.number(_COUNT)
    parent = bool(entry.number(_IN_PARENT))
    flags = entry.number(_FLAGS, 0 if parent else _PRESENT) | (_PARENT if parent else 0)
    return Run(entry.number(_ADDRESS), count * PAGE, flags)


def file_of(images: Path, entries: Sequence[bytes]) -> Path:
    """The file of pages of a map. Raises wire.NotAnImage."""
    if not entries:
        raise wire.NotAnImage("a map of pages is empty")
    return images / f"pages-{Message(entries[0]).number(_PAGES_ID)}.img"


def check(images: Path) -> None:
    """Raises wire.NotAnImage where a file of pages is not as long as its map says, or OSError."""
    for file in sorted(images.glob(MAPS)):
        _, entries = wire.read(file)
        if not entries:
            raise wire.NotAnImage(f"{file.name} is empty")
        pages = file_of(images, entries)
        said = sum(run(Message(entry)).bytes_here for entry in entries[1:])
        there = pages.stat().st_size if said else 0
        if said != there:
            raise wire.NotAnImage(f"{pages.name} has {there} bytes of {said}")
