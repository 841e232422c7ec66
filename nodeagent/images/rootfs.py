"""
What a container changed in its root file system: the upper layer of its overlay.

Called by: `nodeagent.images.dumping`, `nodeagent.images.fitness`.
Rule: the upper layer says which names changed; what is read is the merged view, since a renamed
folder or a file with changed rights only has its content in a layer below.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from nodeagent.images import tree

FILE = "rootfs.tar"
_NODE = Path("/proc/1/root")
_MARKS = ("trusted.overlay.", "user.overlay.")


class NoOverlay(ValueError):
    """The root file system is none whose changes can be told apart."""


def upper(rootfs: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """The upper layer of what is mounted there. Raises NoOverlay, OSError."""
    found = None
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if _plain(before.split(" ")[4]) == str(rootfs):
            found = after.split(" ")  # the last one is on top
    if found is None:
        raise NoOverlay(f"nothing is mounted at {rootfs}")
    options = dict(option.partition("=")[::2] for option in found[2].split(","))
    if found[0] != "overlay" or "upperdir" not in options:
        raise NoOverlay(f"the root file system is {found[0]}, whose changes cannot be told apart")
    return Path(_plain(options["upperdir"]))


def reached(layer: Path, node: Path = _NODE) -> Path:
    """A layer where we find it. In a container that sees the node's processes that is by way of the
    first one: containerd may have its layers anywhere. Raises NoOverlay."""
    for one in (layer, node / layer.relative_to("/")):
        if one.is_dir():
            return one
    raise NoOverlay(f"the files it changed are in {layer}, which cannot be reached from here")


def pack(changed: Path, rootfs: Path, out: BinaryIO) -> None:
    """The changes as a tree. Raises BadTree, OSError."""
    with tree.opened(changed) as above, tree.opened(rootfs) as merged, tree.Packer(out) as packer:
        _pack(packer, ".", above, merged)


def _pack(packer: tree.Packer, at: str, above: int, merged: int) -> None:
    """One folder of the upper layer, and all below."""
    packer.add(at, merged, ".", {tree.OPAQUE: "y"} if _marked(above, ".", "opaque") else {})
    for entry in sorted(os.listdir(above)):
        name = entry if at == "." else f"{at}/{entry}"
        seen = os.stat(entry, dir_fd=above, follow_symlinks=False)
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            packer.remove(name)
        elif not stat.S_ISDIR(seen.st_mode):
            packer.add(name, merged, entry, {})
        elif _marked(above, entry, "redirect"):
            _pack_whole(packer, name, merged, entry)
        else:
            inner, shown = _folder(above, entry), _folder(merged, entry)
            try:
                _pack(packer, name, inner, shown)
            finally:
                os.close(inner)
                os.close(shown)


def _pack_whole(packer: tree.Packer, name: str, merged: int, entry: str) -> None:
    """A folder that was renamed: as if all of it were new."""
    folder = _folder(merged, entry)
    try:
        for inner, below, one in tree.walk(folder):
            marks = {tree.OPAQUE: "y"} if below == "." else {}
            packer.add(name if below == "." else f"{name}/{below}", inner, one, marks)
    finally:
        os.close(folder)


def _folder(above: int, entry: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(entry, flags, dir_fd=above)


def _marked(above: int, entry: str, mark: str) -> bool:
    path = f"/proc/self/fd/{above}/{entry}"
    return any(f"{one}{mark}" in os.listxattr(path, follow_symlinks=False) for one in _MARKS)


def _plain(text: str) -> str:
    """A path without the escapes that mountinfo has for spaces and the like."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, character)
    return text
