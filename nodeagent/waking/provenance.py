"""
Where a checkpoint comes from, and where one is to wake: what its manifest says of that.

Called by: the stories that seal and wake. Rule: whose state it is, the API server's pod tells;
while that is away it is the pod's own name, which nobody else's pod can claim by accident.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kybernate.api import identity
from kybernate.artifacts.facts import WOKEN_FROM, Facts
from kybernate.clients.clock import Clock
from kybernate.clients.errors import ApiError, Unavailable
from kybernate.clients.resources import DEPLOYMENTS, PODS
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from nodeagent import images
from nodeagent.disk.records import Record
from nodeagent.waking.heritage import Api, siblings

_IMAGE = "io.kubernetes.cri.image-name"  # an annotation that containerd writes for every container
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is the same for all that is sealed or woken here while the agent runs."""

    kernel: str
    architecture: str
    boot: str
    cpu: frozenset[str]
    mechanism: str
    product: str
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Thread safe."""

    api: Api
    node: NodeName
    machine: Machine
    clock: Clock
    woken: Callable[[PodUid], str] = lambda _: ""
    """The checkpoint that a pod was made from, as it named it; empty: from none."""

    def facts(self, record: Record, body: images.Body) -> Facts:
        """Of a workload's container. Raises images.BodyGone."""
        pod = self._pod(record)
        metadata = pod.get("metadata") or {}
        replicas = lambda namespace, name: self._replicas(pod, namespace, name)  # noqa: E731
        whose = identity.of_pod(pod, record.key.namespace, replicas) if pod else None
        woken = self.woken(record.uid)
        return Facts(
            workload=whose or record.key.name,
            pod=record.key.name,
            pod_uid=record.uid,
            container=record.container,
            node=self.node,
            sealed_at=round(self.clock.now(), 3),
            made_in=self.fingerprint(body.config),
            labels=metadata.get("labels") or {},
            more={WOKEN_FROM: woken} if woken else {},
        )

    def fingerprint(self, config: Mapping[str, Any]) -> Fingerprint:
        """Of a container on this machine, by its config.json."""
        here = self.machine
        annotations = config.get("annotations") or {}
        process = config.get("process") or {}
        return Fingerprint(
            kernel=here.kernel,
            architecture=here.architecture,
            boot=here.boot,
            image=str(annotations.get(_IMAGE, "")),
            command=tuple(str(one) for one in process.get("args") or ()),
            mechanism=here.mechanism,
            cpu=here.cpu,
            product=here.product,
            driver=here.driver,
        )

    def _pod(self, record: Record) -> dict[str, Any]:
        """As the API server has it now; empty where it has not, or is away."""
        try:
            pod = self.api.get(PODS, record.key.name, record.key.namespace)
        except (ApiError, Unavailable):
            return {}
        return pod if pod["metadata"].get("uid") == record.uid else {}

    def _replicas(self, pod: Mapping[str, Any], namespace: str, deployment: str) -> int | None:
        """What it is one of. The last pod of a Deployment that was scaled to none is one of one."""
        try:
            found = self.api.get(DEPLOYMENTS, deployment, namespace)
            wanted = int((found.get("spec") or {}).get("replicas", 1))
            return wanted or 1 + len(siblings(self.api, pod))
        except (ApiError, Unavailable):
            return None


def features() -> frozenset[str]:
    """Of the processor, as the kernel tells them."""
    for line in _CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
