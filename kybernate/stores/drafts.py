"""
Where a process keeps what it is writing into a folder, until that has its name.

Called by: `nvme`. Each who opens a store has a folder of its own in `drafts/`, and a lock on it as
long as it lives. Rule: what lies in a folder that nobody has locked is of the dead, and goes; what
another process is writing stays.
"""

import fcntl
import os
import shutil
import uuid
import weakref
from contextlib import suppress
from pathlib import Path


class Own:
    """A folder of our own, locked until this is dropped or the process ends, however that does."""

    def __init__(self, drafts: Path) -> None:
        """Raises OSError."""
        while True:
            self.folder = drafts / uuid.uuid4().hex
            self.folder.mkdir(mode=0o700)
            fd = _locked(self.folder)
            if fd is not None and _is_still(fd, self.folder):
                break
            if fd is not None:  # somebody took us for dead before we had the lock
                os.close(fd)
        weakref.finalize(self, _leave, fd, self.folder)


def clear(drafts: Path) -> None:
    """Away with what the dead were writing. Raises OSError."""
    for one in list(drafts.iterdir()):
        if not one.is_dir() or one.is_symlink():
            one.unlink(missing_ok=True)  # of a version that had no folders of its own
            continue
        fd = _locked(one)
        if fd is not None:
            shutil.rmtree(one, ignore_errors=True)
            os.close(fd)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock; None where another has it, or the folder is gone."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _is_still(fd: int, folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), folder.stat())
    return False


def _leave(fd: int, folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
    os.close(fd)
