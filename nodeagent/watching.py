"""What the agent watches: its node's pods, and what people want of workloads."""

import threading
from collections.abc import Callable
from typing import Any

from kybernate.api import gpuworkloads, pods
from kybernate.api.gpuworkloads import Spec
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import GPUWORKLOADS, PODS
from kybernate.model.ids import NodeName, PodUid, WorkloadKey
from kybernate.model.workload import Desired, Wishes, Workload


class Watching:
    """Pods of the node as workloads, and every GpuWorkload's wish. Reads never wait, but one."""

    def __init__(
        self,
        kube: Kube,
        node: NodeName,
        on_pod: Callable[[], None],
        on_desired: Callable[[WorkloadKey, PodUid, Desired], None],
    ) -> None:
        self._on_pod, self._on_desired = on_pod, on_desired
        self._pod_changed = threading.Condition()
        self._pods: Reflector[Workload] = Reflector(
            kube,
            PODS,
            field_selector=f"spec.nodeName={node}",
            project=_seat_pod,
            on_change=self._podded,
        )
        # Of all nodes: an API server can select by no field of ours.
        self._wishes: Reflector[Spec] = Reflector(
            kube, GPUWORKLOADS, project=gpuworkloads.read_spec, on_change=self._wished
        )

    def start(self) -> None:
        """Begin; returns at once."""
        self._pods.start()
        self._wishes.start()

    def stop(self) -> None:
        """End."""
        self._pods.stop()
        self._wishes.stop()

    @property
    def synced(self) -> bool:
        """Whether both first lists are done."""
        return self._pods.synced and self._wishes.synced

    def pod(self, key: WorkloadKey) -> Workload | None:
        """A seat pod of this node that has not finished."""
        return self._pods.get((key.namespace, key.name))

    def pods(self) -> tuple[Workload, ...]:
        """All of them."""
        return tuple(self._pods.items().values())

    def uid_of(self, key: WorkloadKey) -> PodUid | None:
        """The pod its GpuWorkload is about; None while there is none."""
        spec = self._wishes.get((key.namespace, key.name))
        return spec.pod_uid if spec else None

    def desired(self, key: WorkloadKey, uid: PodUid) -> Desired:
        """What people want of this life of the pod."""
        spec = self._wishes.get((key.namespace, key.name))
        return spec.desired if spec and spec.pod_uid == uid else Desired.AUTO

    def unseated(
        self, resource: str, seated: set[WorkloadKey], behind: float = 0.0
    ) -> tuple[Wishes, ...]:
        """Wishes of the pods that ask for this resource and have no seat yet.

        Whoever asks because of such a pod has seen one: where none is known here, our watch is
        behind the kubelet's, and is waited for, `behind` seconds at most.
        """
        with self._pod_changed:
            self._pod_changed.wait_for(lambda: self._unseated(resource, seated), timeout=behind)
        return self._unseated(resource, seated)

    def _unseated(self, resource: str, seated: set[WorkloadKey]) -> tuple[Wishes, ...]:
        return tuple(
            pod.wishes for pod in self.pods() if pod.resource == resource and pod.key not in seated
        )

    def _podded(self, _: Change[Workload]) -> None:
        with self._pod_changed:
            self._pod_changed.notify_all()
        self._on_pod()

    def _wished(self, change: Change[Spec]) -> None:
        old, new = change.old, change.new
        if new is None:
            return
        if old is None or old.desired is not new.desired or old.pod_uid != new.pod_uid:
            self._on_desired(new.key, new.pod_uid, new.desired)


def _seat_pod(pod: dict[str, Any]) -> Workload | None:
    return None if pods.is_finished(pod) else pods.read_workload(pod)
