"""
Whether an image's memory is all there, by what its maps say.

Called by: `nodeagent.images.restoring`, before a restoration.
Rule: CRIU reads a file of pages that is too short without end, and would never say so.
"""

from pathlib import Path

from nodeagent.images import wire
from nodeagent.images.wire import Message

_MAPS = "pagemap-*.img"
# pagemap_head and pagemap_entry of CRIU's images/pagemap.proto
_PAGES_ID = 1
_COUNT, _IN_PARENT, _FLAGS, _LONG_COUNT = 2, 3, 4, 5
_PRESENT = 1 << 2
_PAGE = 4096


def check(images: Path) -> None:
    """Raises wire.NotAnImage where a file of pages is not as long as its map says, or OSError."""
    for file in sorted(images.glob(_MAPS)):
        _, entries = wire.read(file)
        if not entries:
            raise wire.NotAnImage(f"{file.name} is empty")
        pages = images / f"pages-{Message(entries[0]).number(_PAGES_ID)}.img"
        said = sum(_bytes(Message(entry)) for entry in entries[1:])
        there = pages.stat().st_size if said else 0
        if said != there:
            raise wire.NotAnImage(f"{pages.name} has {there} bytes of {said}")


def _bytes(entry: Message) -> int:
    count = entry.number(_LONG_COUNT) or entry.number(_COUNT)
    default = 0 if entry.number(_IN_PARENT) else _PRESENT
    return count * _PAGE if entry.number(_FLAGS, default) & _PRESENT else 0
