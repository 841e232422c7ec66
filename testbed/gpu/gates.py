"""
Files that say "do not call": one for every disconnected context whose gate is closed.

Called by: `contexts`. A workload that holds no connection cannot be told in any other way that it
may come back, and one that would try now and then might be caught with a connection by whoever
takes its process image.
Rule: a file is there before the first call is ended, and gone only when the gate is open.
"""

from contextlib import suppress
from pathlib import Path


class Gates:
    """A folder that workloads can see. Without one, nothing is written."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(exist_ok=True)
            for left in folder.iterdir():  # of a device before us: its contexts are gone
                left.unlink()

    def close(self, identity: str, namespace: int) -> None:
        """From now on the workload does not call."""
        if self._folder is not None:
            self._path(self._folder, identity, namespace).touch()

    def open(self, identity: str, namespace: int) -> None:
        """It may call again. Opening twice is fine."""
        if self._folder is not None:
            with suppress(FileNotFoundError):
                self._path(self._folder, identity, namespace).unlink()

    def _path(self, folder: Path, identity: str, namespace: int) -> Path:
        return folder / f"{identity}.{namespace}"
