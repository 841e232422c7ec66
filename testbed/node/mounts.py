"""
What a node sees instead of the machine's own folders and kernel settings.

Called by: `testbed.node.inside`, in the node's mount namespace and before anything else runs there.
Rule: the machine's folders are not touched, not even by making a mount point: where the node needs
a folder of its own, its parent is replaced by one that shows everything else that was in there.
Rule: kernel settings that the kubelet would change for the whole machine are covered by files.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from testbed.node import kernel

KUBELET = Path("/var/lib/kubelet")
PODS = Path("/var/log/pods")
PRIVATE: Mapping[Path, tuple[str, ...]] = {
    Path("/run"): ("containerd", "netns", "nri", "kubernetes", "cni"),
    Path("/var/lib"): ("kubelet", "containerd", "cni"),
    Path("/var/log"): ("pods", "containers"),
}
"""Folders of which the node has its own, by parent; they start empty."""
KEPT: Mapping[Path, str] = {KUBELET: "kubelet", PODS: "pods"}
"""Those that are in the node's work folder, under these names, and so outlive a stop."""

# What the kubelet wants (k8s.io/kubernetes/pkg/util/sysctl), in one file each, so that it has
# nothing to set. boot_id makes a node that is started again one that has been rebooted.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SETTINGS: Mapping[Path, str] = {
    Path("/proc/sys/vm/overcommit_memory"): "1",
    Path("/proc/sys/vm/panic_on_oom"): "0",
    Path("/proc/sys/kernel/panic"): "10",
    Path("/proc/sys/kernel/panic_on_oops"): "1",
    Path("/proc/sys/kernel/keys/root_maxkeys"): "1000000",
    Path("/proc/sys/kernel/keys/root_maxbytes"): "25000000",
}


def establish(work: Path, boot_id: str) -> None:
    """Make this mount namespace the node's. Raises OSError."""
    opened = os.open(work, os.O_PATH)
    kernel.mount("proc", "/proc", "proc")
    for parent, names in PRIVATE.items():
        own(parent, names)
    _find_again(work, opened)
    for folder, name in KEPT.items():
        (work / name).mkdir(exist_ok=True)
        kernel.mount(str(work / name), str(folder), flags=kernel.BIND)
    _cover({**SETTINGS, BOOT_ID: boot_id}, work / "settings")
    # As on a node with systemd: containers may ask for mounts that appear later.
    kernel.mount("none", "/", flags=kernel.SHARED | kernel.RECURSIVE)


def own(parent: Path, names: tuple[str, ...]) -> None:
    """Empty folders of the node's own in a folder of the machine. Raises OSError."""
    _replace(parent, hidden=names)
    for name in names:
        (parent / name).mkdir()


def _replace(folder: Path, hidden: tuple[str, ...]) -> None:
    """A folder in memory that shows what was in `folder`, but for what is hidden."""
    folder = folder.resolve()
    before = Path(f"/proc/self/fd/{os.open(folder, os.O_PATH)}")
    kernel.mount("tmpfs", str(folder), "tmpfs")
    folder.chmod(0o755)
    for entry in before.iterdir():
        if entry.name not in hidden:
            _show(entry, folder / entry.name)


def _show(entry: Path, at: Path) -> None:
    if entry.is_symlink():
        at.symlink_to(entry.readlink())
        return
    if entry.is_dir():
        at.mkdir()
    else:
        at.touch()
    kernel.mount(str(entry), str(at), flags=kernel.BIND | kernel.RECURSIVE)


def _find_again(work: Path, opened: int) -> None:
    """A work folder may be below one that was replaced."""
    if not work.exists():
        work.mkdir(parents=True)
        kernel.mount(f"/proc/self/fd/{opened}", str(work), flags=kernel.BIND)
    os.close(opened)


def _cover(settings: Mapping[Path, str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file, text in settings.items():
        if file.exists():
            cover = folder / file.name
            cover.write_text(f"{text}\n")
            kernel.mount(str(cover), str(file), flags=kernel.BIND)
