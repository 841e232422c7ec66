"""Settings of the device plugin."""

from dataclasses import dataclass
from pathlib import Path

from kybernate.clients.gpus.choosing import InventorySource
from kybernate.runtime.settings import ProcessSettings, setting

# What every CUDA container needs beside its cards; those that are not there are left out.
CONTROL_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """Tells the kubelet which seats there are, and hands them out."""

    profiles: Path = setting(help="the node's profile file: which seats its GPUs have")
    inventory: InventorySource = setting(
        InventorySource.NVML,
        help="where the GPUs come from: the driver, the profile file's own "
        "list, or the simulated device",
    )
    simulated_gpu: Path | None = setting(
        None, help="socket of the simulated device; containers are told of it"
    )
    plugin_dir: Path = setting(
        Path("/var/lib/kubelet/device-plugins"), help="the kubelet's folder for plugins' sockets"
    )
    agent_socket: Path = setting(
        Path("/run/kyb/agent.sock"),
        help="the node agent, asked for its preference; without it "
        "healthy groups with the most free seats come first",
    )
    guest_library: Path | None = setting(
        None,
        help="libkybguest.so on the host, with ld.so.preload beside it (kyb install-node brings "
        "both); preloaded in containers where they are there and --guest-socket is given",
    )
    guest_socket: Path | None = setting(
        None,
        help="the node agent's --guest-socket on the host, in a folder of its own, which "
        "containers see",
    )
    cdi_kind: str = setting(
        "", help="CDI vendor and class, as nvidia.com/gpu; empty where the runtime has no CDI"
    )
    control_nodes: tuple[str, ...] = setting(
        CONTROL_NODES, help="device nodes every container gets beside its cards, where they exist"
    )
    health_every: float = setting(5.0, unit="seconds", help="how often the GPUs' health is asked")
    kubelet_every: float = setting(
        1.0,
        unit="seconds",
        help="how often we look whether the kubelet began anew; a pod that "
        "is admitted in between fails for good, so it is short",
    )
