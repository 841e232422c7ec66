"""
The facts of this machine: the one place that looks. What it cannot see is `Unknown` with a reason.

Called by: `command`.
Rule: every part is looked at whatever became of the others.
"""

import gzip
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kyb.doctor import containerd, host, kubelet, objectstore, rates, runtimeconf
from kyb.doctor.facts import (
    Cgroups,
    Containerd,
    Criu,
    Folder,
    Gpus,
    HugePages,
    NodeFacts,
    ObjectStore,
    Rates,
    Unknown,
)
from kyb.doctor.host import Host
from kybernate.clients.gpus import InventoryAway
from kybernate.clients.gpus.nvml import NvmlGpus

DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"
_CHECKPOINT = "kubelet_internal_checkpoint"
_FOREIGN = "nvidia"
_MEASURED_WITH = 2 << 30  # bytes of a card that have to be free for a measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked at. `measure` may take some seconds; without it, rates are Unknown. `store` is
    the object store's place (empty: none), `wrapping` the folder of its keys."""

    pool: str = "/dev/shm/kyb"  # noqa: S108 - where the manifests put it
    disk: str = "/var/lib/kyb"
    measure: bool = True
    store: str = ""
    wrapping: Path | None = None


def facts(node: Host, look: Look) -> NodeFacts:
    """All of it; some seconds."""
    gpus, room = _gpus()
    running, seen = _containerd(node)
    root, path = _of_containerd(node, running)
    conf_path = _conf_path(running)
    conf = _text(node, conf_path)
    disk = _existing(node.at(look.disk))
    return NodeFacts(
        gpus=gpus,
        kernel=os.uname().release,
        kernel_config=_kernel_config(node),
        criu=_criu(root, path),
        runc=_runc(root, path, runtimeconf.value_of(conf, "runc")),
        memory=_meminfo(node)["MemTotal"],
        pool=_folder(_existing(node.at(look.pool)), look.pool),
        huge_pages=_huge_pages(node),
        bus=_bus(gpus, room, look.measure),
        disk=rates.disk(disk) if look.measure else Unknown("not asked to"),
        disk_folder=look.disk,
        containerd=seen,
        kubelet=kubelet.facts(node),
        runtime_conf=runtimeconf.read(conf, conf_path),
        cgroups=_cgroups(node),
        foreign_plugins=_foreign_plugins(node),
        store=_store(look),
    )


def _store(look: Look) -> ObjectStore | None:
    if not look.store:
        return None
    return objectstore.tried(look.store, look.wrapping, os.environ, measure=look.measure)


def _gpus() -> tuple[Gpus | Unknown, int]:
    """The cards, and the bytes that are free on the fullest one."""
    try:
        inventory = NvmlGpus()
    except InventoryAway as away:
        return Unknown(str(away)), 0
    try:
        cards, used = inventory.gpus(), inventory.usage()
        gpus = Gpus(
            driver=inventory.driver(),
            products=tuple(card.product for card in cards),
            memory=tuple(card.memory for card in cards),
        )
        return gpus, min((card.memory - used[card.uuid] for card in cards), default=0)
    except InventoryAway as away:
        return Unknown(str(away)), 0
    finally:
        inventory.close()


def _bus(gpus: Gpus | Unknown, room: int, measure: bool) -> Rates | Unknown:
    if isinstance(gpus, Unknown):
        return Unknown("there is no GPU")
    if not measure:
        return Unknown("not asked to")
    if room < _MEASURED_WITH:
        return Unknown(f"a card has less than {_MEASURED_WITH >> 30} GiB free: somebody is active")
    return rates.bus(len(gpus.memory))


def _kernel_config(node: Host) -> Mapping[str, str] | Unknown:
    release = os.uname().release
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with suppress(OSError, gzip.BadGzipFile):
            raw = node.at(path).read_bytes()
            text = (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
            return dict(re.findall(r"^CONFIG_(\w+)=(\S+)", text, re.MULTILINE))
    return Unknown("the kernel does not tell how it was built")


def _containerd(node: Host) -> tuple[containerd.Running | Unknown, Containerd | Unknown]:
    """The process, and what is to be known of it."""
    try:
        running = containerd.find(node)
    except containerd.NotSeen as reason:
        return Unknown(str(reason)), Unknown(str(reason))
    try:
        return running, containerd.facts(running)
    except containerd.NotSeen as reason:
        return running, Unknown(str(reason))


def _of_containerd(node: Host, running: containerd.Running | Unknown) -> tuple[Path, str]:
    """Where it and the runc under it find their programs."""
    if isinstance(running, Unknown):
        return node.root, ""
    with suppress(OSError):
        return running.process.root, running.process.environment.get("PATH", "")
    return running.process.root, ""


def _conf_path(running: containerd.Running | Unknown) -> str:
    """containerd's environment may name another file than the usual one."""
    if not isinstance(running, Unknown):
        with suppress(OSError):
            return running.process.environment.get(runtimeconf.VARIABLE, runtimeconf.PATH)
    return runtimeconf.PATH


def _criu(root: Path, path: str) -> Criu | Unknown:
    program = host.which(root, "criu", path)
    if not program:
        return Unknown(f"no criu on {path or 'the PATH'}")
    try:
        said, _ = host.run(root, [program, "--version"], path)
    except host.CommandFailed as problem:
        return Unknown(f"{program}: {problem}")
    found = re.search(r"Version: (\S+)", said)
    return Criu(
        path=program,
        version=found.group(1) if found else "",
        problem=_complaint(root, [program, "check"], path),
        locks_network=not _complaint(
            root, [program, "check", "--feature", "network_lock_nftables"], path
        )
        or bool(host.which(root, "iptables-restore", path)),
    )


def _complaint(root: Path, argv: list[str], path: str) -> str:
    try:
        host.run(root, argv, path)
    except host.CommandFailed as problem:
        return str(problem)
    return ""


def _runc(root: Path, path: str, named: str) -> str | Unknown:
    program = named or host.which(root, "runc", path)
    if not program:
        return Unknown(f"no runc on {path or 'the PATH'}")
    try:
        said, _ = host.run(root, [program, "--version"], path)
    except host.CommandFailed as problem:
        return Unknown(f"{program}: {problem}")
    found = re.search(r"runc version (\S+)", said)
    return found.group(1) if found else Unknown(f"{program} does not say its version")


def _meminfo(node: Host) -> Mapping[str, int]:
    """Bytes, or counts where no unit is given."""
    found = re.findall(r"^(\w+):\s+(\d+)( kB)?", node.text("/proc/meminfo"), re.MULTILINE)
    return {name: int(amount) * (1024 if unit else 1) for name, amount, unit in found}


def _huge_pages(node: Host) -> HugePages | Unknown:
    try:
        shown = node.text("/sys/kernel/mm/transparent_hugepage/enabled")
    except OSError as problem:
        return Unknown(f"not told: {problem.strerror}")
    chosen = re.search(r"\[(\w+)\]", shown)
    reserved = 0
    for folder in node.at("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        with suppress(OSError, ValueError):
            size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) << 10
            reserved += size * int((folder / "nr_hugepages").read_text())
    return HugePages(transparent=chosen.group(1) if chosen else "?", reserved=reserved)


def _folder(path: Path, named: str) -> Folder | Unknown:
    """The file system that a folder is on, by the longest mount point above it."""
    try:
        room = os.statvfs(path)
        number = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError as problem:
        return Unknown(f"{named}: {problem.strerror}")
    device = f"{os.major(number)}:{os.minor(number)}"
    kinds = [line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == device]
    kind = kinds[-1] if kinds else _kind_by_magic(path)
    blocks = room.f_frsize
    return Folder(path=named, kind=kind, size=room.f_blocks * blocks, free=room.f_bavail * blocks)


def _kind_by_magic(path: Path) -> str:
    """Of a file system that is mounted elsewhere only."""
    try:
        said, _ = host.run(Path("/"), ["stat", "-f", "-c", "%T", str(path)])
    except host.CommandFailed:
        return "unknown"
    return said.strip()


def _existing(path: Path) -> Path:
    """The nearest folder above it that is there."""
    while not path.is_dir():
        path = path.parent
    return path


def _cgroups(node: Host) -> Cgroups:
    """v2 where the unified hierarchy is the only one."""
    top = node.at("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        inner = (folder for folder in top.iterdir() if folder.is_dir())
        return Cgroups(version=2, freezer=_any_freezes(inner))
    return Cgroups(version=1, freezer=(top / "freezer").is_dir())


def _any_freezes(folders: Iterable[Path]) -> bool:
    """The root of the hierarchy has no such file, every group below has."""
    return any((folder / "cgroup.freeze").exists() for folder in folders)


def _foreign_plugins(node: Host) -> tuple[str, ...] | Unknown:
    """What the kubelet has registered, and sockets of those that are about to."""
    folder = node.at(DEVICE_PLUGINS)
    try:
        sockets = [path.name for path in folder.iterdir() if path.name.startswith(_FOREIGN)]
    except OSError as problem:
        return Unknown(f"{DEVICE_PLUGINS}: {problem.strerror}")
    registered: Mapping[str, object] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        body = json.loads((folder / _CHECKPOINT).read_text())
        registered = body["Data"]["RegisteredDevices"] or {}
    own = [name for name, ids in registered.items() if name.startswith(_FOREIGN) and ids]
    return tuple(sorted({*sockets, *own}))


def _text(node: Host, path: str) -> str:
    """Empty where it is not there."""
    with suppress(OSError):
        return node.text(path)
    return ""
