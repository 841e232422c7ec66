"""
Chunks of bf16 made smaller by the card, and put back on their way in (`pressing.cu`).

Called by `serving`, `parts` and `alike`. The card's memory for it is small, taken when first needed
and kept: pressed bytes come into one of two slots, each with a stream of its own, and while one is
expanded the other one is filled. On an H200 two slots of 32 MiB had 0.98 of the bus, three of
16 MiB 0.93, three of 32 MiB 0.94; expanding alone takes a third of the time.
Rule: what was pressed is expanded again and fingerprinted before anybody is told of it.
"""

import ctypes
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.fingerprints import SIZE, Fingerprints
from nodeagent.gpuworker.places import UNIT
from nodeagent.gpuworker.slabs import Slabs

AT_ONCE = 8  # chunks that are pressed together
WORTH = 0.85  # of a chunk: what is larger stays plain
_SLOT, _SLOTS = 32 * 2**20, 2
_AREA, _AREAS = AT_ONCE * GRAIN, 3  # for pressing: plain, pressed, what the kernel needs
_ROOM = 25600 * 32 * 2  # bytes the kernel needs beside a chunk
_PRESS_THREADS, _EXPAND_THREADS, _EXPAND_BLOCKS = 1024, 256, 4
_PLACES = 256  # in one launch

Pressed = tuple[int, int, int]
"""A chunk of a part; where its bytes are in the pool, and how many, in units of 256."""


@dataclass(frozen=True, slots=True)
class _Slot:
    at: int
    stream: Any


class Pressing:
    """The kernels, and their memory. What goes in is read 2 MiB far, so there is that much more."""

    def __init__(self, driver: Driver, prints: Fingerprints) -> None:
        """Raises DriverError."""
        self._driver, self._prints = driver, prints
        image = (files(__package__) / "pressing.ptx").read_bytes() + b"\0"
        self._press = driver.kernel(image, b"kyb_press")
        self._expand = driver.kernel(image, b"kyb_expand")
        self._slots: tuple[_Slot, ...] = ()
        self._next = 0

    def expand(self, base: int, chunks: Iterable[Pressed], slabs: Slabs, copies: Any) -> int:
        """Have pressed bytes copied and expanded to `base`, some time after what is on `copies`
        now; how many are copied."""
        copied = 0
        groups = list(_groups(chunks))
        if groups:
            self._memory()
            for slot in self._slots:  # what was asked for before may use their memory
                self._driver.after(slot.stream, copies)
        for group in groups:
            slot = self._slot()
            first, size = group[0][1], sum(one[2] for one in group) * UNIT
            self._driver.copy_in(slot.at, slabs.address(first * UNIT, size), size, slot.stream)
            places = [(chunk, at - first) for chunk, at, _ in group]
            self._launch(base, slot.at, places, slot.stream)
            copied += size
        return copied

    def awaited(self, stream: Any) -> None:
        """What comes on a stream from now on waits for all that is being expanded."""
        for slot in self._slots:
            self._driver.after(stream, slot.stream)

    def wait(self) -> None:
        """Until nothing is expanded any more."""
        for slot in self._slots:
            self._driver.wait(slot.stream)

    def press(self, places: Sequence[int], slabs: Slabs, stream: Any) -> list[int]:
        """Press plain chunks of the pool, on the card; the size of each in units, 0 where it is not
        worth it. They stay there until `store`. Raises DriverError, OSError, ValueError."""
        if len(places) > AT_ONCE:
            raise ValueError(f"{len(places)} chunks are too many")
        self.wait()
        plain, pressed, rooms = self._memory()
        for number, place in enumerate(places):
            host, _ = next(slabs.spans(place, 1))
            self._driver.copy_in(plain + number * GRAIN, host, GRAIN, stream)
        sizes = rooms + AT_ONCE * _ROOM
        self._driver.launch(
            self._press, len(places), _PRESS_THREADS, stream,
            *(ctypes.c_uint64(at) for at in (plain, pressed, rooms, sizes)),
            ctypes.c_uint32(int(GRAIN * WORTH)),
        )  # fmt: skip
        found = (ctypes.c_uint32 * len(places))()
        self._driver.copy_out(ctypes.addressof(found), sizes, ctypes.sizeof(found), stream)
        self._driver.wait(stream)
        return [size // UNIT for size in found]

    def store(
        self, chunks: Sequence[Pressed], slabs: Slabs, key: bytes, stream: Any
    ) -> list[bytes]:
        """Copy some of what was pressed into the pool, expand it from there and fingerprint that.
        Raises DriverError, OSError."""
        _, pressed, rooms = self._memory()
        for number, at, size in chunks:
            host = slabs.address(at * UNIT, size * UNIT)
            self._driver.copy_out(host, pressed + number * GRAIN, size * UNIT, stream)
        plain = self.opened([(at, size) for _, at, size in chunks], slabs, stream)
        self._prints.take(plain, len(chunks) * GRAIN, rooms, key, stream)
        found = ctypes.create_string_buffer(len(chunks) * SIZE)
        self._driver.copy_out(ctypes.addressof(found), rooms, len(found), stream)
        self._driver.wait(stream)
        return [found.raw[at : at + SIZE] for at in range(0, len(found), SIZE)]

    def opened(self, spans: Sequence[tuple[int, int]], slabs: Slabs, stream: Any) -> int:
        """Where on the card some pressed chunks will be, one behind the other, expanded; what is
        asked of the stream next finds them. Raises DriverError, OSError, ValueError."""
        if len(spans) > AT_ONCE:
            raise ValueError(f"{len(spans)} chunks are too many")
        self.wait()
        plain, pressed, _ = self._memory()
        for number, (at, size) in enumerate(spans):
            host = slabs.address(at * UNIT, size * UNIT)
            self._driver.copy_in(pressed + number * GRAIN, host, size * UNIT, stream)
        self._launch(plain, pressed, [(n, n * GRAIN // UNIT) for n in range(len(spans))], stream)
        return plain

    def _slot(self) -> _Slot:
        self._next = (self._next + 1) % _SLOTS
        return self._slots[self._next]

    def _memory(self) -> tuple[int, ...]:
        """The areas for pressing, which are those of the slots. Raises DriverError."""
        if not self._slots:
            at = self._driver.allocate(_SLOTS * _SLOT + GRAIN)
            self._slots = tuple(
                _Slot(at + number * _SLOT, self._driver.urgent_stream()) for number in range(_SLOTS)
            )
        first = self._slots[0].at  # nothing is expanded for a workload while chunks are pressed
        return tuple(first + number * _AREA for number in range(_AREAS))

    def _launch(
        self, base: int, source: int, places: Sequence[tuple[int, int]], stream: Any
    ) -> None:
        table = (ctypes.c_uint32 * (2 * _PLACES))(*itertools.chain.from_iterable(places))
        self._driver.launch(
            self._expand, len(places) * _EXPAND_BLOCKS, _EXPAND_THREADS, stream,
            ctypes.c_uint64(base), ctypes.c_uint64(source), table,
        )  # fmt: skip


def _groups(chunks: Iterable[Pressed]) -> Iterator[list[Pressed]]:
    """Those that stand one behind the other in the pool, as many as a slot holds."""
    group: list[Pressed] = []
    size = 0
    for one in chunks:
        goes_on = group and one[1] == group[-1][1] + group[-1][2]
        if group and not (goes_on and (size + one[2]) * UNIT <= _SLOT and len(group) < _PLACES):
            yield group
            group, size = [], 0
        group.append(one)
        size += one[2]
    if group:
        yield group
