"""
Room for checkpoints: a limit on their bytes, and what the disk really has.

Called by: the store and its drafts. Rule: room is held before anything is written, looked at again
while writing, and given back by whoever held it.
"""

import errno
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from kybernate.model.tier import Room
from nodeagent.checkpoints.faults import NoRoom

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SPARE = 2**30  # bytes of the disk left to others: the journal must never find it full

Free = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """What the disk has left for us."""
    return shutil.disk_usage(folder).free


class Space:
    """Who holds how many bytes. Thread safe."""

    def __init__(
        self, folder: Path, limit: int, spare: int = SPARE, free: Free = free_bytes
    ) -> None:
        self._folder, self._limit = folder, limit
        self._spare, self._free = spare, free
        self._held: dict[object, int] = {}
        self._lock = threading.Lock()

    def room(self) -> Room:
        """The limit, and what is held of it."""
        with self._lock:
            return Room(capacity=self._limit, used=sum(self._held.values()))

    def hold(self, holder: object, size: int, written: int = 0) -> None:
        """Hold `size` bytes in all, of which `written` are on the disk. Raises NoRoom."""
        with self._lock:
            others = sum(held for one, held in self._held.items() if one != holder)
            if others + size > self._limit:
                raise NoRoom(f"{_gib(size)} needed, {_gib(self._limit - others)} left of the limit")
            free = self._free(self._folder) - self._spare
            if size - written > free:
                raise NoRoom(f"{_gib(size - written)} needed, {_gib(free)} left on the disk")
            self._held[holder] = size

    def held(self, holder: object) -> int:
        """How many bytes somebody holds."""
        with self._lock:
            return self._held.get(holder, 0)

    def put(self, holder: object, size: int) -> None:
        """What is there already, whether it fits or not."""
        with self._lock:
            self._held[holder] = size

    def give_back(self, holder: object) -> None:
        """All of it. Twice is fine."""
        with self._lock:
            self._held.pop(holder, None)


def _gib(size: int) -> str:
    return f"{max(0, size) / 2**30:.2f} GiB"
