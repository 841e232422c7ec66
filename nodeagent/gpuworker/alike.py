"""
Are chunks on the card what chunks of the pool are? Byte by byte, by the processor.

Called by `serving`. A fingerprint says that they may be; before a chunk is shared it is copied into
memory of our own and compared. Rule: nothing of the pool is written here.
"""

import ctypes
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.parts import Part
from nodeagent.gpuworker.places import is_pressed, span
from nodeagent.gpuworker.pressing import Pressing
from nodeagent.gpuworker.slabs import Slabs, mapped

_AT_ONCE = (
    16  # chunks: 32 MiB of memory, and as much for what was pressed; a millisecond of the bus
)
_THREADS = 4
_MEMCMP = ctypes.CDLL(None).memcmp
_MEMCMP.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

Pair = tuple[int, int]
"""A chunk of a part, a chunk of the pool."""


class Alike:
    """Compares; its memory is pinned when first needed."""

    def __init__(self, driver: Driver, pressing: Pressing) -> None:
        self._driver, self._pressing = driver, pressing
        self._memory = 0
        self._threads = ThreadPoolExecutor(_THREADS, "alike")

    def differing(self, part: Part, slabs: Slabs, pairs: Sequence[Pair]) -> list[int]:
        """The part's chunks that are not what the pool's are. Raises DriverError, OSError."""
        if not self._memory:
            self._memory = mapped(-1, 2 * _AT_ONCE * GRAIN)
            self._driver.pin(self._memory, 2 * _AT_ONCE * GRAIN)
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
        pool = [self._pool(n, place, slabs, copies) for n, (_, place) in enumerate(pairs)]
        self._driver.wait(copies)
        different = self._threads.map(_MEMCMP, own, pool, itertools.repeat(GRAIN))
        return [chunk for (chunk, _), wrong in zip(pairs, different, strict=True) if wrong]

    def _pool(self, number: int, place: int, slabs: Slabs, copies: Any) -> int:
        """Where a chunk of the pool will be: one that is pressed is expanded by the card for it."""
        if not is_pressed(place):
            return next(slabs.spans(place, 1))[0]
        to = self._memory + (_AT_ONCE + number) * GRAIN
        self._driver.copy_out(
            to, self._pressing.opened([span(place)], slabs, copies), GRAIN, copies
        )
        return to
