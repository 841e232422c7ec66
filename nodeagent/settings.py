"""Settings of the node agent; how they are given is in `kybernate/runtime/settings.py`."""

from dataclasses import dataclass
from pathlib import Path

from kybernate.clients.gpus.choosing import InventorySource
from kybernate.runtime.settings import ProcessSettings, setting

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """Decides on its node who holds VRAM, and moves contents in and out."""

    node: str = setting(help="the Node's name; in a DaemonSet spec.nodeName")
    profiles: Path = setting(help="the node's profile file: which seats its GPUs have")
    inventory: InventorySource = setting(
        InventorySource.NVML,
        help="where the GPUs come from: the driver, the profile file's own "
        "list, or the simulated device",
    )
    simulated_gpu: Path | None = setting(None, help="socket of the simulated device")
    opa_url: str = setting(
        "http://127.0.0.1:8181", help="the OPA on this node; while it is away nobody is preempted"
    )
    state_dir: Path = setting(
        Path("/var/lib/kyb"), help="folder for the journal; it has to outlive the agent"
    )
    pool_dir: Path | None = setting(
        None,
        help="folder of a host-mounted tmpfs for parked contents; it has to outlive the agent. "
        "Without it: pool/ in the state folder",
    )
    pool_limit: int = setting(
        64 * GIB,
        unit="bytes",
        help="VRAM contents kept in host memory; the agent's memory request has to be as much",
    )
    nvme_dir: Path | None = setting(
        None,
        help="folder on a fast disk for parked contents that leave host memory, encrypted. Without "
        "it: parked/ in the state folder",
    )
    nvme_limit: int = setting(
        256 * GIB,
        unit="bytes",
        help="VRAM contents kept there; 0: none leave host memory",
    )
    nvme_keep_free: float = setting(
        15.0,
        unit="percent",
        help="of that disk, left to others: below 10 the kubelet evicts pods where it is its own",
    )
    object_limit: int = setting(
        1024 * GIB,
        unit="bytes",
        help="VRAM contents of parked workloads kept in --checkpoint-store, encrypted, once they "
        "leave NVMe; 0: none do. Without a store none do either",
    )
    pool_pressing: bool = setting(
        True,
        help="make what the pool holds of real GPUs smaller, on the card, while nothing moves: "
        "bf16 weights by a third",
    )
    socket: Path = setting(
        Path("/run/kyb/agent.sock"), help="where runtime, guests and device plugin reach us"
    )
    guest_socket: Path | None = setting(
        None,
        help="where workloads with libkybguest.so preloaded reach us (their KYB_GUEST_SOCKET); "
        "without it nothing on a real GPU is parked",
    )
    listen: str = setting(
        ":8443", unit="address", help="where the cluster reaches us; served with --tls-dir only"
    )
    advertise: str = setting(
        "",
        help="HOST:PORT written into our GpuNode, where kyb and the controller find us; in a "
        "DaemonSet the pod's address",
    )
    podresources_socket: Path = setting(
        Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        help="the kubelet's PodResources: which seat it gave to which pod",
    )
    client_tls_dir: Path | None = setting(
        None, help="the certificate agents call each other with, to fetch checkpoints"
    )
    registry: tuple[str, ...] = setting(
        (),
        help="HOST:PORT of the registry, which is told of the checkpoints on this node (needs "
        "--client-tls-dir); several must be IPv4 addresses. Without it nobody is told",
    )
    checkpoint_dir: Path | None = setting(
        None,
        help="folder for checkpoints, on a fast disk; it has to outlive the agent. Without it: "
        "checkpoints/ in the state folder",
    )
    image_dir: Path | None = setting(
        None,
        help="folder of a host-mounted tmpfs, at the path it has on the host, for the memory of "
        "processes between CRIU and their sealed checkpoints; used where it has the room. Without "
        "it: plain/ in the folder for checkpoints, where it is removed as soon as it is sealed or "
        "restored",
    )
    criu_plugins: Path | None = setting(
        None,
        help="folder of the CRIU plugin that closes unix sockets to outside a container; without "
        "it no checkpoint is made of a workload that has one",
    )
    checkpoint_limit: int = setting(
        512 * GIB,
        unit="bytes",
        help="checkpoints kept on this node; the disk's own room counts too, less 1 GiB",
    )
    checkpoint_keys: Path | None = setting(
        None,
        help="folder with signing.key and trusted.pem, which make checkpoints believed, and "
        "wrapping.key and older *.key, 32 bytes each in base64, which open the keys of what is "
        "sealed. Without it this node makes keys of its own, and its checkpoints wake only here",
    )
    checkpoint_store: str = setting(
        "",
        help="where checkpoints are demoted to and fetched from when no node has them: "
        "s3://BUCKET/PREFIX (who we are there: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL, AWS_REGION), or a folder that all nodes share. The same for all agents "
        "of a cluster. Without it nothing is demoted",
    )
    checkpoint_wrapping_keys: Path | None = setting(
        None,
        help="folder with wrapping.key and older *.key, in place of those in --checkpoint-keys, "
        "which still open",
    )
    runtime_root: Path = setting(
        Path("/run/containerd/runc/k8s.io"),
        help="runc's folder of the node's containers, where kybernate-runc marks those on seats",
    )
    switch_seconds: float = setting(
        10.0,
        unit="seconds",
        help="how long a switch may take, for the bound on waiting: (waiting seats) x (slice + "
        "this). 80 GiB each way over PCIe 5 take 3",
    )
    wake_on_connect: bool = setting(
        True, help="a parked workload is wanted when somebody connects to it or writes to it"
    )
    drain_limit: float = setting(
        30.0,
        unit="seconds",
        help="work that does not end within this keeps its GPU; the next try comes later",
    )
