"""
The Node, its status and its Lease.

Called by: `node` (for itself), `bulk` (for many).
Rule: the status is written when something changed, and every few minutes all the same; that we
live is what the Lease says.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from kybernate.api import names
from kybernate.api.timestamps import rfc3339
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, ApiError
from kybernate.clients.kube import Kube
from kybernate.clients.resources import NODES

LEASE_NAMESPACE = "kube-node-lease"
VERSION = "v1.36.2-light"
_STATUS_EVERY_S = 300.0  # the kubelet's own pace where it has a Lease
_AGAIN_S = 1.0
_NATIVE = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}
_FINE = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID"),
    "Ready": ("True", "KubeletReady"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change of a node."""

    name: str
    address: str = "127.0.0.1"
    labels: Mapping[str, str] = field(default_factory=dict)


Counts = Mapping[str, tuple[int, int]]
"""Extended resource -> (capacity, allocatable)."""


def node(facts: NodeFacts) -> dict[str, Any]:
    """The object to create."""
    labels = {
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        names.MANAGED_LABEL: "true",
        **facts.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": facts.name, "labels": labels},
        "spec": {},
    }


def status(facts: NodeFacts, counts: Counts, now: float) -> dict[str, Any]:
    """Its whole status."""
    at = rfc3339(now)
    conditions = [
        {
            "type": kind,
            "status": truth,
            "reason": reason,
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        for kind, (truth, reason) in _FINE.items()
    ]
    return {
        "capacity": _NATIVE | {name: str(all_) for name, (all_, _) in counts.items()},
        "allocatable": _NATIVE | {name: str(fit) for name, (_, fit) in counts.items()},
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.name},
        ],
        "nodeInfo": _node_info(),
        "phase": "Running",
    }


def _node_info() -> dict[str, str]:
    return {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "osImage": "light node",
        "kernelVersion": "light",
        "kubeletVersion": VERSION,
        "kubeProxyVersion": "",
        "containerRuntimeVersion": "light://1",
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }


def register(kube: Kube, facts: NodeFacts) -> None:
    """Make the Node where it is not. Raises ApiError."""
    try:
        kube.create(NODES, node(facts))
    except AlreadyExists:
        body = {"metadata": {"labels": node(facts)["metadata"]["labels"]}}
        kube.patch(NODES, facts.name, body)


def write_status(kube: Kube, facts: NodeFacts, counts: Counts, now: float) -> None:
    """Raises ApiError."""
    body = {"status": status(facts, counts, now)}
    kube.patch(NODES, facts.name, body, subresource="status")


class NodeObject:
    """Keeps one node's object as it should be. `changed` says that counts changed."""

    def __init__(self, kube: Kube, facts: NodeFacts, clock: Clock) -> None:
        self._kube = kube
        self._facts = facts
        self._clock = clock
        self._counts: Counts = {}
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._registered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-status", daemon=True)
        self._log = structlog.get_logger(node=facts.name)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End; the Node stays."""
        self._stopping.set()
        self._changed.set()
        self._thread.join()

    def see(self, counts: Counts) -> None:
        """These are the devices now."""
        self._counts = dict(counts)
        self._changed.set()

    def wait_registered(self, timeout: float) -> bool:
        """Until the Node has a status."""
        return self._registered.wait(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._changed.clear()
            pause = _STATUS_EVERY_S
            try:
                if not self._registered.is_set():
                    register(self._kube, self._facts)
                write_status(self._kube, self._facts, self._counts, self._clock.now())
                self._registered.set()
            except ApiError as problem:
                self._log.warning("node status not written", detail=str(problem))
                pause = _AGAIN_S
            self._clock.wait(self._changed, pause)
