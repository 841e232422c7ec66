"""
The versions and sizes that are wanted, in one place; docs/how-to/prepare-a-node.md shows the same.

Rule: `tried` is what tests or measurements ran on; `oldest` is what is known to be needed.
"""

from dataclasses import dataclass

MB, GB = 10**6, 10**9
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Supported:
    """One component. `oldest` may be empty: then only what was tried is known."""

    name: str
    oldest: str
    tried: str
    why: str


# The ladder of the driver: 570 tells a checkpoint's state, 580 restores onto another card.
DRIVER = Supported("NVIDIA driver", "570", "580.159", "checkpoints of processes")
KUBERNETES = Supported("Kubernetes", "1.32", "1.36.2", "node names in ServiceAccount tokens")
# 1.x cannot be asked for its cgroup driver, which the kubelet needs from 1.37 on.
CONTAINERD = Supported("containerd", "2.2", "2.3.4", "Kubernetes 1.36, drop-in files")
RUNC = Supported("runc", "1.1", "1.1.5", "checkpoint and restore")
CRIU = Supported("CRIU", "4.2", "4.2.1", "older ones fail on the vdso of Linux 6.18")
# clone3 with a chosen pid is 5.5, cgroup v2's freezer 5.2; 5.15 is the oldest anybody tells of.
KERNEL = Supported("Linux", "5.15", "6.18", "CRIU, the cgroup freezer")

ALL = (KUBERNETES, CONTAINERD, RUNC, CRIU, KERNEL, DRIVER)

BEST_DRIVER = "580"
BUS_RATE = 25 * GB
DISK_RATE = 3 * GB
RAM_PER_VRAM = 2
KUBELET_REQUEST_TIMEOUT_S = 120.0
"""The kubelet's own default of runtimeRequestTimeout."""

KERNEL_NEEDED = (
    "CHECKPOINT_RESTORE", "NAMESPACES", "UTS_NS", "IPC_NS", "PID_NS", "NET_NS", "FHANDLE",
    "EVENTFD", "EPOLL", "INOTIFY_USER", "UNIX_DIAG", "INET_DIAG", "PACKET_DIAG", "NETLINK_DIAG",
    "TMPFS",
)  # fmt: skip
"""What CRIU asks a kernel for, and sock_diag, by which connections to parked pods are seen."""


def version(text: str) -> tuple[int, ...]:
    """The leading numbers: `v2.3.4-rc.1` is (2, 3, 4); empty where there are none."""
    numbers: list[int] = []
    for part in text.strip().removeprefix("v").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def at_least(found: str, wanted: str) -> bool:
    """Whether a version is not older."""
    return version(found) >= version(wanted)
