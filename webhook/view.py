"""What admission knows of the cluster, from watches. Called by `admission`; built by `__main__`.

Rule: a question is answered from memory, at once, with what is known now. A webhook that waited
for the API server that waits for the webhook would stop the cluster.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kybernate.api import fields, goldimages, gpuworkloads
from kybernate.api.checkpointpolicies import CheckpointPolicy, read_policy
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.goldimages import Seated
from kybernate.api.restorerequests import Owner, RestoreRequest, read_request
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Reflector, unready
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    GPUWORKLOADS,
    NAMESPACES,
    RESTOREREQUESTS,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint a workload may wake from. `made` is RFC 3339, so it sorts as text."""

    workload: str
    made: str
    gold: bool = False


def candidate(obj: Mapping[str, Any]) -> Candidate | None:
    """What is kept of a GpuCheckpoint: None for one nobody may be offered."""
    checkpoint = read_checkpoint(obj)  # what cannot be read is left out by the reflector
    if not checkpoint.ready:
        return None
    made = obj["metadata"].get("creationTimestamp") or ""
    return Candidate(checkpoint.workload, made, checkpoint.gold)


def _with_gold(obj: Mapping[str, Any]) -> CheckpointPolicy | None:
    policy = read_policy(obj)
    return policy if policy.gold else None


def _replicas(obj: Mapping[str, Any]) -> int:
    return int((obj.get("spec") or {}).get("replicas", 1))


def _labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _resource(obj: Mapping[str, Any]) -> str | None:
    """Of a seat that is taken: a pod that has ended holds none, however long it is kept."""
    if fields.condition(obj, gpuworkloads.FINISHED) == "True":
        return None
    return str((obj.get("spec") or {}).get("resource", ""))


def _wanted(obj: Mapping[str, Any]) -> RestoreRequest | None:
    request = read_request(obj)
    return None if request.owner is None or request.status.is_finished else request


def _pair(owner: Owner) -> tuple[str, str]:
    return owner.kind.value, owner.name


class ClusterView:
    """Six watches, each kept as small as the question it answers."""

    def __init__(self, kube: Kube) -> None:
        self._checkpoints = Reflector(kube, GPUCHECKPOINTS, project=candidate)
        self._deployments = Reflector(kube, DEPLOYMENTS, project=_replicas)
        self._namespaces = Reflector(kube, NAMESPACES, project=_labels)
        self._workloads = Reflector(kube, GPUWORKLOADS, project=_resource)
        self._restores = Reflector(kube, RESTOREREQUESTS, project=_wanted)
        self._policies = Reflector(kube, CHECKPOINTPOLICIES, project=_with_gold)
        books = (self._deployments, self._namespaces, self._workloads)
        self._all = (self._checkpoints, self._restores, self._policies, *books)

    def start(self) -> None:
        """Begin to watch."""
        for reflector in self._all:
            reflector.start()

    def stop(self) -> None:
        """End the watches."""
        for reflector in self._all:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether every watch has seen the whole list once."""
        return all(reflector.synced for reflector in self._all)

    @property
    def unready(self) -> str | None:
        """Why answers would be made of nothing, or of what may be long past; None: all is well."""
        return unready(self._all)

    @property
    def broken_seconds(self) -> float:
        """How long the watch that is broken longest has been so."""
        return max(reflector.broken_seconds for reflector in self._all)

    def wait_synced(self, timeout: float) -> bool:
        """Until then, or for that many seconds each."""
        return all(reflector.wait_synced(timeout) for reflector in self._all)

    def checkpoints(self, namespace: str, workload: str) -> tuple[str, ...]:
        """Names of Ready checkpoints of this identity, newest first; gold images not among them."""
        found = [
            (known.made, name)
            for (space, name), known in self._checkpoints.items().items()
            if space == namespace and known.workload == workload and not known.gold
        ]
        return tuple(name for _, name in sorted(found, reverse=True))

    def gold(self, namespace: str, pod: Seated) -> tuple[str, ...]:
        """Names of Ready gold images that policies had made of pods like this one."""
        names = sorted(
            goldimages.name_of(policy.gold, pod.version)
            for policy in self._policies.items().values()
            if policy.is_about(namespace, pod.labels)
        )
        known = {name: self._checkpoints.get((namespace, name)) for name in names}
        return tuple(name for name, one in known.items() if one is not None and one.gold)

    def asked(self, namespace: str, kind: str, name: str) -> tuple[str, ...]:
        """Checkpoints that somebody asked this owner's next pod to wake from, first asked first."""
        found = [
            (request.times.made, request.checkpoint)
            for (space, _), request in self._restores.items().items()
            if space == namespace and request.owner and (kind, name) == _pair(request.owner)
        ]
        return tuple(checkpoint for _, checkpoint in sorted(found))

    def replicas(self, namespace: str, deployment: str) -> int | None:
        """What the Deployment asks for; None where it is not known."""
        return self._deployments.get((namespace, deployment))

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Its labels."""
        return self._namespaces.get(("", namespace)) or {}

    def seats_used(self, namespace: str) -> Mapping[str, int] | None:
        """Seats of the namespace by resource; None while they are not counted.

        Counted from GpuWorkloads, which follow their pods by a moment: a burst may pass a quota
        made of this. A ResourceQuota on the seat resource is the exact one.
        """
        if not self._workloads.synced:
            return None
        return Counter(r for (space, _), r in self._workloads.items().items() if space == namespace)
