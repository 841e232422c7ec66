"""
One part on its way: segments mapped one behind the other, fingerprinted, and copied as asked.

Called by `serving`. Three streams: fingerprints before a copy out, copies, fingerprints after.
The agent decides what is copied where, by the fingerprints; they are left in a file for it: first
those from before, then those from after. Chunks of the part and of the pool are both 2 MiB, and
told as runs: the first of the part, the first of the pool, how many.
"""

import ctypes
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.fingerprints import SIZE, Fingerprints, Room
from nodeagent.gpuworker.pressing import Pressed, Pressing
from nodeagent.gpuworker.slabs import Slabs

Run = tuple[int, int, int]


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
    slabs: Slabs
    pressing: Pressing
    key: bytes
    out: bool
    total: int
    file: Path  # where the fingerprints are left
    copied: int = 0  # bytes that crossed the bus
    _base: int = 0
    _before: tuple[int, int] = (0, 0)
    _after: tuple[int, int] = (0, 0)
    _end: int = 0
    _began: float = 0.0

    def begin(self) -> None:
        """Take what the part needs of the card. Raises DriverError, ValueError."""
        if self.total <= 0 or self.total % GRAIN:
            raise ValueError(f"a part of {self.total} bytes")
        self._base = self.driver.reserve(self.total)
        self._after = self.room.take(self._prints_size)
        if self.out:
            self._before = self.room.take(self._prints_size)

    def take(self, descriptors: list[int], sizes: list[int]) -> None:
        """Map these segments behind the last ones; out: leave their fingerprints."""
        begin = self._end
        if begin + sum(sizes) > self.total or any(size % GRAIN for size in sizes):
            raise ValueError("these segments do not belong to the part")
        for descriptor, size in zip(descriptors, sizes, strict=True):
            self.driver.map_shared(descriptor, self._base + self._end, size)
            self._end += size
        size = self._end - begin
        if size:
            self.driver.allow(self._base + begin, size)
            self._began = self._began or time.monotonic()
            if self.out:
                self._print(begin, size, self._before[0], self.streams.before)
                self._leave(begin, size, self._before[0], self.streams.before, 0)

    def move(self, runs: Iterable[Run]) -> None:
        """Begin to copy, out of the card or into it."""
        for chunk, place, count in runs:
            at = self._at(chunk, count)
            for host, size in self.slabs.spans(place, count):
                if self.out:
                    self.driver.copy_out(host, at, size, self.streams.copies)
                else:
                    self.driver.copy_in(at, host, size, self.streams.copies)
                at += size
                self.copied += size

    def clear(self, runs: Iterable[tuple[int, int]]) -> None:
        """Zeros for chunks of the part: the first one, and how many."""
        for chunk, count in runs:
            self.driver.set_zero(self._at(chunk, count), count * GRAIN, self.streams.copies)

    def expand(self, chunks: Sequence[Pressed]) -> None:
        """Begin to copy pressed chunks into the card, and to expand them there."""
        for chunk, _, _ in chunks:
            self._at(chunk, 1)
        self.copied += self.pressing.expand(self._base, chunks, self.slabs, self.streams.copies)

    def at(self, chunk: int) -> int:
        """Where one of its chunks is on the card. Raises ValueError."""
        return self._at(chunk, 1)

    def arrived(self, chunk: int, count: int) -> None:
        """All of these are asked for: they are fingerprinted once they have been copied."""
        at = self._at(chunk, count) - self._base
        self.driver.after(self.streams.after, self.streams.copies)
        self.pressing.awaited(self.streams.after)
        self._print(at, count * GRAIN, self._after[0], self.streams.after)

    def finish(self) -> float:
        """Wait for the copies, leave the fingerprints from after them; seconds since the first
        segment came. Raises DriverError, OSError, ValueError."""
        if self._end != self.total:
            raise ValueError(f"{self._end} of {self.total} bytes arrived")
        self.driver.wait(self.streams.copies)
        self.pressing.wait()
        seconds = time.monotonic() - self._began
        streams = self.streams
        self._leave(0, self.total, self._after[0], streams.after, self._prints_size)
        return seconds

    def end(self) -> None:
        """Let go of everything; nothing is copied any more. Raises DriverError."""
        for stream in (self.streams.before, self.streams.copies, self.streams.after):
            self.driver.wait(stream)
        self.pressing.wait()
        if self._end:
            self.driver.unmap(self._base, self._end)
        if self._base:
            self.driver.unreserve(self._base, self.total)
        for room in (self._before, self._after):
            if room[0]:
                self.room.give(room)
        self._end, self._base, self._before, self._after = 0, 0, (0, 0), (0, 0)

    def _at(self, chunk: int, count: int) -> int:
        begin, size = chunk * GRAIN, count * GRAIN
        if begin < 0 or size <= 0 or begin + size > self._end:
            raise ValueError(f"chunks {chunk} to {chunk + count} are not here")
        return self._base + begin

    def _print(self, begin: int, size: int, into: int, stream: Any) -> None:
        place = begin // GRAIN * SIZE
        self.prints.take(self._base + begin, size, into + place, self.key, stream)

    def _leave(self, begin: int, size: int, at: int, stream: Any, shift: int) -> None:
        """Fingerprints of some bytes into the file, once the card has made them."""
        place, count = begin // GRAIN * SIZE, size // GRAIN * SIZE
        self.driver.wait(stream)
        file = os.open(self.file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            made = (ctypes.c_char * count).from_address(at + place)
            if os.pwrite(file, made, shift + place) != count:
                raise OSError("the fingerprints were cut")
        finally:
            os.close(file)

    @property
    def _prints_size(self) -> int:
        return self.total // GRAIN * SIZE
