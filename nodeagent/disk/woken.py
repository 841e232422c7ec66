"""
Which pods here were made from a checkpoint, kept as long as they may be made again.

Called by: `wakings`. Small files in a folder that outlives the agent, one for each pod.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kybernate.model.ids import PodUid
from nodeagent.disk.durable import DRAFT, seal


class WokenNotes:
    """Thread safe for different pods."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, uid: PodUid, checkpoint: str) -> None:
        """It was made from this one. Raises OSError, ValueError."""
        seal(self._path(uid), checkpoint.encode())

    def of(self, uid: PodUid) -> str:
        """What it was made from; empty where it was not, or nobody knows."""
        try:
            return self._path(uid).read_text()
        except OSError:
            return ""

    def prune(self, present: Collection[PodUid]) -> None:
        """Forget pods that are gone."""
        for path in self._folder.iterdir():
            if path.name.endswith(DRAFT) or path.name not in present:
                with suppress(FileNotFoundError):
                    path.unlink()

    def _path(self, uid: PodUid) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise ValueError(f"not a pod uid: {uid!r}")
        return self._folder / uid
