"""
What a real node is asked to be, and the file that remembers it.

Called by: `testbed.node.realnode`, tests.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FILE = "node.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node to start."""

    name: str
    """As Kubernetes knows it."""
    runtimes: Mapping[str, Path | None] = field(default_factory=lambda: {"kybernate": None})
    """Programs that stand in for runc, by the handler of a RuntimeClass; None is runc itself.

    The handler "runc" is always there, and is what pods without a RuntimeClass get.
    """
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    """Fields of KubeletConfiguration, for example {"runtimeRequestTimeout": "10s"}."""


def save(spec: NodeSpec, work: Path) -> None:
    """Remember it in the node's work folder."""
    runtimes = {name: str(path) if path else None for name, path in spec.runtimes.items()}
    body = {"name": spec.name, "runtimes": runtimes, "kubelet": dict(spec.kubelet)}
    (work / _FILE).write_text(json.dumps(body))


def load(work: Path) -> NodeSpec:
    """The spec of this folder's node. Raises FileNotFoundError."""
    body = json.loads((work / _FILE).read_text())
    runtimes = {name: Path(path) if path else None for name, path in body["runtimes"].items()}
    return NodeSpec(name=body["name"], runtimes=runtimes, kubelet=body["kubelet"])
