"""
A burst of pods, and when each was bound.

Rule: the pods are there before the scheduler starts, so nothing but scheduling is timed, and
neither their creation nor this program takes the processor from it.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.lightnodes import SEAT, in_parallel
from kybernate.api import gpuworkloads, pods
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import GPUWORKLOADS, NAMESPACES, PODS

_PATIENCE_S = 600.0


class Burst:
    """Pods of one namespace, watched until all are bound."""

    def __init__(self, kube: Kube, namespace: str, count: int) -> None:
        self._kube, self._namespace, self._count = kube, namespace, count
        self._bound: dict[str, float] = {}
        self._all = threading.Event()

    def create(self) -> None:
        """The pods, with the GpuWorkload that the controller makes of each."""
        self._kube.create(NAMESPACES, {"metadata": {"name": self._namespace}})
        in_parallel(self._create, range(self._count))

    def follow(self) -> "Reflector[str]":
        """Notes when pods are bound, from now on; to be stopped by the caller."""
        return Reflector(
            self._kube,
            PODS,
            project=_node,
            on_change=self._changed,
            namespace=self._namespace,
        )

    def pods_per_second(self) -> float:
        """Waits until all are bound. From the first binding to the last."""
        if not self._all.wait(_PATIENCE_S):
            raise TimeoutError(f"{len(self._bound)} of {self._count} pods bound")
        moments = sorted(self._bound.values())
        return (len(moments) - 1) / (moments[-1] - moments[0])

    def delete(self) -> None:
        """The pods; their nodes have nobody who would."""
        in_parallel(
            lambda name: self._kube.delete(PODS, name, self._namespace, grace_seconds=0),
            [f"pod-{number}" for number in range(self._count)],
        )
        self._kube.delete(NAMESPACES, self._namespace)

    def _create(self, number: int) -> None:
        pod = self._kube.create(PODS, _pod(f"pod-{number}", self._namespace))
        workload = pods.read_workload(pod)
        assert workload is not None
        self._kube.create(GPUWORKLOADS, gpuworkloads.new_object(workload))

    def _changed(self, change: Change[str]) -> None:
        if change.new and change.key[1] not in self._bound:
            self._bound[change.key[1]] = time.monotonic()
            if len(self._bound) == self._count:
                self._all.set()


def _pod(name: str, namespace: str) -> Mapping[str, Any]:
    seat = {"resources": {"limits": {SEAT: "1"}}}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"kyb.ai/vram": "40Gi", "kyb.ai/class": "inference"},
        },
        "spec": {
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "model", "image": "model", **seat}],
        },
    }


def _node(pod: Mapping[str, Any]) -> str | None:
    node: str | None = pod["spec"].get("nodeName")
    return node
