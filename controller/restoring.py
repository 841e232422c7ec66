"""RestoreRequests: a pod is made, or its owner scaled, and watched until it woke.

Level-based: what a request still needs is planned from what is (`restore_plan`), read anew from the
API server, because a restore is rare and a wrong answer costs a state. Rule: the request says
Running before anything is asked for, so that the webhooks name its checkpoint to the owner's pod.
Rule: a pod that was made outlives its request; nothing here deletes pods.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller import restore_plan as plans
from controller.answers import Answers
from controller.duties import Duty
from controller.restore_plan import (
    Around,
    Begin,
    CreatePod,
    Hold,
    Scale,
    Step,
    Succeed,
    Waker,
)
from controller.steps import Fail, Nothing, Remove
from kybernate.api import gpuworkloads, names, pods, requests, restorerequests
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.requests import RequestState
from kybernate.api.restorerequests import Owner, OwnerKind, RestoreRequest, RestoreStatus
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, Forbidden, Invalid, NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import (
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    GPUWORKLOADS,
    PODS,
    RESTOREREQUESTS,
    STATEFULSETS,
    Resource,
)
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.verdict import EventReason
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger

THREADS = 2
UNSYNCED = 0.5  # seconds until the next look while a first list is under way
OWNERS: Mapping[OwnerKind, Resource] = {
    OwnerKind.DEPLOYMENT: DEPLOYMENTS,
    OwnerKind.STATEFULSET: STATEFULSETS,
}

SeatPods = Callable[[], list[Workload]]


class Restoring:
    """Watches requests; the leader carries them out. `seat_pods` are those that live now."""

    def __init__(self, kube: Kube, clock: Clock, seat_pods: SeatPods) -> None:
        self._kube, self._clock, self._seat_pods = kube, clock, seat_pods
        self._answers = Answers(kube, RESTOREREQUESTS)
        self._requests = Reflector(
            kube, RESTOREREQUESTS, project=restorerequests.read_request, on_change=self._changed
        )
        self.watches = (self._requests,)
        self.duty: Duty[Key] = Duty("restoring", clock, self.look, self._requests.items, THREADS)
        self._log = get_logger(duty="restoring")

    def look(self, key: Key) -> float | None:
        """Take the next step; seconds until the next look. Raises ApiError."""
        if not self._requests.synced:
            return UNSYNCED
        if self._requests.get(key) is None:
            return None
        try:
            namespace, name = key
            request = restorerequests.read_request(self._kube.get(RESTOREREQUESTS, name, namespace))
        except NotFound:
            return None
        step = plans.plan(request, self._around(request), self._clock.now())
        return self._take(request, step)

    def _take(self, request: RestoreRequest, step: Step) -> float | None:
        match step:
            case Nothing(again):
                return again
            case Remove():
                self._answers.remove(request.key, request.uid)
                return None
            case Begin(message):
                return self._begin(request, message)
            case Hold(reason, message, pod):
                self._hold(request, reason, message, pod)
                return plans.SOON
            case CreatePod(name):
                return self._create(request, name)
            case Scale(owner, replicas):
                return self._scale(request, owner, replicas)
            case Fail() | Succeed():
                return self._end(request, step)

    def _begin(self, request: RestoreRequest, message: str) -> float:
        self._write(
            request,
            replace(
                request.status,
                state=RequestState.RUNNING,
                reason=plans.ASKED,
                message=message,
                started=self._clock.now(),
            ),
        )
        return plans.SETTLE

    def _hold(self, request: RestoreRequest, reason: str, message: str, pod: Waker | None) -> None:
        status = replace(request.status, reason=reason, message=message)
        if pod is not None:
            status = replace(status, pod=pod.name, node=pod.node or "")
        self._write(request, status)

    def _create(self, request: RestoreRequest, name: str) -> float | None:
        """Make the pod, or find the one that was made before this process died."""
        try:
            made = self._kube.create(PODS, _pod(request, name))
        except AlreadyExists:
            made = self._kube.get(PODS, name, request.key[0])
            labels = made["metadata"].get("labels") or {}
            if labels.get(names.RESTORE_REQUEST) != request.uid:
                words = f"spec.pod.name: {name!r} (expected a name that no pod has)"
                return self._end(request, Fail(plans.POD_EXISTS, words))
        except (Invalid, Forbidden) as refused:
            words = f"spec.pod.template makes no pod: {refused.message}"
            return self._end(request, Fail(plans.POD_REFUSED, words))
        uid = made["metadata"]["uid"]
        self._log.info("pod made", request="/".join(request.key), pod=name)
        message = f"pod {name} was made"
        status = replace(request.status, pod=name, pod_uid=uid, message=message)
        self._write(request, status)
        return plans.SOON

    def _scale(self, request: RestoreRequest, owner: Owner, replicas: int) -> float | None:
        patch = {"spec": {"replicas": replicas}}
        namespace = request.key[0]
        self._kube.patch(OWNERS[owner.kind], owner.name, patch, namespace, subresource="scale")
        self._log.info("scaled", request="/".join(request.key), owner=str(owner), to=replicas)
        message = f"{owner} was scaled to {replicas}"
        self._write(request, replace(request.status, message=message))
        return plans.SOON

    def _end(self, request: RestoreRequest, how: Fail | Succeed) -> float:
        now, status = self._clock.now(), request.status
        if isinstance(how, Fail):
            final = requests.ended(status, RequestState.FAILED, how.reason, how.message, now)
        else:
            pod = how.pod
            status = replace(status, pod=pod.name, pod_uid=pod.uid, node=pod.node or "")
            final = requests.ended(status, RequestState.SUCCEEDED, plans.WOKE, how.message, now)
        self._write(request, final)
        self._log.info(
            "ended", request="/".join(request.key), state=final.state, message=final.message
        )
        return request.times.forget_after

    def _write(self, request: RestoreRequest, status: RestoreStatus) -> None:
        if status != request.status:
            written = restorerequests.write_status(status)
            self._answers.write(request.key, request.uid, written)

    def _around(self, request: RestoreRequest) -> Around:
        """Pods first, the checkpoint after them: an agent claims before its pod lives."""
        if request.status.is_finished:
            return Around(checkpoint=None)
        wakers = tuple(self._wakers(request))
        checkpoint = self._checkpoint(request)
        return Around(
            checkpoint=checkpoint,
            wakers=wakers,
            taken=self._is_taken(request, checkpoint),
            has_seat=request.pod is None or pods.is_seat_pod(request.pod.template),
            replicas=self._replicas(request),
        )

    def _wakers(self, request: RestoreRequest) -> Iterator[Waker]:
        namespace = request.key[0]
        if request.pod is not None and request.status.pod_uid:
            found = self._find(PODS, request.status.pod, namespace)
            if found and found["metadata"]["uid"] == request.status.pod_uid:
                yield self._waker(found)
        if request.owner is not None and request.status.started:
            for workload in self._seat_pods():
                if _is_meant(workload, request, request.owner):
                    pod = self._find(PODS, workload.key.name, namespace)
                    if pod and _is_new(pod, workload):
                        yield self._waker(pod)

    def _waker(self, pod: Obj) -> Waker:
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        waker = Waker(name=name, uid=uid, finished=pods.is_finished(pod))
        found = self._find(GPUWORKLOADS, name, metadata["namespace"])
        if found is None or found["spec"].get("podUID") != uid:
            return waker
        status = gpuworkloads.read_status(found)
        decisions = gpuworkloads.read_decisions(found)
        woken = any(decision.reason is EventReason.WOKEN for decision in decisions)
        if status is None:
            return replace(waker, woken=woken)
        node = NodeName(status.node) if status.node else None
        return replace(waker, state=status.state, node=node, woken=woken)

    def _checkpoint(self, request: RestoreRequest) -> Checkpoint | None:
        found = self._find(GPUCHECKPOINTS, request.checkpoint, request.key[0])
        return None if found is None else read_checkpoint(found)

    def _is_taken(self, request: RestoreRequest, checkpoint: Checkpoint | None) -> bool:
        """Whether the pod that would wake is there already, as somebody else's."""
        name = request.pod.name if request.pod else ""
        if request.owner is not None and checkpoint is not None:
            ordinal = plans.ordinal_of(checkpoint, request.owner.name)
            stateful = request.owner.kind is OwnerKind.STATEFULSET and ordinal is not None
            name = f"{request.owner.name}-{ordinal}" if stateful else ""
        return bool(name) and self._find(PODS, name, request.key[0]) is not None

    def _replicas(self, request: RestoreRequest) -> int | None:
        owner = request.owner
        found = owner and self._find(OWNERS[owner.kind], owner.name, request.key[0])
        return int((found.get("spec") or {}).get("replicas", 1)) if found else None

    def _find(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        try:
            return self._kube.get(resource, name, namespace)
        except NotFound:
            return None

    def _changed(self, change: Change[Any]) -> None:
        self.duty.touch(change.key)


def _is_meant(workload: Workload, request: RestoreRequest, owner: Owner) -> bool:
    """Whether a webhook named the checkpoint to this pod of the owner."""
    key = workload.key
    ours = key.namespace == request.key[0] and key.name.startswith(f"{owner.name}-")
    return ours and request.checkpoint in workload.wishes.restore_from


def _is_new(pod: Obj, workload: Workload) -> bool:
    """A pod that is on its way out was there before the owner was scaled."""
    metadata = pod["metadata"]
    return metadata["uid"] == workload.uid and "deletionTimestamp" not in metadata


def _pod(request: RestoreRequest, name: str) -> Obj:
    """The template as a pod that asks for this very checkpoint."""
    assert request.pod is not None
    template = request.pod.template
    given = template.get("metadata") or {}
    labels = {**(given.get("labels") or {}), names.RESTORE_REQUEST: request.uid}
    annotations = {**(given.get("annotations") or {}), names.RESTORE_FROM: request.checkpoint}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": request.key[0],
            "name": name,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": template["spec"],
    }
