"""
The calls to the operating system that `nvme` is made of, one method each.

Called by: `nvme`. Rule: nothing is decided here, so that a test may stand in its place: one that
records what would survive a loss of power, or one whose disk is full or broken.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Disk:
    """The real one. All raise OSError."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; new files are for us alone."""
        return os.open(path, flags, 0o600)

    def preallocate(self, fd: int, size: int) -> None:
        """Have room for so many bytes, or fail before any is written."""
        os.posix_fallocate(fd, 0, size)

    def write(self, fd: int, content: memoryview | mmap.mmap, offset: int) -> int:
        """How many bytes were written."""
        return os.pwrite(fd, content, offset)

    def read(self, fd: int, into: memoryview, offset: int) -> int:
        """How many bytes came."""
        return os.preadv(fd, [into], offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Have a file, or a folder's names, survive a loss of power."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Let go of it."""
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Replaces."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """A file."""
        path.unlink()

    def make_folder(self, path: Path) -> bool:
        """Whether it was not there."""
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return True
        return False

    def walk(self, folder: Path) -> Iterator[tuple[Path, int, float]]:
        """Regular files below: path, bytes, time of their last change. Links are not followed."""
        onerror: Callable[[OSError], None] = _raise
        for root, _, names in os.walk(folder, onerror=onerror):
            for name in names:
                path = Path(root, name)
                with suppress(FileNotFoundError):
                    found = path.lstat()
                    if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114
                        yield path, found.st_size, found.st_mtime


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
