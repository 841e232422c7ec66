"""A GpuWorkload for every seat pod: made, kept equal to the pod, replaced for the pod's next life.

Rule: `spec.desired` belongs to people. It is set once, to Auto, when the object is made.
Rule: nothing is deleted because a pod is gone: the pod owns its GpuWorkload, so the cluster's own
garbage collector does that, and does it also while we are away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from controller.duties import Duty
from kybernate.api import fields, gpuworkloads, pods
from kybernate.api.gpuworkloads import Spec
from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import GPUWORKLOADS, PODS
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger

THREADS = 4  # a thousand pods at once are made in seconds, and one slow write holds up a quarter
UNSYNCED = 0.5  # seconds until the next look while a first list is under way


class Plan(Enum):
    """What is to be done for one pod."""

    NOTHING = auto()
    CREATE = auto()
    REPLACE = auto()  # it belongs to an earlier pod of this name
    AMEND = auto()  # the pod's wishes changed
    FINISH = auto()  # the pod has ended: its seat counts no more


@dataclass(frozen=True, slots=True)
class SeatPod:
    """A pod that asks for a seat."""

    workload: Workload
    finished: bool


@dataclass(frozen=True, slots=True)
class Present:
    """A GpuWorkload as it is. `uid` is its own, not the pod's."""

    uid: str
    spec: Spec
    finished: bool = False


def plan(pod: SeatPod | None, present: Present | None) -> Plan:
    """What makes the GpuWorkload fit the pod."""
    if pod is None:
        return Plan.NOTHING
    if present is None:
        return Plan.NOTHING if pod.finished else Plan.CREATE
    spec, wanted = present.spec, pod.workload
    if (spec.pod_uid, spec.resource) != (wanted.uid, wanted.resource):
        return Plan.REPLACE
    if pod.finished:
        return Plan.NOTHING if present.finished else Plan.FINISH
    return Plan.AMEND if _mutable(wanted) != _present(spec) else Plan.NOTHING


class Workloads:
    """Watches pods and GpuWorkloads; the leader writes the difference."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube, self._clock = kube, clock
        self._pods = Reflector(kube, PODS, project=_seat_pod, on_change=self._pod_changed)
        self._known = Reflector(kube, GPUWORKLOADS, project=_known, on_change=self._changed)
        self.on_gone: Callable[[str, str], None] = lambda _namespace, _uid: None
        """Called when a seat pod is gone, with its namespace and its uid."""
        self.watches = (self._pods, self._known)
        self.duty: Duty[Key] = Duty("workloads", clock, self.look, self._pods.items, THREADS)
        self._log = get_logger(duty="workloads")

    def living(self) -> list[Workload]:
        """The seat pods that have not ended."""
        return [pod.workload for pod in self._pods.items().values() if not pod.finished]

    def any_unplaced(self) -> bool:
        """Whether a living seat pod has no node."""
        found = self._pods.items().values()
        return any(pod.workload.node is None and not pod.finished for pod in found)

    def look(self, key: Key) -> float | None:
        """Make the GpuWorkload of this pod what it should be. Raises ApiError."""
        if not (self._pods.synced and self._known.synced):
            return UNSYNCED
        pod, present = self._pods.get(key), self._known.get(key)
        todo = plan(pod, present)
        if pod is not None and todo is not Plan.NOTHING:
            self._carry_out(todo, pod.workload, present)
        return None

    def _carry_out(self, todo: Plan, workload: Workload, present: Present | None) -> None:
        key = workload.key
        self._log.info("gpuworkload", workload=str(key), plan=todo.name.lower())
        if todo is Plan.AMEND:
            patch = {"spec": _mutable(workload)}
            self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace)
            return
        if todo is Plan.FINISH and present is not None:
            conditions = [gpuworkloads.finished_condition(self._clock.now())]
            patch = {"metadata": {"uid": present.uid}, "status": {"conditions": conditions}}
            self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace, subresource="status")
            return
        if present is not None:
            self._kube.delete(GPUWORKLOADS, key.name, key.namespace, uid=present.uid)
        self._kube.create(GPUWORKLOADS, gpuworkloads.new_object(workload))

    def _pod_changed(self, change: Change[SeatPod]) -> None:
        self._changed(change)
        if change.new is None and change.old is not None:
            self.on_gone(change.key[0], change.old.workload.uid)

    def _changed(self, change: Change[Any]) -> None:
        if change.old != change.new:  # most changes of a pod are of its status
            self.duty.touch(change.key)


def _mutable(workload: Workload) -> Mapping[str, Any]:
    """What may change in a pod's life, as a merge patch: an absent size becomes null."""
    return {
        "class": workload.wishes.workload_class.value,
        "priority": workload.priority,
        "vramBytes": workload.wishes.vram,
    }


def _present(spec: Spec) -> Mapping[str, Any]:
    return {
        "class": spec.workload_class.value,
        "priority": spec.priority,
        "vramBytes": spec.vram,
    }


def _seat_pod(obj: Mapping[str, Any]) -> SeatPod | None:
    workload = pods.read_workload(obj)
    return None if workload is None else SeatPod(workload, pods.is_finished(obj))


def _known(obj: Mapping[str, Any]) -> Present:
    finished = fields.condition(obj, gpuworkloads.FINISHED) == "True"
    return Present(obj["metadata"]["uid"], gpuworkloads.read_spec(obj), finished)
