"""
What a pod may wake from: the checkpoints it names, and before them what became of the pod whose
place it takes.

Called by: `wakings`, `attempts`. A Deployment makes the next pod as soon as the one before is
deleted, and so does a Job; when the webhook looks, that one is not sealed yet. Here it is waited
for.
Rule: that is for pods that are sealed when they are deleted, alone in their Deployment or of an
index of their Job. Whoever names a checkpoint of something else, wakes from that.
Rule: only a pod's first container inherits; what is made anew in it goes by what the pod names.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kybernate.api import identity, pods, timestamps
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.errors import Malformed
from kybernate.clients.errors import ApiError, NotFound, Retry, Unavailable
from kybernate.clients.resources import DEPLOYMENTS, GPUCHECKPOINTS, PODS, Resource
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import PodUid
from kybernate.model.workload import OnDelete, Workload
from kybernate.runtime.logs import get_logger

Pod = dict[str, Any]
_MADE_AT_ONCE = ("deployment.", "job.")
_NOT_STARTED = "StartError"
_JOB = "batch.kubernetes.io/controller-uid"
_REMEMBERED = 4096  # pods; a node has a few hundred in a day


class NotYet(Retry):
    """The pod before it is being sealed."""


class Api(Protocol):
    """What is asked of the API server."""

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Pod:
        """Raises ApiError, Unavailable."""

    def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str | None = None
    ) -> "list[Pod]":
        """Raises ApiError, Unavailable."""


@dataclass(slots=True, kw_only=True)
class Heritage:
    """Thread safe."""

    api: Api
    _made: dict[PodUid, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may(self, pod: Workload) -> bool:
        """Whether there may be something to inherit; asks nobody."""
        return pod.wishes.on_delete is OnDelete.CHECKPOINT and pod.uid not in self._made

    def made(self, uid: PodUid) -> None:
        """A container of this pod is there."""
        with self._lock:
            self._made[uid] = None
            while len(self._made) > _REMEMBERED:
                del self._made[next(iter(self._made))]

    def names(self, pod: Workload) -> tuple[str, ...]:
        """Best first. Raises NotYet, and Unavailable where the pod names some."""
        named = pod.wishes.restore_from
        if not self.may(pod):
            return named
        try:
            inherited = self._inherited(pod, named)
        except ApiError as away:
            if named and isinstance(away, Unavailable):
                raise
            get_logger(workload=str(pod.key)).warning("inherits nothing", why=str(away))
            return named
        return (*inherited, *(one for one in named if one not in inherited))

    def _inherited(self, pod: Workload, named: tuple[str, ...]) -> tuple[str, ...]:
        found = self._find(pod)
        whose = found and identity.of_pod(found, pod.key.namespace, self._replicas)
        if not found or not whose or not whose.startswith(_MADE_AT_ONCE):
            return ()
        if has_run(found, pod.seat_container):
            return ()
        leaving = self._leaving(found, whose)  # before the list: what is sealed by then is in it
        mine = self._of(whose, pod)
        if named and named[0] not in {one.name for one in mine}:
            return ()
        if leaving:
            raise NotYet(f"{leaving} is being sealed, whose place it takes")
        began = timestamps.parse_rfc3339(found["metadata"]["creationTimestamp"])
        free = (one for one in mine if one.claim is None or one.claim.pod_uid == pod.uid)
        return tuple(one.name for one in free if one.sealed_at >= began)

    def _find(self, pod: Workload) -> Pod | None:
        try:
            found = self.api.get(PODS, pod.key.name, pod.key.namespace)
        except NotFound:
            return None
        return found if found["metadata"].get("uid") == pod.uid else None

    def _replicas(self, namespace: str, deployment: str) -> int | None:
        try:
            found = self.api.get(DEPLOYMENTS, deployment, namespace)
        except NotFound:
            return None
        return int((found.get("spec") or {}).get("replicas", 1))

    def _leaving(self, pod: Pod, whose: str) -> str:
        """The pod before it, where that is deleted and may be being sealed."""
        for one in siblings(self.api, pod):
            going = one["metadata"].get("deletionTimestamp") and not pods.is_finished(one)
            namespace = pod["metadata"]["namespace"]
            if going and identity.of_pod(one, namespace, lambda *_: 1) == whose:
                return str(one["metadata"]["name"])
        return ""

    def _of(self, whose: str, pod: Workload) -> tuple[Checkpoint, ...]:
        """Newest first."""
        found = []
        for one in self.api.list(GPUCHECKPOINTS, pod.key.namespace):
            try:
                checkpoint = read_checkpoint(one)
            except Malformed:
                continue
            if checkpoint.workload == whose and checkpoint.ready and not checkpoint.gold:
                found.append(checkpoint)
        return tuple(sorted(found, key=lambda one: one.sealed_at, reverse=True))


def has_run(pod: Mapping[str, Any], container: str) -> bool:
    """By the kubelet's word: one that could not be started has not."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = [(one.get(name) or {}).get("terminated") for name in ("state", "lastState")]
        ran = any(end and end.get("reason") != _NOT_STARTED for end in ended)
        if one.get("name") == container and (ran or "running" in (one.get("state") or {})):
            return True
    return False


def siblings(api: Api, pod: Mapping[str, Any]) -> tuple[Pod, ...]:
    """The other pods of its ReplicaSet or Job. Raises ApiError, Unavailable."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    known = next((one for one in (identity.TEMPLATE_HASH, _JOB) if labels.get(one)), None)
    if known is None:
        return ()
    selector = f"{known}={labels[known]}"
    there = api.list(PODS, metadata["namespace"], label_selector=selector)
    owners = _owners(pod)
    return tuple(
        one for one in there
        if one["metadata"].get("uid") != metadata.get("uid") and owners & _owners(one)
    )  # fmt: skip


def _owners(pod: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(one.get("uid")) for one in pod["metadata"].get("ownerReferences") or ())
