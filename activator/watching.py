"""
What the API server tells, brought to the catalog: pods and Deployments with seats, GpuWorkloads,
checkpoints, and where agents are.

Called by: `process`. Projections run in the watches' threads and keep little; the catalog changes
in the loop's thread only. Rule: what cannot be read is left out, and logged by the reflector.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from activator.agents import Agents
from activator.catalog import Catalog, DeploymentSeen, PodSeen, Word
from activator.models import ModelId, Owner, Place
from activator.telling import Card, NodeSeen, Telling
from kybernate.api import gpunodes, gpuworkloads, identity, pods
from kybernate.api.annotations import read_wishes
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector, unready
from kybernate.clients.resources import (
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    GPUNODES,
    GPUWORKLOADS,
    PODS,
)
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import ScaleToZero

Obj = Mapping[str, Any]
T = TypeVar("T")
Post = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose models are served (empty: everybody's), and where one listens that does not say."""

    namespaces: frozenset[str]
    port: int


class Watching:
    """`post` runs something in the loop's thread."""

    def __init__(
        self, kube: Kube, catalog: Catalog, agents: Agents, telling: Telling, post: Post
    ) -> None:
        self._kube, self._catalog, self._agents, self._post = kube, catalog, agents, post
        self._telling = telling
        self._watches: list[Reflector[Any]] = []

    def start(self, scope: Scope) -> None:
        """Begin; returns at once."""
        catalog = self._catalog

        def of_key(how: Callable[[WorkloadKey, T | None], None]) -> Callable[[Change[T]], None]:
            return lambda change: self._tell(how, WorkloadKey(*change.key), change)

        def checkpoint(change: Change[str]) -> None:
            self._tell(catalog.checkpoint, change.key, change)

        def node(change: Change[NodeSeen]) -> None:
            address = change.new.address if change.new else ""
            self._post(self._agents.at, change.key[1], address)
            self._tell(self._telling.node, change.key[1], change)

        kube = self._kube
        self._watches = [
            Reflector(
                kube, PODS, project=lambda obj: seen_pod(obj, scope), on_change=of_key(catalog.pod)
            ),
            Reflector(
                kube,
                DEPLOYMENTS,
                project=lambda obj: seen_deployment(obj, scope),
                on_change=of_key(catalog.deployment),
            ),
            Reflector(
                kube, GPUWORKLOADS, project=seen_workload, on_change=of_key(catalog.published)
            ),
            Reflector(kube, GPUCHECKPOINTS, project=ready_checkpoint, on_change=checkpoint),
            Reflector(kube, GPUNODES, project=seen_node, on_change=node),
        ]
        for watch in self._watches:
            watch.start()

    def stop(self) -> None:
        """End the watches."""
        for watch in self._watches:
            watch.stop()

    @property
    def unready(self) -> str | None:
        """Why requests would be refused that should not; None where all is well."""
        return unready(self._watches) if self._watches else "watches have not begun"

    @property
    def broken_seconds(self) -> float:
        """How long the watch that is broken longest has been so."""
        return max((watch.broken_seconds for watch in self._watches), default=0.0)

    def _tell(self, how: Callable[..., None], key: object, change: Change[Any]) -> None:
        if change.old != change.new:
            self._post(how, key, change.new)


def seen_pod(obj: Obj, scope: Scope) -> PodSeen | None:
    """What is kept of a seat pod; None for any other, and for one that has ended or is leaving."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    namespace = metadata.get("namespace", "default")
    if scope.namespaces and namespace not in scope.namespaces:
        return None
    if "deletionTimestamp" in metadata or pods.is_finished(obj):
        return None
    workload = pods.read_workload(obj)
    if workload is None:
        return None
    owner = identity.owner_of(obj)
    name = workload.wishes.model or (owner[1] if owner else workload.key.name)
    place = Place(
        key=workload.key,
        uid=workload.uid,
        node=workload.node or "",
        address=status.get("podIP") or "",
        port=_port(obj["spec"], workload.seat_container) or scope.port,
        running=_is_running(status, workload.seat_container),
        group=workload.seat.group if workload.seat else "",
        vram=workload.wishes.vram or 0,
    )
    return PodSeen(model=ModelId(namespace, name), place=place)


def seen_deployment(obj: Obj, scope: Scope) -> DeploymentSeen | None:
    """What is kept of a Deployment whose pods take a seat."""
    metadata, spec = obj["metadata"], obj["spec"]
    namespace = metadata.get("namespace", "default")
    template = spec["template"]
    if (scope.namespaces and namespace not in scope.namespaces) or not pods.is_seat_pod(template):
        return None
    wishes = read_wishes((template.get("metadata") or {}).get("annotations") or {})
    owner = Owner(
        metadata["name"],
        int(spec.get("replicas", 1)),
        wakes=wishes.scale_to_zero is ScaleToZero.CHECKPOINT,
    )
    return DeploymentSeen(model=ModelId(namespace, wishes.model or metadata["name"]), owner=owner)


def seen_workload(obj: Obj) -> Word | None:
    """How it stands by its GpuWorkload."""
    status = gpuworkloads.read_status(obj)
    if status is None:
        return None
    spec = gpuworkloads.read_spec(obj)
    return Word(uid=spec.pod_uid, state=status.state, tier=status.tier, why=status.why)


def ready_checkpoint(obj: Obj) -> str | None:
    """Whose checkpoint it is, where a pod may wake from it."""
    checkpoint = read_checkpoint(obj)
    free = checkpoint.ready and checkpoint.claim is None
    return (checkpoint.workload or None) if free else None


def seen_node(obj: Obj) -> NodeSeen:
    """Where the node's agent is called, and what cards it has."""
    status = obj.get("status") or {}
    node = gpunodes.read_node(obj)
    cards = tuple(
        Card(gpu["index"], node.product, gpu["memoryBytes"], gpu.get("usedBytes", 0))
        for gpu in status.get("gpus") or ()
    )
    groups = {str(name): tuple(group.gpus) for name, group in node.groups.items()}
    return NodeSeen(status.get("endpoint") or "", cards, groups)


def _port(spec: Obj, container: str) -> int:
    """The container's port that is named http, else its first."""
    for one in spec.get("containers") or ():
        if one.get("name") == container:
            ports = one.get("ports") or ()
            named = [port for port in ports if port.get("name") == "http"]
            found = next(iter([*named, *ports]), None)
            return int(found["containerPort"]) if found else 0
    return 0


def _is_running(status: Obj, container: str) -> bool:
    return any(
        one.get("name") == container and "running" in (one.get("state") or {})
        for one in status.get("containerStatuses") or ()
    )
