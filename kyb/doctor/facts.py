"""
What a node has, as values. Made by `node`, judged by `checks`.

Rule: what could not be seen is `Unknown` with the reason, never a default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not seen, and why, in words."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """By NVML. `memory` is bytes a card."""

    driver: str
    products: tuple[str, ...]
    memory: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criu:
    """`problem` is what `criu check` complains of; empty when it does not."""

    path: str
    version: str
    problem: str
    locks_network: bool
    """Whether it can keep packets away while it dumps connections: nftables or iptables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The file system that a folder is on, or would be on."""

    path: str
    kind: str
    size: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bytes a second, measured now: to the device, and from it."""

    into: float
    out_of: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """The runtime `kybernate` of containerd. `runs` is whether its program is there."""

    program: str
    runs: bool
    annotations: tuple[str, ...]
    systemd_cgroup: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """The one that runs. `of_others` is SystemdCgroup of its runtime runc."""

    version: str
    handler: Handler | None
    of_others: bool
    imports: tuple[str, ...]
    stale: bool
    """Whether a file of its configuration is newer than its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """The one that runs. `static_seats` are files of static pods that ask for seats."""

    version: str
    request_timeout: float
    static_seats: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConf:
    """kybernate-runc's file; `faults` are what it would refuse."""

    path: str
    agent_wait: float
    wake_wait: float
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """`version` is 1 where any controller that we need is on v1."""

    version: int
    freezer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """`transparent` is the kernel's choice, `reserved` bytes set aside for nobody else."""

    transparent: str
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStore:
    """The one that was named, after it was tried. `problem` and `keys_problem` are empty where all
    went well; `rates` is None where nothing was measured; `keys` are those that wrap and open."""

    place: str
    rates: Rates | None = None
    problem: str = ""
    mend: str = ""
    keys: int = 0
    keys_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """All of it."""

    gpus: Gpus | Unknown
    kernel: str
    kernel_config: Mapping[str, str] | Unknown
    criu: Criu | Unknown
    runc: str | Unknown
    memory: int
    pool: Folder | Unknown
    huge_pages: HugePages | Unknown
    bus: Rates | Unknown
    disk: Rates | Unknown
    disk_folder: str
    containerd: Containerd | Unknown
    kubelet: Kubelet | Unknown
    runtime_conf: RuntimeConf
    cgroups: Cgroups
    foreign_plugins: tuple[str, ...] | Unknown
    """Resources or sockets of device plugins that hand out the same GPUs."""
    store: ObjectStore | None = None
    """None: none was given."""
    notes: tuple[str, ...] = field(default=())
    """How it was looked, where that is not obvious."""
