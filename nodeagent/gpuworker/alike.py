"""
Are chunks on the card what chunks of the pool are? Byte by byte, by the processor.

Called by `serving`. A fingerprint says that they may be; before a chunk is shared it is copied into
memory of our own and compared. Rule: nothing of the pool is written here.
"""

import ctypes
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.parts import Part
from nodeagent.gpuworker.slabs import Slabs, mapped

_AT_ONCE = 16  # chunks: 32 MiB of memory, a millisecond of the bus
_THREADS = 4
_MEMCMP = ctypes.CDLL(None).memcmp
_MEMCMP.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

Pair = tuple[int, int]
"""A chunk of a part, a chunk of the pool."""


class Alike:
    """Compares; its memory is pinned when first needed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory = 0
        self._threads = ThreadPoolExecutor(_THREADS, "alike")

    def differing(self, part: Part, slabs: Slabs, pairs: Sequence[Pair]) -> list[int]:
        """The part's chunks that are not what the pool's are. Raises DriverError, OSError."""
        if not self._memory:
            self._memory = mapped(-1, _AT_ONCE * GRAIN)
            self._driver.pin(self._memory, _AT_ONCE * GRAIN)
        found: list[int] = []
        for first in range(0, len(pairs), _AT_ONCE):
            found += self._some(part, slabs, pairs[first : first + _AT_ONCE])
        return found

    def _some(self, part: Part, slabs: Slabs, pairs: Sequence[Pair]) -> list[int]:
        copies = part.streams.copies
        own = [self._memory + number * GRAIN for number in range(len(pairs))]
        for (chunk, _), at in zip(pairs, own, strict=True):
            self._driver.copy_out(at, part.at(chunk), GRAIN, copies)
            part.copied += GRAIN
        pool = [next(slabs.spans(place, 1))[0] for _, place in pairs]
        self._driver.wait(copies)
        different = self._threads.map(_MEMCMP, own, pool, itertools.repeat(GRAIN))
        return [chunk for (chunk, _), wrong in zip(pairs, different, strict=True) if wrong]
