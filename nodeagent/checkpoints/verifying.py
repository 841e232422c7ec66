"""
What lies in a folder, and whether it is what a manifest says.

Called by: drafts (before sealing), the store (before use). Rule: nothing is followed and nothing
is opened before it is known to be a regular file; the first thing that is wrong is told.
"""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.artifacts import names
from kybernate.artifacts import v0 as manifests
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.v0 import File, Manifest
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints import streams


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


def check(folder: Path, manifest: Manifest) -> None:
    """Compare every byte. Raises Unusable."""
    try:
        _compare_names(survey(folder), manifest)
        # The largest first: the last one to end is then a small one.
        largest_first = sorted(manifest.files, key=lambda file: -file.size)
        with ThreadPoolExecutor(streams.SIDE_BY_SIDE) as threads:
            for file, found in zip(
                largest_first,
                threads.map(lambda f: streams.digest_of(folder / f.path), largest_first),
                strict=True,
            ):
                same_or_unusable(file, *found)
    except OSError as error:
        raise Unusable(Flaw.FILE_MISSING, str(error.strerror or error)) from error


def same_or_unusable(file: File, size: int, sha256: str) -> None:
    """Raises Unusable where these are not its bytes."""
    if size != file.size:
        raise Unusable(Flaw.FILE_SIZE, f"{file.path}: {size} bytes of {file.size}")
    if sha256 != file.sha256:
        raise Unusable(Flaw.FILE_ALTERED, file.path)


def _compare_names(found: Survey, manifest: Manifest) -> None:
    told = {file.path: file.size for file in manifest.files}
    for path in sorted(told.keys() - found.files.keys()):
        raise Unusable(Flaw.FILE_MISSING, path)
    folders = manifests.folders_of(manifest.files)
    for path in sorted((found.files.keys() - told.keys()) | (found.folders - folders)):
        raise Unusable(Flaw.FILE_EXTRA, path)
    for path, size in found.files.items():
        if size != told[path]:
            raise Unusable(Flaw.FILE_SIZE, f"{path}: {size} bytes of {told[path]}")
