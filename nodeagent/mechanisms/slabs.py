"""
The pool's files for contents that a card copies by itself: 1 GiB each, each on one NUMA node.

Called by `chunks`, which knows what is in them. They stand in the pool's file system and outlive
the agent, as long as the machine runs: their journal names the boot they belong to. After another
one, or where another version laid them out, they are made anew.
Rule: a slab is made whole or not at all, so that writing into it never fails for want of room.
"""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from nodeagent.disk.durable import seal
from nodeagent.disk.pool import NoRoom
from nodeagent.linux import processes

SLAB = 2**30
ANYWHERE = -1  # no NUMA node is nearer than another
_VERSION = 1
_JOURNAL = "slabs.json"
_NAME = re.compile(r"(\d{6})@(-?\d+)")
_SET_MEMPOLICY, _PREFERRED, _DEFAULT = 238, 1, 0  # of x86-64
_NODES = 64


@dataclass(frozen=True, slots=True, order=True)
class Slab:
    """One of them. `node` is the NUMA node its memory was asked of."""

    number: int
    node: int
    path: Path


class Slabs:
    """Slabs below `folder`. Not thread safe: `chunks` sees to that. Sizes in bytes."""

    def __init__(self, folder: Path, size: int = SLAB, boot: str = "") -> None:
        """`boot` is this machine's by default. Raises OSError."""
        self.folder, self.size = folder, size
        self._journal = orjson.dumps(
            {"version": _VERSION, "size": size, "boot": boot or processes.boot_id()}
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_ours():
            self._begin_anew()

    def all(self) -> tuple[Slab, ...]:
        """Every slab there is, by number."""
        return tuple(sorted(self._found()))

    def make(self, number: int, node: int) -> Slab:
        """One more, near to a NUMA node where that has room. Raises NoRoom."""
        slab = Slab(number, node, self.folder / f"{number:06}@{node}")
        file = os.open(slab.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with _near(node):
                os.posix_fallocate(file, 0, self.size)
        except OSError as error:
            slab.path.unlink()
            raise NoRoom(f"the pool's file system has no room for a slab: {error}") from error
        finally:
            os.close(file)
        return slab

    def _found(self) -> Iterator[Slab]:
        for path in self.folder.iterdir():
            if (name := _NAME.fullmatch(path.name)) is not None:
                if path.stat().st_size == self.size:
                    yield Slab(int(name[1]), int(name[2]), path)
                else:
                    path.unlink()  # an agent died while it made it

    def _is_ours(self) -> bool:
        try:
            return (self.folder / _JOURNAL).read_bytes() == self._journal
        except OSError:
            return False

    def _begin_anew(self) -> None:
        for path in self.folder.iterdir():
            if path.is_file():
                path.unlink()
        seal(self.folder / _JOURNAL, self._journal)


@contextmanager
def _near(node: int) -> Iterator[None]:
    """Memory this thread takes meanwhile is the NUMA node's, where the kernel lets us choose."""
    if not 0 <= node < _NODES or platform.machine() != "x86_64":
        yield
        return
    libc = ctypes.CDLL(None)
    mask = ctypes.c_ulong(1 << node)
    libc.syscall(_SET_MEMPOLICY, _PREFERRED, ctypes.byref(mask), ctypes.c_ulong(_NODES + 1))
    try:
        yield
    finally:
        with suppress(OSError):
            libc.syscall(_SET_MEMPOLICY, _DEFAULT, None, ctypes.c_ulong(0))
