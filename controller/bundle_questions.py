"""
One ordinary question to each package, that a bundle must answer before it is published. Pure.

Called by `bundles`. Compiling proves that a policy is Rego; only asking proves that it gives
verdicts. An ordinary question must have one: what stays undefined then would refuse everybody.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kybernate.api import policy
from kybernate.api.errors import Malformed
from kybernate.model.ids import NO_REVISION, GroupName, WorkloadKey
from kybernate.model.policy import (
    AdmissionQuestion,
    Calendar,
    CheckpointFacts,
    GroupFacts,
    NodeClass,
    PlacementQuestion,
    PreemptionQuestion,
    RetentionQuestion,
    SharingQuestion,
    TenantFacts,
    TieringQuestion,
    TimesliceQuestion,
)
from kybernate.model.workload import State, WorkloadClass

_GIB = 1024**3
_RESOURCE = "kyb.ai/gpu-1x-seat"
_GROUP = GroupFacts(name=GroupName("G0"), gpus=(0,), vram=80 * _GIB, seats=4, waiting=3)
_MONDAY_NOON = Calendar(weekday=0, hour=12, minute=0)


def _tenant(name: str, of: WorkloadClass, state: State) -> TenantFacts:
    return TenantFacts(
        key=WorkloadKey("default", name),
        workload_class=of,
        priority=0,
        vram=40 * _GIB,
        state=state,
        running_seconds=1.0,
        waiting_seconds=1.0,
        idle_seconds=0.0,
        gpus=(0,),
    )


_HOLDER = _tenant("holder", WorkloadClass.INFERENCE, State.ACTIVE)
_WAITING = tuple(_tenant(f"{of}-waits", of, State.PARKED) for of in WorkloadClass)

_ADMISSION = AdmissionQuestion(
    pod={"metadata": {"annotations": {}}, "spec": {"containers": []}},
    namespace="default",
    namespace_labels={},
    resource=_RESOURCE,
    vram=40 * _GIB,
    seats_used={},
)
_PLACEMENT = PlacementQuestion(
    key=WorkloadKey("default", "incoming"),
    workload_class=WorkloadClass.INFERENCE,
    priority=0,
    vram=40 * _GIB,
    resource=_RESOURCE,
    classes=(NodeClass(id="ordinary", product="NVIDIA H100", labels={}, healthy=True),),
)
_PREEMPTION = PreemptionQuestion(
    incoming=_WAITING[0], holder=_HOLDER, group=_GROUP, calendar=_MONDAY_NOON, slice_seconds=1.0
)
_TIMESLICE = TimesliceQuestion(
    group=_GROUP, holders=(_HOLDER,), waiting=_WAITING, calendar=_MONDAY_NOON
)
_TIERING = TieringQuestion(workload=_HOLDER, waiting=0, ram_free=400 * _GIB, calendar=_MONDAY_NOON)

_RETENTION = RetentionQuestion(
    namespace="default",
    workload="statefulset.llama.0",
    keep=1,
    checkpoints=(
        CheckpointFacts(name="old", age_seconds=3600.0, size=40 * _GIB),
        CheckpointFacts(name="new", age_seconds=60.0, size=40 * _GIB),
    ),
)

_SHARING = SharingQuestion(by="default", namespace="models", name="llama-gold")

QUESTIONS: Mapping[str, dict[str, Any]] = {
    "admission": policy.write_admission(_ADMISSION),
    "placement": policy.write_placement(_PLACEMENT),
    "preemption": policy.write_preemption(_PREEMPTION),
    "retention": policy.write_retention(_RETENTION),
    "sharing": policy.write_sharing(_SHARING),
    "tiering": policy.write_tiering(_TIERING),
    "timeslice": policy.write_timeslice(_TIMESLICE),
}
"""The input by package."""

_READERS: Mapping[str, Callable[[object], object]] = {
    "admission": lambda result: policy.read_admission(result, NO_REVISION),
    "placement": lambda result: policy.read_placement(result, NO_REVISION),
    "preemption": lambda result: policy.read_preemption(result, NO_REVISION),
    "retention": lambda result: policy.read_retention(result, NO_REVISION),
    "sharing": lambda result: policy.read_sharing(result, NO_REVISION),
    "tiering": lambda result: policy.read_tiering(result, NO_REVISION),
    "timeslice": lambda result: policy.read_timeslice(result, _TIMESLICE, NO_REVISION),
}


def faults(package: str, answers: Sequence[Any]) -> list[str]:
    """What is wrong with a package's answer, a sentence each; no answer means undefined."""
    if not answers:
        return [f"kyb.{package}.verdict is undefined for an ordinary question"]
    try:
        _READERS[package](answers[0])
    except Malformed as problem:
        return [f"kyb.{package}.verdict is not a verdict: {fault}" for fault in problem.faults]
    return []
