"""
Which paths a container watches with inotify: the kernel tells inodes, CRIU needs names.

Called by: `nodeagent.images.dumping`, before the container is frozen.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_WATCH = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+) ", re.MULTILINE)
_OPTION = "irmap-scan-path"
_PLAIN = re.compile(r"[^\s#\"'\\]+")  # what CRIU's configuration takes as one word


def options(pids: Sequence[int], rootfs: Path) -> tuple[str, ...]:
    """Lines for CRIU's configuration; none where nothing is watched, or not in this file system."""
    wanted = _inodes(pids)
    found = []
    if wanted:
        for folder, _, files, inner in os.fwalk(rootfs, onerror=None):
            for name in (".", *files):
                path = os.path.normpath(f"/{os.path.relpath(folder, rootfs)}/{name}")
                with suppress(OSError):
                    inode = os.stat(name, dir_fd=inner, follow_symlinks=False).st_ino
                    if inode in wanted and _PLAIN.fullmatch(path):
                        found.append(f"{_OPTION} {path}")
                        wanted.discard(inode)
            if not wanted:
                break
    return tuple(found)


def _inodes(pids: Sequence[int]) -> set[int]:
    found: set[int] = set()
    for pid in pids:
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(entry.readlink()).startswith("anon_inode:inotify"):
                        told = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                        found.update(int(inode, 16) for inode in _WATCH.findall(told))
    return found
