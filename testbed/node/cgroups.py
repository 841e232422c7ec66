"""
The cgroups of a node: a tree of its own in every hierarchy, made before it starts, gone after.

Called by: `testbed.node.keeper` (makes and removes), `testbed.node.enter` (joins), the node.
Rule: works on v1, on v2, and on both at once (hybrid), with the mounts that are there.
Rule: what was enabled at the top of v2 for the node is disabled again with the last one.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DAEMONS = "daemons"
"""The child for kubelet, containerd and its shims; v2 allows no processes in inner cgroups."""
_LOOK_EVERY_S = 0.02
_CPUSET = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    mount: Path
    unified: bool
    """Whether it is cgroup v2."""
    root: str = "/"
    """What of the hierarchy is shown at the mount; "/" but in containers that hide the rest."""

    @property
    def controllers(self) -> set[str]:
        """Those of v2 that can be given to children."""
        return set((self.mount / "cgroup.controllers").read_text().split())

    @property
    def enabled(self) -> set[str]:
        """Those of v2 that children of the top have."""
        return set((self.mount / "cgroup.subtree_control").read_text().split())


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """Of this machine; `mountinfo` is the text of /proc/self/mountinfo. One of each, the first."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, root, mount, *_ = before.split()
            unified = kind == "cgroup2"
            found.setdefault(kind if unified else options, Hierarchy(Path(mount), unified, root))
    return list(found.values())


def here() -> list[Hierarchy]:
    """The hierarchies mounted where the caller is."""
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def create(name: str, among: list[Hierarchy]) -> dict[str, list[str]]:
    """Make `name` and its daemons' child everywhere.

    Answers which v2 controllers had to be enabled at the top, by mount.
    """
    enabled = {}
    for hierarchy in among:
        if hierarchy.unified:
            enabled[str(hierarchy.mount)] = _enable(hierarchy)
        for folder in (hierarchy.mount / name, hierarchy.mount / name / DAEMONS):
            folder.mkdir(exist_ok=True)
            if not hierarchy.unified:
                _fill_cpuset(folder)
    return enabled


def join(name: str, among: list[Hierarchy]) -> None:
    """Move this process, with its future children, to the daemons of this node."""
    for hierarchy in among:
        (hierarchy.mount / name / DAEMONS / "cgroup.procs").write_text("0")


def thaw(name: str, among: list[Hierarchy]) -> None:
    """Thaw whatever is frozen: on v1 a frozen process does not even die."""
    for hierarchy in among:
        for folder in _tree(hierarchy.mount / name):
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (folder / file).exists():
                    _write(folder / file, word)


def remove(name: str, among: list[Hierarchy], within: float) -> list[Path]:
    """Kill what is left in them and remove them, innermost first; those that would not go.

    Called for cgroups that are not there, it does nothing.
    """
    deadline = time.monotonic() + within
    while True:
        left = [path for one in among for path in _tree(one.mount / name) if not _rmdir(path)]
        if not left or time.monotonic() > deadline:
            return left
        thaw(name, among)
        for folder in left:
            _kill(folder)
        time.sleep(_LOOK_EVERY_S)


def disable(enabled: dict[str, list[str]]) -> None:
    """Undo what `create` answered, as far as nobody else needs it."""
    for mount, controllers in enabled.items():
        for controller in controllers:
            _write(Path(mount) / "cgroup.subtree_control", f"-{controller}")


def _enable(hierarchy: Hierarchy) -> list[str]:
    """One by one: a controller that somebody's processes do not allow is the kubelet's to judge."""
    before = hierarchy.enabled
    for controller in sorted(hierarchy.controllers - before):
        _write(hierarchy.mount / "cgroup.subtree_control", f"+{controller}")
    return sorted(hierarchy.enabled - before)


def _fill_cpuset(folder: Path) -> None:
    """A cpuset of v1 starts empty, and then takes no process."""
    for file in _CPUSET:
        if (folder / file).exists() and not (folder / file).read_text().strip():
            (folder / file).write_text((folder.parent / file).read_text())


def _tree(folder: Path) -> Iterator[Path]:
    """The folder and those below, innermost first; those that vanish meanwhile are passed over."""
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(folder: Path) -> None:
    try:
        pids = (folder / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


def _write(file: Path, text: str) -> None:
    """Best effort: the cgroup may be gone by now, or still be in use by somebody else."""
    try:
        file.write_text(text)
    except OSError:
        return
