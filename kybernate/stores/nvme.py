"""
Objects as files of a folder: written past the page cache, in parallel, into room that is
reserved first.

Called by: pipelines, in several processes at once. The folder holds the keys as paths, and
`drafts/` with what is being written.
Rule: a draft's bytes are synced, then it gets its name, then the folder's names are synced; when
`put` returns, a loss of power changes nothing. Rule: what is no object is never followed or read.
"""

import ctypes
import errno
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from kybernate.artifacts.chunks import Bytes
from kybernate.stores import disk as disks
from kybernate.stores import drafts, port
from kybernate.stores.disk import Disk
from kybernate.stores.errors import Absent, BadKey, Faulty, NoRoom
from kybernate.stores.pages import taken
from kybernate.stores.port import Listed

_DRAFTS = "drafts"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ALIGNED = 4096  # bytes: what every disk's logical blocks divide
_BLOCK = 4 * 1024 * 1024  # bytes of one request to the disk
_DEPTH = 8  # requests at once, of all objects together: enough for the flash behind one controller
_SMALL = 256 * 1024  # bytes: below, the page cache is as fast, and one write does it


class Nvme:
    """See `port.Store`."""

    def __init__(self, folder: Path, disk: Disk | None = None, *, direct: bool = True) -> None:
        """Make the folder where it is missing; what the dead were writing is thrown away.

        `direct`: past the page cache, where the file system can. Raises Faulty, NoRoom.
        """
        self._folder, self._disk = folder, disk or Disk()
        self._direct = os.O_DIRECT if direct else 0
        self._durable = {folder}  # folders whose names we saw to
        self._threads = ThreadPoolExecutor(_DEPTH, thread_name_prefix="nvme")
        with _told(str(folder)):
            for one in (folder, folder / _DRAFTS):
                if self._disk.make_folder(one):
                    self._sync_folder(one.parent)
            drafts.clear(folder / _DRAFTS)
            self._drafts = drafts.Own(folder / _DRAFTS)

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        target = self._path(key)
        draft = self._drafts.folder / uuid.uuid4().hex
        with _told(key):
            try:
                self._write(draft, memoryview(content).cast("B"))
                self._make_folders(target.parent)
                self._disk.rename(draft, target)
            except BaseException:
                with suppress(OSError):
                    self._disk.remove(draft)
                raise
            self._sync_folder(target.parent)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        path = self._path(key)
        with _told(key):
            fd = self._open(path, disks.READ)
            try:
                begin, end = port.cut(offset, size, os.fstat(fd).st_size)
                return self._read(fd, begin, end, into)
            finally:
                self._disk.close(fd)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        path = self._path(key)
        with _told(key):
            found = path.lstat()
            if not path.is_file() or path.is_symlink():
                raise Absent(key)
            return Listed(key=key, size=found.st_size, put_at=found.st_mtime)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        below = port.checked_prefix(prefix)
        with _told(below):
            for path, size, changed in self._disk.walk(self._folder / below):
                key = str(path.relative_to(self._folder))
                if not port.is_below(key, _DRAFTS):
                    yield Listed(key=key, size=size, put_at=changed)

    def delete(self, key: str) -> bool:
        """As the port says."""
        path = self._path(key)
        with _told(key):
            try:
                self._disk.remove(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            self._sync_folder(path.parent)
        return True

    def _path(self, key: str) -> Path:
        port.checked(key)
        if key == _DRAFTS or port.is_below(key, _DRAFTS):
            raise BadKey(f"{key!r} (drafts are not objects)")
        return self._folder / key

    def _write(self, path: Path, content: memoryview) -> None:
        fd = self._open(path, disks.WRITE, direct=len(content) > _SMALL)
        try:
            if len(content) > _SMALL:
                self._disk.preallocate(fd, _up(len(content)))
                aligned = _address(content) % _ALIGNED == 0
                blocks = range(0, len(content), _BLOCK)
                work = self._threads.map(lambda at: self._block(fd, content, at, aligned), blocks)
                for _ in work:
                    pass
                self._disk.truncate(fd, len(content))
            else:
                self._all(fd, content, 0)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)

    def _block(self, fd: int, content: memoryview, at: int, aligned: bool) -> None:
        """Write one. What the disk cannot take from where it stands is copied before."""
        part = content[at : at + _BLOCK]
        if aligned and len(part) % _ALIGNED == 0:
            self._all(fd, part, at)
            return
        bounce = taken(_up(len(part)))
        bounce[: len(part)] = part
        self._all(fd, bounce, at)

    def _all(self, fd: int, content: memoryview, at: int) -> None:
        done = 0
        while done < len(content):
            done += self._disk.write(fd, content[done:], at + done)

    def _read(self, fd: int, begin: int, end: int, into: memoryview | None) -> memoryview:
        """Whole blocks around what is asked for, in parallel."""
        first, last = begin // _ALIGNED * _ALIGNED, _up(end)
        if into is not None and len(into) >= last - first and _address(into) % _ALIGNED == 0:
            room = into[: last - first]
        else:
            room = taken(last - first)
        ats = range(0, last - first, _BLOCK)
        counts = list(
            self._threads.map(lambda at: self._fill(fd, room[at : at + _BLOCK], first + at), ats)
        )
        if sum(counts) < end - first:
            raise OSError(errno.EIO, "the file ended early")
        return room[begin - first : end - first]

    def _fill(self, fd: int, room: memoryview, at: int) -> int:
        done = 0
        while done < len(room):
            count = self._disk.read(fd, room[done:], at + done)
            done += count
            if not count or count % _ALIGNED:  # the end of the file
                break
        return done

    def _open(self, path: Path, flags: int, *, direct: bool = True) -> int:
        try:
            return self._disk.open(path, flags | (self._direct if direct else 0))
        except OSError as error:
            if error.errno != errno.EINVAL:  # what a file system says that knows no O_DIRECT
                raise
            with suppress(FileNotFoundError):
                if flags & os.O_CREAT:
                    self._disk.remove(path)
            return self._disk.open(path, flags)

    def _make_folders(self, folder: Path) -> None:
        """Each is durable in the one above before anything is put in it.

        One that somebody else has just made may not be: what counts is that we synced it.
        """
        missing = []
        while folder not in self._durable:
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            self._disk.make_folder(one)
            self._sync_folder(one.parent)
            self._durable.add(one)

    def _sync_folder(self, folder: Path) -> None:
        fd = self._disk.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)


def _up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _address(content: memoryview) -> int:
    """Where it stands in memory; 1 (never aligned) where it may not be asked."""
    if content.readonly or not len(content):
        return 1
    return ctypes.addressof(ctypes.c_char.from_buffer(content))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The disk's errors in our words."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Absent(what) from None
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(f"{what}: the disk is full") from error
        if error.errno == errno.ELOOP:
            raise Absent(f"{what} is a link") from None
        raise Faulty(f"{what}: {error.strerror or error}") from error
