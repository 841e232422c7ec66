"""
Contents of a parked workload from the RAM pool to NVMe and back, as an agent moves them.

Called by: the benchmark of tiers. What is moved is what a card has left in the pool: chunks of
2 MiB in slabs, random, and their list.
"""

import os
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from kybernate.ladder.progress import Course
from kybernate.runtime.clock import SystemClock
from nodeagent.cellar import Cellar, Content
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import SIZE, new_key
from nodeagent.mechanisms import carrying
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.copies import Copy, named
from nodeagent.mechanisms.slabs import ANYWHERE, Slabs

_UID, _TOKEN, _PART = "one", "0" * 32, "gpu"


def seconds(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """The best of each: `demote` (written, and read back), `promote`, of so many bytes. `folder` is
    on the disk to measure; the pool is a folder in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kyb-lowered-") as memory:
        pool = _Parked(Path(memory), size)
        clock = SystemClock()
        cellar = Cellar(folder, 2 * size, os.urandom(32), clock, free=lambda _: 2 * size)
        found: dict[str, list[float]] = {"demote": [], "promote": []}
        for _ in range(rounds):
            found["demote"].append(_timed(lambda: pool.demote(cellar)))
            found["promote"].append(_timed(lambda: pool.promote(cellar)))
            cellar.drop(_UID)
        return {name: min(several) for name, several in found.items()}


class _Parked:
    """One workload's contents in a pool."""

    def __init__(self, folder: Path, size: int) -> None:
        self._size = size
        self._bulk = BulkOfChunks(folder, Chunks(Slabs(folder / ".chunks"), 3 * size))
        self._pool = Pool(folder, 3 * size, self._bulk)
        slot = self._pool.reserve(_UID, size)
        places = self._bulk.take(size // GRAIN, ANYWHERE)
        noise = os.urandom(GRAIN)
        carrying.write(
            self._bulk.chunks.slabs,
            places,
            (number.to_bytes(8, "little") + noise[8:] for number in range(len(places))),
        )
        prints = os.urandom(SIZE * len(places))
        copy = Copy(((1, 0, size),), new_key(), array("Q", places), prints)
        self._bulk.keep(_UID, named(_PART), copy)
        content, digest = slot.write(_PART, iter([b"index"]))
        self._part = Kept(name=_PART, uuid="GPU-0", size=size, content=content, digest=digest)
        slot.seal((self._part,))
        self._slot: Slot = slot

    def demote(self, cellar: Cellar) -> None:
        """As the story does: written, then read back."""
        weight = self._bulk.weight(self._slot, self._part)
        content = Content(self._part, weight, self._bulk.carried(self._slot, self._part))
        cellar.keep(_UID, _TOKEN, [content], Course(SystemClock()))
        cellar.verify(_UID, _TOKEN, Course(SystemClock()))

    def promote(self, cellar: Cellar) -> None:
        """Into another slot, which goes again."""
        slot = self._pool.reserve("two", self._size)
        self._bulk.brought(slot, _PART, cellar.slot(_UID, _TOKEN).read(_PART))
        self._pool.free("two")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
