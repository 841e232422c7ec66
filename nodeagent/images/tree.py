"""
A folder's content as a tar file, and back into another folder.

Called by: `nodeagent.images.rootfs`, `nodeagent.images.volumes`.
Rule: both folders are a stranger's. No symbolic link of theirs is ever followed, and no name leads
out of them: each step opens one name below an open folder.
Rule: beside what every tar file has, an entry may be a removal (a character device 0:0, as in an
overlay), and a folder may replace the one it is put over (`OPAQUE`).
"""

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

OPAQUE = "KYB.opaque"
_XATTR = "KYB.xattr."
_KEPT_XATTRS = ("user.", "security.capability")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadTree(ValueError):
    """A tree cannot be packed, or what is unpacked is not one that we packed."""


class Packer:
    """Writes one tree; a context manager. Hard links stay links."""

    def __init__(self, out: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._seen: dict[tuple[int, int], str] = {}

    def __enter__(self) -> "Packer":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def add(self, name: str, folder: int, entry: str, marks: Mapping[str, str]) -> None:
        """Add what `entry` is in an open folder, under `name`. Sockets are left out: who listens
        makes them. Raises BadTree, OSError.
        """
        seen = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISSOCK(seen.st_mode):
            return
        info = _head(name, seen)
        info.pax_headers = {**_xattrs(folder, entry), **marks}
        if stat.S_ISREG(seen.st_mode):
            self._add_file(info, seen, folder, entry)
            return
        if stat.S_ISLNK(seen.st_mode):
            info.linkname = os.readlink(entry, dir_fd=folder)
        self._tar.addfile(info)

    def remove(self, name: str) -> None:
        """Say that the name is gone."""
        info = tarfile.TarInfo(name)
        info.type = tarfile.CHRTYPE
        self._tar.addfile(info)

    def _add_file(
        self, info: tarfile.TarInfo, seen: os.stat_result, folder: int, entry: str
    ) -> None:
        if seen.st_nlink > 1:
            first = self._seen.setdefault((seen.st_dev, seen.st_ino), info.name)
            if first != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                self._tar.addfile(info)
                return
        with os.fdopen(os.open(entry, _READ, dir_fd=folder), "rb") as content:
            info.size = os.fstat(content.fileno()).st_size
            self._tar.addfile(info, content)


def pack(folder: Path, out: BinaryIO) -> None:
    """All below a folder, itself included. Raises BadTree, OSError."""
    with Packer(out) as packer, opened(folder) as top:
        for inner, name, entry in walk(top):
            packer.add(name, inner, entry, {})


def walk(top: int) -> Iterator[tuple[int, str, str]]:
    """An open folder, the path below the top, the name in the folder; parents first."""
    yield top, ".", "."
    for root, folders, files, inner in os.fwalk(dir_fd=top, follow_symlinks=False):
        for entry in sorted((*folders, *files)):
            path = f"{root}/{entry}".removeprefix("./")
            yield inner, path, entry


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A folder whose own path is trusted."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unpack(source: BinaryIO, folder: Path) -> None:
    """Put a packed tree over what is in a folder. Raises BadTree, OSError."""
    try:
        with opened(folder) as top, tarfile.open(fileobj=source, mode="r|") as tar:
            times = [(one.name, one.mtime) for one in _put_all(tar, top) if one.isdir()]
            for name, mtime in reversed(times):
                with _parent(top, name) as (inner, entry), suppress(FileNotFoundError):
                    os.utime(entry, (mtime, mtime), dir_fd=inner, follow_symlinks=False)
    except tarfile.TarError as error:
        raise BadTree(f"not a tree of ours: {error}") from error


def put(folder: Path, name: str, content: bytes, owner: tuple[int, int]) -> bool:
    """Write one file that its owner may read; whether it could be: False where a link is in the
    way.
    """
    parts = name.split("/")[:-1]
    try:
        with opened(folder) as top:
            for depth in range(1, len(parts) + 1):
                with (
                    _parent(top, "/".join(parts[:depth])) as (inner, entry),
                    suppress(FileExistsError),
                ):
                    os.mkdir(entry, 0o755, dir_fd=inner)
            with _parent(top, name) as (inner, entry):
                _clear(inner, entry)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(entry, flags, 0o400, dir_fd=inner), "wb") as out:
                    os.fchown(out.fileno(), *owner)
                    out.write(content)
    except OSError:
        return False
    return True


def _put_all(tar: tarfile.TarFile, top: int) -> Iterator[tarfile.TarInfo]:
    for info in tar:
        with _parent(top, info.name) as (inner, entry):
            if info.islnk():
                _link(top, info, inner, entry)
            else:
                _put(tar, info, inner, entry)
        yield info


def _put(tar: tarfile.TarFile, info: tarfile.TarInfo, inner: int, entry: str) -> None:
    if info.isdir():
        _put_folder(info, inner, entry)
    elif info.ischr() and not (info.devmajor or info.devminor):
        _clear(inner, entry)
        return
    else:
        _clear(inner, entry)
        _make(tar, info, inner, entry)
    _dress(info, inner, entry)


def _make(tar: tarfile.TarFile, info: tarfile.TarInfo, inner: int, entry: str) -> None:
    if info.isreg():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(entry, flags, 0o600, dir_fd=inner), "wb") as out:
            content = tar.extractfile(info)
            if content is not None:
                shutil.copyfileobj(content, out, 2**20)
    elif info.issym():
        os.symlink(info.linkname, entry, dir_fd=inner)
    elif info.isfifo():
        os.mkfifo(entry, 0o600, dir_fd=inner)
    else:
        raise BadTree(f"{info.name}: device files are not carried")


def _put_folder(info: tarfile.TarInfo, inner: int, entry: str) -> None:
    there = _mode(inner, entry)
    if entry != "." and (not stat.S_ISDIR(there) or OPAQUE in info.pax_headers):
        _clear(inner, entry)
        os.mkdir(entry, 0o700, dir_fd=inner)


def _link(top: int, info: tarfile.TarInfo, inner: int, entry: str) -> None:
    with _parent(top, info.linkname) as (other, first):
        _clear(inner, entry)
        os.link(first, entry, src_dir_fd=other, dst_dir_fd=inner, follow_symlinks=False)


def _dress(info: tarfile.TarInfo, inner: int, entry: str) -> None:
    """Owner, attributes, mode, time: in this order, as a new owner takes attributes away."""
    os.chown(entry, info.uid, info.gid, dir_fd=inner, follow_symlinks=False)
    if not info.issym():
        held = os.open(entry, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inner)
        try:
            _dress_held(info, held)
        finally:
            os.close(held)
    os.utime(entry, (info.mtime, info.mtime), dir_fd=inner, follow_symlinks=False)


def _dress_held(info: tarfile.TarInfo, held: int) -> None:
    """By a descriptor: by its name, somebody may have put a link there by now."""
    if stat.S_ISLNK(os.fstat(held).st_mode):
        raise BadTree(f"{info.name}: somebody changes what is unpacked")
    path = f"/proc/self/fd/{held}"
    for name, value in info.pax_headers.items():
        if name.startswith(_XATTR):
            os.setxattr(path, name.removeprefix(_XATTR), bytes.fromhex(value))
    os.chmod(path, info.mode)  # noqa: PTH101 - the descriptor's, not a path's


def _clear(inner: int, entry: str) -> None:
    if entry == ".":
        raise BadTree("the top of a tree is a folder")
    if stat.S_ISDIR(_mode(inner, entry)):
        shutil.rmtree(entry, dir_fd=inner)
    else:
        with suppress(FileNotFoundError):
            os.unlink(entry, dir_fd=inner)


def _mode(inner: int, entry: str) -> int:
    try:
        return os.stat(entry, dir_fd=inner, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def _parent(top: int, name: str) -> Iterator[tuple[int, str]]:
    """The open folder a name is in, and its last part. Raises BadTree."""
    parts = name.split("/") if name != "." else ["."]
    if not name or "\0" in name or (parts != ["."] and {"", ".", ".."} & set(parts)):
        raise BadTree(f"a name that leads elsewhere: {name!r}")
    folder = os.dup(top)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, parts[-1]
    finally:
        os.close(folder)


def _head(name: str, seen: os.stat_result) -> tarfile.TarInfo:
    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    info = tarfile.TarInfo(name)
    kind = kinds.get(stat.S_IFMT(seen.st_mode))
    if kind is None:
        raise BadTree(f"{name}: device files are not carried")
    info.type, info.mode = kind, stat.S_IMODE(seen.st_mode)
    info.uid, info.gid, info.mtime = seen.st_uid, seen.st_gid, seen.st_mtime
    return info


def _xattrs(folder: int, entry: str) -> dict[str, str]:
    path = f"/proc/self/fd/{folder}/{entry}"
    with suppress(OSError):  # a file system without them
        names = os.listxattr(path, follow_symlinks=False)
        kept = [name for name in names if name.startswith(_KEPT_XATTRS)]
        return {
            f"{_XATTR}{name}": os.getxattr(path, name, follow_symlinks=False).hex() for name in kept
        }
    return {}
