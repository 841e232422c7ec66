"""
Pods, nodes, GpuNodes and GpuWorkloads cut down to what the extender keeps of them.

Called by: `watching.py` for every object of every list and watch. Rule: pure, and cheap for what is
not ours: most pods of a cluster have no seat.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kybernate.api import gpuworkloads, pods
from kybernate.api.errors import Malformed
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Decision
from kybernate.model.workload import Wishes, Workload

Obj = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatPod:
    """A living pod with a seat. `unschedulable` is what the scheduler says of its last attempt."""

    workload: Workload
    unschedulable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A GpuWorkload, as far as its decisions are written by us."""

    key: WorkloadKey
    pod: PodUid
    version: str
    decisions: tuple[Decision, ...]


def seat_pod(pod: Obj) -> SeatPod | None:
    """None for a pod without a seat, and for one that has ended."""
    if not pods.is_seat_pod(pod) or pods.is_finished(pod):
        return None
    return SeatPod(workload=_workload(pod), unschedulable=_unschedulable(pod))


def node_labels(node: Obj) -> Mapping[str, str]:
    """A Node's labels."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return labels


def ledger(obj: Obj) -> Ledger:
    """A GpuWorkload. Decisions of a newer version that cannot be read count as none."""
    metadata = obj["metadata"]
    try:
        decisions = gpuworkloads.read_decisions(obj)
    except Malformed:
        decisions = ()
    return Ledger(
        key=WorkloadKey(metadata.get("namespace", "default"), metadata["name"]),
        pod=PodUid((obj.get("spec") or {}).get("podUID", "")),
        version=metadata.get("resourceVersion", ""),
        decisions=decisions,
    )


def _workload(pod: Obj) -> Workload:
    """A pod whose annotations cannot be read still takes up a seat."""
    try:
        found = pods.read_workload(pod)
    except Malformed:
        bare = {**pod, "metadata": {**pod["metadata"], "annotations": {}}}
        found = pods.read_workload(bare)
        assert found is not None
        return replace(found, wishes=Wishes())
    assert found is not None
    return found


def _unschedulable(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") == "PodScheduled" and one.get("reason") == "Unschedulable"
        for one in conditions
    )
