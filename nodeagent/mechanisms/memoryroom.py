"""
How much host memory a container may still take: what the driver puts there is charged to it.

Called by `driver` and `deep`. Reads the kernel's files only; every cgroup above counts, too.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nodeagent.linux.cgroups import UNIFIED, Hierarchy, hierarchies, memberships
from nodeagent.linux.processes import PROC

_MEMORY = "memory"
_NO_LIMIT = 2**60  # v1 says a number of pages that no machine has


@dataclass(frozen=True, slots=True)
class _Files:
    limit: str
    used: str
    cache: str  # the line of memory.stat that could be given back at once


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def room(pid: int, proc: Path = PROC) -> int | None:
    """Bytes until the nearest limit of a process's cgroups; None where there is none.

    Raises OSError where the process is gone.
    """
    mine = memberships((proc / str(pid) / "cgroup").read_text())
    found: list[int] = []
    for hierarchy in hierarchies((proc / "self" / "mountinfo").read_text()):
        name = UNIFIED if hierarchy.unified else _MEMORY
        if (hierarchy.unified or _MEMORY in hierarchy.controllers) and name in mine:
            folder = hierarchy.folder(mine[name])
            found.extend(_rooms(hierarchy, folder) if folder is not None else ())
    return min(found, default=None)


def _rooms(hierarchy: Hierarchy, folder: Path) -> Iterator[int]:
    files = _V2 if hierarchy.unified else _V1
    for one in (folder, *folder.parents):
        with suppress(OSError, ValueError):
            limit = int((one / files.limit).read_text())  # "max" is no number
            if limit < _NO_LIMIT:
                yield max(0, limit - int((one / files.used).read_text()) + _cache(one, files))
        if one == hierarchy.mount:
            return


def _cache(folder: Path, files: _Files) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, size = line.partition(" ")
        if name == files.cache:
            return int(size)
    return 0
