"""The programs of one node, started in the order in which they need each other.

Called by `testbed.stack.stack`. kubelet or light node (the agent's token is bound to the Node) →
simulated GPU → agent → device plugin.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kybernate.api import names
from testbed import ports
from testbed.assets import native
from testbed.lightnode import ending
from testbed.stack.control import Place

# A unix socket's path is at most 107 bytes; ours end in names of up to 40.
LONGEST_FOLDER = 50
KUBELET = Path("/var/lib/kubelet")
H100 = "NVIDIA H100 80GB HBM3"
# A 12.9 GiB model left an H100 in 0.30 s (docs/explanation/performance.md), about 46 GB/s.
BUS = 46e9


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node to start. Sizes are those of the pretended cards."""

    name: str
    cards: int = 1
    memory: str = "80Gi"
    product: str = H100
    bus: float = BUS  # bytes a second, each way
    pool: str = "400Gi"
    real: bool = False  # kubelet, containerd and runc instead of a light node; as root
    kubelet: Mapping[str, Any] = field(default_factory=dict)  # a real one's configuration
    profiles: Mapping[str, Any] = field(
        default_factory=lambda: {
            "profiles": [
                {
                    "name": "gpu-1x-seat",
                    "resource": "kyb.ai/gpu-1x-seat",
                    "groupSize": 1,
                    "seatsPerGroup": 6,
                }
            ]
        }
    )


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """Where a node's sockets and files are. `kubelet` is a real one's folder, in its node."""

    root: Path
    kubelet: Path | None = None

    @property
    def gpu_socket(self) -> Path:
        """The simulated GPU."""
        return self.root / "gpu.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's API on its own node."""
        return self.root / "agent.sock"

    @property
    def work(self) -> Path:
        """The light node's own: pods, their logs."""
        return self.root / "work"

    @property
    def podresources_socket(self) -> Path:
        """The kubelet's PodResources."""
        if self.kubelet:
            return self.kubelet / "pod-resources" / "kubelet.sock"
        return self.root / "podres.sock"

    @property
    def plugins(self) -> Path:
        """What the kubelet calls its device-plugin folder."""
        return self.kubelet / "device-plugins" if self.kubelet else self.root / "plugins"

    @property
    def profiles(self) -> Path:
        """The profile file."""
        return self.root / "profiles.yaml"


@dataclass(frozen=True, slots=True)
class Node:
    """A node's programs, as argument lists."""

    spec: NodeSpec
    folder: NodeFolder

    def lightnode(self, kubeconfig: Path) -> list[str]:
        """The kubelet's stand-in, with the node's own client certificate."""
        return [
            f"--node={self.spec.name}",
            f"--kubeconfig={kubeconfig}",
            f"--work-dir={self.folder.work}",
            f"--plugin-dir={self.folder.plugins}",
            f"--podresources-socket={self.folder.podresources_socket}",
            f"--agent-socket={self.folder.agent_socket}",
            f"--label={names.MANAGED_LABEL}=true",
        ]

    def gpu(self) -> list[str]:
        """The simulated cards."""
        cards = [f"--card={self.spec.product}={self.spec.memory}"] * self.spec.cards
        place = [f"--socket={self.folder.gpu_socket}", f"--name={self.spec.name}"]
        return [*place, *cards, f"--bus={self.spec.bus:g}"]

    def agent(self, place: Place, port: int, address: str = ports.LOOPBACK) -> list[str]:
        """The node agent, on the simulated cards. Checkpoints are of a real node's containers."""
        plugins = [f"--criu-plugins={native.criu_plugins()}"] if self.spec.real else []
        return [
            *plugins,
            *place.arguments(port, address),
            *self._cards(),
            f"--node={self.spec.name}",
            f"--advertise={address}:{port}",
            f"--state-dir={self.folder.root / 'state'}",
            f"--pool-limit={self.spec.pool}",
            f"--socket={self.folder.agent_socket}",
            f"--podresources-socket={self.folder.podresources_socket}",
        ]

    def deviceplugin(self) -> list[str]:
        """The device plugin, on the same cards and the same profile file."""
        return [
            *self._cards(),
            f"--plugin-dir={self.folder.plugins}",
            f"--agent-socket={self.folder.agent_socket}",
        ]

    def _cards(self) -> list[str]:
        return [
            f"--profiles={self.folder.profiles}",
            "--inventory=simulated",
            f"--simulated-gpu={self.folder.gpu_socket}",
        ]


def check_length(work: Path) -> None:
    """Raises ValueError where a unix socket of a node could not be made below `work`."""
    if len(str(work)) > LONGEST_FOLDER:
        raise ValueError(
            f"{work} is too long for unix sockets: {len(str(work))} characters, "
            f"at most {LONGEST_FOLDER}; choose a shorter work folder"
        )


def end_pods(work: Path) -> None:
    """End what light nodes that were killed left running."""
    for folder in (work / "n").glob("*/work"):
        ending.end_pods(folder)


def prepare(work: Path, spec: NodeSpec) -> Node:
    """The node's folder below `work`, with its profile file."""
    folder = NodeFolder(work / "n" / spec.name, KUBELET if spec.real else None)
    folder.root.mkdir(parents=True, exist_ok=True)
    if not spec.real:
        folder.plugins.mkdir(exist_ok=True)
    folder.profiles.write_text(yaml.safe_dump(dict(spec.profiles)))
    return Node(spec, folder)
