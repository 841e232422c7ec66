"""
What lies in a plain folder that is to be sealed.

Called by: drafts. Rule: nothing is followed; the first thing that is not allowed is told.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw


@dataclass(slots=True)
class Survey:
    """Sizes of files and names of folders, by path below the folder."""

    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def survey(folder: Path) -> Survey:
    """Raises Unusable for whatever is neither a regular file nor a folder, OSError."""
    found = Survey()
    for path, entry in _entries(folder, ""):
        names.check_path(path)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise Unusable(Flaw.LINK, names.shown(path))
        if stat.S_ISDIR(mode):
            found.folders.add(path)
        elif stat.S_ISREG(mode):
            found.files[path] = entry.stat(follow_symlinks=False).st_size
        else:
            raise Unusable(Flaw.SPECIAL_FILE, names.shown(path))
        if len(found.files) + len(found.folders) > 2 * names.MAX_FILES:
            raise Unusable(Flaw.TOO_LARGE, f"more than {names.MAX_FILES} files")
    return found


def _entries(folder: Path, below: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = below + entry.name
            yield path, entry  # checked by the caller before we go below
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(folder / entry.name, f"{path}/")


def weight(folder: Path) -> int:
    """Bytes that are in it, whatever it is, while others write there. Raises OSError."""
    size = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118
    return size
