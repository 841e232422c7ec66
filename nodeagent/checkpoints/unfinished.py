"""
What has come of checkpoints whose fetch was interrupted: kept for the next try.

Called by: the store. The folder `arriving/` has one folder for each, named by what was to come.
Rule: nobody sees these; nothing of them is believed; their room is counted, and given to whoever
needs it.
"""

import shutil
import stat
import threading
from hashlib import sha256
from pathlib import Path

from nodeagent.checkpoints.space import Space


class Unfinished:
    """Thread safe. Those that are being written belong to a draft, and are left alone."""

    def __init__(self, folder: Path, space: Space) -> None:
        """Raises OSError."""
        self._folder, self._space = folder, space
        self._lock = threading.Lock()
        self._busy: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for root in folder.iterdir():
            space.put(root, weight(root))

    def begin(self, namespace: str, name: str, signature: str) -> Path:
        """Where the fetch of this checkpoint goes on; until `left` or `over` it is its draft's."""
        root = self._root(namespace, name, signature)
        with self._lock:
            self._busy.add(root)
        self._space.give_back(root)
        return root

    def left(self, root: Path) -> None:
        """It was interrupted."""
        self._space.put(root, weight(root))
        self.over(root)

    def over(self, root: Path) -> None:
        """It is a checkpoint now, or gone."""
        with self._lock:
            self._busy.discard(root)

    def forget(self, namespace: str, name: str, signature: str) -> None:
        """Nobody wants that checkpoint any more."""
        self._drop(self._root(namespace, name, signature))

    def make_room(self) -> bool:
        """Let go of all; whether there was something."""
        return sum(self._drop(root) for root in list(self._folder.iterdir())) > 0

    def _drop(self, root: Path) -> bool:
        with self._lock:
            if root in self._busy or not root.exists():
                return False
            shutil.rmtree(root, ignore_errors=True)
        self._space.give_back(root)
        return True

    def _root(self, namespace: str, name: str, signature: str) -> Path:
        named = sha256(f"{namespace}/{name}/{signature}".encode()).hexdigest()
        return self._folder / named[:32]


def weight(root: Path, counted: set[int] | None = None) -> int:
    """Bytes it takes, whatever it is. Files that several checkpoints have are counted once, with
    the first: `counted` are their inodes so far."""
    size = 0
    for path in root.rglob("*"):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            continue
        if counted is not None and found.st_nlink > 1:
            if found.st_ino in counted:
                continue
            counted.add(found.st_ino)
        size += found.st_size
    return size
