"""
The cgroup of a container: v1, v2, and both at once.

Called by: processes (who belongs to a container), freezer. What the kernel says of a process is
understood by pure functions; `Cgroups` reads it.
Rule: a container's cgroup is the one that its runtime named after it (`<id>`, or
`cri-containerd-<id>.scope`). Any other may be somebody else's, too: to freeze it would freeze them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FREEZER = "freezer"
UNIFIED = ""  # the name that /proc/PID/cgroup has for v2
_TOP = PurePosixPath("/")
_SCOPE = ".scope"  # where systemd makes the cgroups


class NoCgroup(Exception):
    """There is none that could be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy, and what of it is shown at the mount."""

    mount: Path
    unified: bool
    controllers: frozenset[str] = frozenset()  # of v1
    root: PurePosixPath = _TOP

    @property
    def name(self) -> str:
        """As /proc/PID/cgroup calls it, as far as it can freeze; else something it never says."""
        if self.unified:
            return UNIFIED
        return FREEZER if FREEZER in self.controllers else "none"

    def folder(self, path: PurePosixPath) -> Path | None:
        """Where a cgroup is found; None where the mount does not show it."""
        if ".." in path.parts or not path.is_relative_to(self.root):
            return None
        return self.mount / path.relative_to(self.root)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One container's."""

    folder: Path
    unified: bool

    def processes(self) -> tuple[int, ...]:
        """Everybody in it and in those below, by number; nobody once it is gone."""
        folders = (Path(folder) for folder, _, _ in os.walk(self.folder))
        return tuple(sorted({pid for folder in folders for pid in _listed(folder)}))


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """Of the text of /proc/PID/mountinfo: one of each, the first, v1 before v2."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, root, mount, *_ = before.split()
            unified = kind == "cgroup2"
            of = frozenset[str]() if unified else frozenset(options.split(","))
            shown = Hierarchy(Path(mount), unified, of, PurePosixPath(root))
            found.setdefault(kind if unified else options, shown)
    return tuple(sorted(found.values(), key=lambda one: one.unified))


def memberships(text: str) -> Mapping[str, PurePosixPath]:
    """Of the text of /proc/PID/cgroup: the path by controller, that of v2 by the empty name."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = PurePosixPath(path)
    return found


def named_after(path: PurePosixPath, container_id: str) -> PurePosixPath | None:
    """The container's cgroup: this, or one above, where its processes moved on into their own."""
    for above in (path, *path.parents):
        name = above.name.removesuffix(_SCOPE)
        if container_id and (name == container_id or name.endswith(f"-{container_id}")):
            return above
    return None


def path_of(config: Mapping[str, object]) -> PurePosixPath | None:
    """Where a container's is to be, of its OCI configuration; None where that is runc's to choose.

    systemd's form is `slice:prefix:name`, and the folders of a slice are in its name.
    """
    linux = config.get("linux")
    path = str(linux.get("cgroupsPath") or "") if isinstance(linux, Mapping) else ""
    if ":" not in path:
        return PurePosixPath(path) if path.startswith("/") else None
    above, prefix, name = path.split(":", 2)
    words = above.removesuffix(".slice").split("-")
    slices = [f"{'-'.join(words[: n + 1])}.slice" for n in range(len(words))]
    unit = f"{prefix}-{name}{_SCOPE}" if prefix else f"{name}{_SCOPE}"
    return PurePosixPath("/", *slices, unit) if above else None


class Cgroups:
    """Those of this machine, as mounted when this was made."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._there = hierarchies((proc / "self/mountinfo").read_text())

    def of(self, pid: int, container_id: str) -> Cgroup:
        """The cgroup of a container, of which this is a process. Where both are mounted, v1's
        freezer comes first: it is the one that runtimes use then. Raises NoCgroup."""
        mine = self._memberships(pid)
        why = "neither v1's freezer nor v2 is mounted here"
        for hierarchy in self._there:
            if hierarchy.name not in mine:
                continue
            path = named_after(mine[hierarchy.name], container_id)
            folder = hierarchy.folder(path) if path is not None else None
            if folder is not None and folder.is_dir():
                return Cgroup(folder, hierarchy.unified)
            why = (
                f"it is in the cgroup {mine[hierarchy.name]}, which is not its own"
                if path is None
                else f"its cgroup {path} is not shown at {hierarchy.mount}"
            )
        raise NoCgroup(why)

    def names(self, pid: int) -> frozenset[str]:
        """Every name a cgroup of this process, or one above, could have from a container."""
        paths = set(self._memberships(pid).values())
        parts = {part.removesuffix(_SCOPE) for path in paths for part in path.parts}
        return frozenset(parts | {part.rpartition("-")[2] for part in parts})

    def _memberships(self, pid: int) -> Mapping[str, PurePosixPath]:
        try:
            return memberships((self._proc / str(pid) / "cgroup").read_text())
        except OSError:
            return {}


def _listed(folder: Path) -> tuple[int, ...]:
    try:
        return tuple(int(line) for line in (folder / "cgroup.procs").read_text().split())
    except OSError:
        return ()
