"""
Files of pages and their maps, as CRIU writes them. Called by tests of what reads or cuts them.
"""

from pathlib import Path

from kybernate.artifacts import criu
from kybernate.artifacts.criu import Message

PAGE = 4096
LAZY, PRESENT, PARENT = 2, 4, 1
_HEAD = b"HEADHEAD"


def entry(address: int, count: int, flags: int = LAZY | PRESENT, *, long: bool = False) -> bytes:
    """Of a map: so many pages from an address on."""
    made = Message()
    made.put(1, address)
    made.put(2, count)
    made.put(4, flags)
    if long:
        made.put(5, count)
    return made.raw()


def write(folder: Path, entries: list[bytes], content: bytes, number: int = 1) -> None:
    """A map and its file of pages."""
    head = Message()
    head.put(1, number)
    written = criu.joined(_HEAD, [head.raw(), *entries])
    (folder / f"pagemap-{number}.img").write_bytes(written)
    (folder / f"pages-{number}.img").write_bytes(content)


def image(folder: Path, *runs: tuple[int, bytes, int], number: int = 1) -> None:
    """`runs`: address, contents, flags."""
    entries = [entry(at, len(content) // PAGE, flags) for at, content, flags in runs]
    present = b"".join(content for _, content, flags in runs if flags & PRESENT)
    write(folder, entries, present, number)
