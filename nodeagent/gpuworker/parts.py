"""
One part on its way: segments mapped one behind the other, copied, fingerprinted, as a pipeline.

Called by `serving`. Three streams: fingerprints before a copy out, copies, fingerprints after.
A segment is copied as soon as it is here, while the next ones are still being handed over.
Out: what the card holds is fingerprinted before and after its copy; they differ where somebody
wrote in between. In: it is fingerprinted after its copy, and compared with what was parked.
"""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.gpuworker import fingerprints
from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.fingerprints import KEY_SIZE, Fingerprints, Room
from nodeagent.gpuworker.slabs import Slab, pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished part: chunks that are not what they should be, and the copies' seconds."""

    wrong: tuple[int, ...]
    seconds: float


@dataclass(slots=True, kw_only=True)
class Streams:
    """Shared by all parts of a card, since they share its bus."""

    before: Any
    copies: Any
    after: Any


@dataclass(slots=True, kw_only=True)
class Part:
    """`total` bytes of segments, out of VRAM or into it."""

    driver: Driver
    prints: Fingerprints
    room: Room
    streams: Streams
    slabs: tuple[Slab, ...]
    record: Path  # the key and the fingerprints
    out: bool
    total: int
    key: bytes = b""
    _base: int = 0
    _before: tuple[int, int] = (0, 0)
    _after: tuple[int, int] = (0, 0)
    _end: int = 0
    _began: float = 0.0

    def begin(self) -> None:
        """Take what the part needs of the card. Raises DriverError, OSError, ValueError."""
        self.key = fingerprints.new_key() if self.out else self._read()[:KEY_SIZE]
        self._base = self.driver.reserve(self.total)
        self._after = self.room.take(self._prints_size)
        if self.out:
            self._before = self.room.take(self._prints_size)

    def take(self, descriptors: list[int], sizes: list[int]) -> None:
        """Map these segments behind the last ones and begin to copy them."""
        begin = self._end
        if begin + sum(sizes) > self.total or any(size % GRAIN for size in sizes):
            raise ValueError("these segments do not belong to the part")
        for descriptor, size in zip(descriptors, sizes, strict=True):
            at = self._base + self._end
            self.driver.map_shared(descriptor, at, size)
            self._end += size
        if self._end > begin:
            self.driver.allow(self._base + begin, self._end - begin)
            self._began = self._began or time.monotonic()
            self._move(begin, self._end - begin)

    def _move(self, begin: int, size: int) -> None:
        streams, at, place = self.streams, self._base + begin, begin // GRAIN * fingerprints.SIZE
        if self.out:
            self.prints.take(at, size, self._before[0] + place, self.key, streams.before)
            self.driver.after(streams.copies, streams.before)
        for host, length in pieces(self.slabs, begin, size):
            if self.out:
                self.driver.copy_out(host, at, length, streams.copies)
            else:
                self.driver.copy_in(at, host, length, streams.copies)
            at += length
        self.driver.after(streams.after, streams.copies)
        self.prints.take(self._base + begin, size, self._after[0] + place, self.key, streams.after)

    def finish(self) -> Done:
        """Wait for the copies and compare. Raises DriverError, OSError, ValueError."""
        if self._end != self.total:
            raise ValueError(f"{self._end} of {self.total} bytes arrived")
        self.driver.wait(self.streams.copies)
        seconds = time.monotonic() - self._began if self._began else 0.0
        after = self._fetched(self._after[0])
        expected = self._fetched(self._before[0]) if self.out else self._read()[KEY_SIZE:]
        wrong = differing(expected, after)
        if self.out and not wrong:
            self.record.write_bytes(self.key + after)
        return Done(wrong=wrong, seconds=seconds)

    def end(self) -> None:
        """Let go of everything. Raises DriverError."""
        self.driver.wait(self.streams.before)
        self.driver.wait(self.streams.copies)
        self.driver.wait(self.streams.after)
        if self._end:
            self.driver.unmap(self._base, self._end)
        if self._base:
            self.driver.unreserve(self._base, self.total)
        for room in (self._before, self._after):
            if room[0]:
                self.room.give(room)
        self._end, self._base, self._before, self._after = 0, 0, (0, 0), (0, 0)

    def _fetched(self, at: int) -> bytes:
        into = ctypes.create_string_buffer(self._prints_size)
        self.driver.copy_out(ctypes.addressof(into), at, self._prints_size, self.streams.after)
        self.driver.wait(self.streams.after)
        return into.raw

    def _read(self) -> bytes:
        record = self.record.read_bytes()
        if len(record) != KEY_SIZE + self._prints_size:
            raise ValueError("the fingerprints are not those of this part")
        return record

    @property
    def _prints_size(self) -> int:
        return self.total // GRAIN * fingerprints.SIZE


def differing(one: bytes, other: bytes) -> tuple[int, ...]:
    """Which chunks' fingerprints differ."""
    if one == other:
        return ()
    size = fingerprints.SIZE
    return tuple(
        place // size
        for place in range(0, len(one), size)
        if one[place : place + size] != other[place : place + size]
    )
