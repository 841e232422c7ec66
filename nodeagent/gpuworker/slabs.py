"""
Files of the pool that the card copies from and to: mapped and pinned once, then used again.

Called by `parts`. A slab is known by its inode, not by its name: a parked copy is a link to it.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.gpuworker.driver import Driver

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
]  # fmt: skip
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_HUGE = 14


@dataclass(frozen=True, slots=True)
class Slab:
    """A slab in this process: where, and how many bytes."""

    at: int
    size: int


class Slabs:
    """All slabs this process has pinned."""

    def __init__(self, driver: Driver) -> None:
        """Nothing is pinned yet."""
        self._driver = driver
        self._pinned: dict[tuple[int, int], Slab] = {}

    def slab(self, path: Path) -> Slab:
        """Pinned when it returns; the first time costs 0.3 s a GiB. Raises OSError, DriverError."""
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            about = os.fstat(file)
            key = (about.st_dev, about.st_ino)
            if key not in self._pinned:
                self._pinned[key] = self._pin(file, about.st_size)
            return self._pinned[key]
        finally:
            os.close(file)

    def _pin(self, file: int, size: int) -> Slab:
        at = _LIBC.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file, 0)
        if at == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "a slab cannot be mapped")
        _LIBC.madvise(at, size, _HUGE)  # where the kernel lets tmpfs have huge pages
        self._driver.pin(at, size)
        return Slab(at=at, size=size)


def pieces(slabs: tuple[Slab, ...], begin: int, size: int) -> Iterator[tuple[int, int]]:
    """Where `size` bytes of a copy stand, from `begin` on: addresses and lengths, in order."""
    for slab in slabs:
        if size and begin < slab.size:
            here = min(size, slab.size - begin)
            yield slab.at + begin, here
            size -= here
            begin = 0
        else:
            begin -= min(begin, slab.size)
    if size:
        raise ValueError("the slabs are too small for the copy")
