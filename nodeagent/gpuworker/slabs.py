"""
Files of the pool that the card copies from and to: mapped and pinned when first needed, and kept.

Called by `parts` and `serving`. A slab is a number; its file is `NUMBER@NODE` in the pool's folder.
What it holds is not known here. Rule: only what is asked for is pinned, so that the first copy of a
new worker waits for its own slabs alone.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.gpuworker.driver import GRAIN, Driver

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
]  # fmt: skip
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_HUGE = 14


@dataclass(frozen=True, slots=True)
class Slab:
    """A slab in this process: where, how many bytes, which file it is, and that file's name."""

    at: int
    size: int
    file: tuple[int, int]
    path: Path

    def is_there(self) -> bool:
        """Whether its file is the pool's still."""
        try:
            about = self.path.stat()
        except OSError:
            return False
        return self.file == (about.st_dev, about.st_ino)


class Slabs:
    """All slabs of one folder that this process has pinned."""

    def __init__(self, driver: Driver, folder: Path, size: int) -> None:
        """Nothing is pinned yet. `size` is that of each."""
        self._driver, self._folder, self._size = driver, folder, size
        self._pinned: dict[int, Slab] = {}

    @property
    def pinned(self) -> int:
        """How many there are."""
        return len(self._pinned)

    def is_of(self, folder: Path, size: int) -> bool:
        """Whether these are the slabs somebody means."""
        return (folder, size) == (self._folder, self._size)

    def slab(self, number: int) -> Slab:
        """Pinned when it returns. Raises OSError, DriverError."""
        known = self._pinned.get(number)
        if known is not None and known.is_there():  # asked for with each copy
            return known
        path = next(self._folder.glob(f"{number:06}@*"), None)
        if path is None:
            raise OSError(f"there is no slab {number}")
        if known is not None:
            self._unpin(number)  # the pool was made anew
        self._pinned[number] = self._pin(path)
        return self._pinned[number]

    def spans(self, place: int, count: int) -> Iterator[tuple[int, int]]:
        """Where chunks of the pool stand: addresses and bytes, in order. Raises OSError."""
        each = self._size // GRAIN
        while count:
            slab, inside = self.slab(place // each), place % each
            here = min(count, each - inside)
            yield slab.at + inside * GRAIN, here * GRAIN
            place, count = place + here, count - here

    def address(self, at: int, size: int) -> int:
        """Where some bytes are, counted over all slabs; one slab has them. Raises OSError."""
        number, inside = divmod(at, self._size)
        if not 0 < size <= self._size - inside:
            raise OSError(f"{size} bytes at {at} are not in one slab")
        return self.slab(number).at + inside

    def let_go(self) -> None:
        """Of all of them. Raises DriverError."""
        for number in tuple(self._pinned):
            self._unpin(number)

    def _pin(self, path: Path) -> Slab:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            about = os.fstat(file)
            if about.st_size != self._size:
                raise OSError(f"slab {path.name} has {about.st_size} bytes")
            at = mapped(file, self._size)
        finally:
            os.close(file)
        self._driver.pin(at, self._size)
        return Slab(at, self._size, (about.st_dev, about.st_ino), path)

    def _unpin(self, number: int) -> None:
        slab = self._pinned.pop(number)
        self._driver.unpin(slab.at)
        _LIBC.munmap(slab.at, slab.size)


def mapped(file: int, size: int) -> int:
    """The address of a file in this process, or of memory of our own (-1). Raises OSError."""
    how = mmap.MAP_SHARED if file >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    at = _LIBC.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, how, file, 0)
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "a slab cannot be mapped")
    _LIBC.madvise(at, size, _HUGE)  # where the kernel lets tmpfs have huge pages
    return int(at)
