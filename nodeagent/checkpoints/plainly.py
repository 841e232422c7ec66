"""
Folders for what is not sealed: process images while they are made, and while they are woken from.

Called by: drafts, the readings. In memory where a folder of a tmpfs is given and has the room, else
on the disk. Rule: whoever asked for one has it removed; what the dead have left goes at a start.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

from kybernate.runtime.logs import get_logger

DRAFT = "draft"  # a kind: nothing of it outlives the agent
PLAIN = "plain"  # in the folder of checkpoints
SPARE = 2**30  # bytes of memory that are left to others
_KIB = 1024


class Plainly:
    """Two places for folders, named by their kind and whose they are. `memory` is at the same path
    to whoever reads there, and to programs of the node."""

    def __init__(self, disk: Path, memory: Path | None = None) -> None:
        """Raises OSError."""
        self._disk, self._memory = disk, memory
        for one in self._places:
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
            one.chmod(0o700)

    def folder(self, name: str, size: int) -> Path:
        """An empty one that has room for so many bytes, as far as that is known. Raises OSError."""
        self.remove(name)
        place = self._memory if self._memory and _fits(self._memory, size) else self._disk
        path = place / name
        path.mkdir(parents=True, mode=0o700)
        return path

    def is_on_disk(self, path: Path) -> bool:
        """Whether what is in one of them takes room of the disk."""
        return path.is_relative_to(self._disk)

    def remove(self, name: str) -> None:
        """All that is in it. Twice is fine."""
        for place in self._places:
            shutil.rmtree(place / name, ignore_errors=True)

    def keep(self, kind: str, some: Collection[str]) -> None:
        """Of the folders of this kind that were there before, nothing but these."""
        for place in self._places:
            for path in place.glob(f"{kind}-*"):
                if path.name not in some:
                    get_logger().info("what was not sealed is removed", folder=str(path))
                    shutil.rmtree(path, ignore_errors=True)

    @property
    def _places(self) -> tuple[Path, ...]:
        return (self._disk, self._memory) if self._memory else (self._disk,)


def _fits(folder: Path, size: int) -> bool:
    """Whether the file system and the machine's memory have so much to spare."""
    return size + SPARE <= min(shutil.disk_usage(folder).free, _available())


def _available() -> int:
    """Bytes of memory, as /proc/meminfo counts them; none where it does not say."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * _KIB
    return 0
