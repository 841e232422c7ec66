"""
What stands in the way of an image, found while the workload runs: every process of the container's
tree, its files, its mappings, its mounts and namespaces.

Called by: `nodeagent.images.runc`.
Rule: nothing is stopped for it; a process that ends meanwhile is no matter.
Rule: it names what CRIU is known to refuse, so that nobody is frozen for nothing. What it does not
know of, the dump finds: then the workload goes on, and CRIU's sentence is the reason.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nodeagent.images import descriptors, rootfs
from nodeagent.images.body import CRIU_CONFIG, Body
from nodeagent.images.port import Unfit, Unfitness
from nodeagent.linux import processes

PROC = Path("/proc")
GHOST_MOST = 2**30  # bytes of a file without a name; also CRIU's limit (criu.py)
_ANON = re.compile(r"anon_inode:\[?([a-zA-Z0-9_-]+)")
_ANON_FINE = frozenset(
    {"eventpoll", "eventfd", "signalfd", "timerfd", "inotify", "pidfd", "fanotify"}
)
_ANON_REASONS = {
    "io_uring": Unfitness.IO_URING,
    "userfaultfd": Unfitness.USERFAULTFD,
    "perf_event": Unfitness.PERF_EVENT,
}
# Character devices by number: memory (null, zero, full, random, urandom), terminals.
_DEVICES_FINE = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
_CAP_SYS_RESOURCE = 24
_PTS = range(136, 144)  # their major numbers
_PROJECTED = re.compile(r"/\.\.[0-9_]+\.[0-9]+(/|$)")  # the folder behind a projected volume
_MOUNTS_FINE = frozenset(
    {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"}
)


@dataclass(frozen=True, slots=True)
class _Process:
    """One of the tree."""

    pid: int
    first: int  # the container's first one

    @property
    def folder(self) -> Path:
        return PROC / str(self.pid)

    def text(self, name: str) -> str:
        """Raises OSError."""
        return (self.folder / name).read_text(errors="replace")


Found = Iterator[tuple[Unfitness, str]]


def of(body: Body, plugin: bool) -> tuple[Unfit, ...]:
    """What is in the way. `plugin`: whether sockets to the outside can be closed (native/criu)."""
    first = _Process(body.pid, body.pid)
    found = list(of_tree(body.pid))
    _collect(found, first, _container(body))
    for pid, peer in () if plugin else descriptors.outside(processes.tree(body.pid)):
        one = (Unfitness.OUTSIDE_SOCKET, f"to process {peer}")
        _collect(found, _Process(pid, body.pid), iter([one]))
    return tuple(dict.fromkeys(found))


def of_tree(first: int) -> tuple[Unfit, ...]:
    """What is in the way in a process and all below it."""
    found: list[Unfit] = []
    may_look = may_look_at_others()
    for pid in processes.tree(first):
        process = _Process(pid, first)
        _collect(found, process, _process(process, may_look))
    return tuple(found)


def may_look_at_others() -> bool:
    """Whether we, and so CRIU, may read the limits of processes of other users."""
    own = _status(_Process(os.getpid(), os.getpid()))
    return bool(int(own.get("CapEff", "0"), 16) >> _CAP_SYS_RESOURCE & 1)


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped a process; also of one that its cgroup holds, too."""
    if processes.is_stopped(pid):
        return True
    with suppress(OSError):
        return (PROC / str(pid) / "wchan").read_text() == "do_signal_stop"
    return False


def _collect(into: list[Unfit], process: _Process, found: Found) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        command = process.text("comm").strip()
        for reason, detail in found:
            into.append(Unfit(pid=process.pid, command=command, reason=reason, detail=detail))


def _container(body: Body) -> Found:
    try:
        rootfs.reached(rootfs.upper(body.rootfs))
    except (rootfs.NoOverlay, OSError) as problem:
        yield Unfitness.ROOT_FILE_SYSTEM, str(problem)
    chosen = body.labels.get(CRIU_CONFIG, "")
    if chosen and not chosen.startswith(f"{body.bundle}/"):
        yield Unfitness.CRIU_OPTIONS, chosen
    if (body.runc_root / body.container_id / "exec.fifo").exists():
        yield Unfitness.NOT_BEGUN, ""
    config = body.config
    known = {str(one.get("destination")) for one in _list(config.get("mounts"))}
    for where, kind in _mounts(body.pid):
        if kind not in _MOUNTS_FINE and not any(_below(where, one) for one in known):
            yield Unfitness.MOUNT, f"{kind} at {where}"


def _process(process: _Process, may_look: bool) -> Found:
    status = _status(process)
    if status.get("TracerPid", "0") != "0":
        yield Unfitness.TRACED, f"by process {status['TracerPid']}"
    if not may_look and set(status.get("Uid", "0").split()) != {"0"}:
        yield Unfitness.OTHER_USER, f"user {status['Uid'].split()[0]}"
    if is_stopped(process.pid) and not is_stopped(process.first):
        yield Unfitness.STOPPED, ""
    yield from _namespaces(process)
    yield from _mappings(process)
    for entry in sorted(one.name for one in (process.folder / "fd").iterdir()):
        with suppress(FileNotFoundError):
            yield from _descriptor(process, entry)
    for name in ("cwd", "root"):
        yield from _path(str((process.folder / name).readlink()))


def _namespaces(process: _Process) -> Found:
    for kind in ("user", "pid", "cgroup", "ipc"):
        own = (process.folder / "ns" / kind).readlink()
        if own != (PROC / str(process.first) / "ns" / kind).readlink():
            yield Unfitness.NAMESPACE, f"its own {kind} namespace"


def _mappings(process: _Process) -> Found:
    said = set()
    for line in process.text("maps").splitlines():
        path = line.split(maxsplit=5)[5] if line.count(" ") >= 5 and len(line.split()) > 5 else ""
        if path.startswith("/SYSV"):
            said.add((Unfitness.SYSV_MEMORY, path))
        elif path.startswith("anon_inode:"):
            said.update(_anonymous(path))
        elif path.startswith("/dev/") and not path.startswith(("/dev/shm/", "/dev/zero")):  # noqa: S108
            said.add((Unfitness.DEVICE, f"{path}, mapped"))
    yield from sorted(said)


def _descriptor(process: _Process, entry: str) -> Found:
    path = process.folder / "fd" / entry
    target = str(path.readlink())
    if target.startswith("anon_inode:"):
        yield from _anonymous(target)
        return
    seen = path.stat()
    if stat.S_ISSOCK(seen.st_mode):
        why = descriptors.unsupported(process.pid, int(entry))
        if why:
            yield Unfitness.SOCKET, why
    elif stat.S_ISBLK(seen.st_mode) or (
        stat.S_ISCHR(seen.st_mode) and not _device_is_fine(seen.st_rdev)
    ):
        yield Unfitness.DEVICE, target
    elif stat.S_ISREG(seen.st_mode):
        if seen.st_nlink == 0 and seen.st_size > GHOST_MOST and not target.startswith("/memfd:"):
            yield Unfitness.DELETED_FILE, f"{target}, {seen.st_size / 2**30:.1f} GiB"
        yield from _path(target)


def _path(target: str) -> Found:
    if _PROJECTED.search(target):
        yield Unfitness.PROJECTED_FILE, target


def _anonymous(target: str) -> Found:
    found = _ANON.match(target)
    kind = found.group(1) if found else target
    if kind in _ANON_REASONS:
        yield _ANON_REASONS[kind], ""
    elif kind not in _ANON_FINE:
        yield Unfitness.KERNEL_OBJECT, kind


def _device_is_fine(number: int) -> bool:
    major, minor = os.major(number), os.minor(number)
    return (major, minor) in _DEVICES_FINE or major in _PTS


def _mounts(pid: int) -> Iterator[tuple[str, str]]:
    for line in (PROC / str(pid) / "mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        yield before.split(" ")[4], after.split(" ")[0]


def _below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def _status(process: _Process) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in process.text("status").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _list(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
