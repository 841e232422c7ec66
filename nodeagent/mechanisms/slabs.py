"""
The pool's files for contents that a card copies by itself: made once, pinned once, used for ever.

Called by `guest`. A copy takes a slab by linking it into its slot's folder; when the pool frees the
slot, the link goes and the slab is free again. So the file system is the whole book-keeping, and it
outlives the agent as the pool does.
"""

import itertools
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.pool import NoRoom

SLAB = 256 * 1024 * 1024  # small enough to waste little, large enough to be few


@dataclass(slots=True)
class Slabs:
    """Slabs below `folder`, which stands in the pool's file system. Thread safe."""

    folder: Path
    size: int = SLAB
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str, size: int, into: Path) -> tuple[Path, ...]:
        """Slabs for `size` bytes as `into/name.0`, `.1` and so on. Raises NoRoom, OSError."""
        links = tuple(into / f"{name}.{i}" for i in range(-(-size // self.size)))
        with self._lock:
            free = [slab for slab in self.all() if slab.stat().st_nlink == 1]
            for link in links:
                link.unlink(missing_ok=True)
                link.hardlink_to(free.pop() if free else self._made())
        return links

    def taken(self, name: str, folder: Path) -> tuple[Path, ...]:
        """The slabs of a copy, in order; none where it has none."""
        links = (folder / f"{name}.{i}" for i in itertools.count())
        return tuple(itertools.takewhile(Path.exists, links))

    def all(self) -> tuple[Path, ...]:
        """Every slab there is."""
        return tuple(sorted(self.folder.iterdir()))

    def prepare(self, size: int) -> tuple[Path, ...]:
        """Have slabs for so many bytes. Raises NoRoom."""
        with self._lock:
            while len(self.all()) * self.size < size:
                self._made()
        return self.all()

    def _made(self) -> Path:
        path = self.folder / f"{len(self.all()):06}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self.size)
        except OSError as error:
            path.unlink()
            raise NoRoom(f"the pool's file system has no room for a slab: {error}") from error
        finally:
            os.close(file)
        return path
