"""Messages of an agent's, turned into values. Called by: `agent`. Pure."""

from kybernate.clients.agents.values import (
    CardState,
    NodeView,
    Outcome,
    PhaseTime,
    Progress,
    TierState,
    WorkloadState,
)
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.model.demand import Demand
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State


def progress(message: pb.Progress) -> Progress:
    return Progress(
        key=WorkloadKey(message.workload.namespace, message.workload.name),
        uid=PodUid(message.workload.pod_uid),
        state=State(message.state),
        phase=pb.Phase.Name(message.phase).lower(),
        done=message.bytes_done,
        total=message.bytes_total,
        seconds_left=message.seconds_left,
        message=message.message,
        outcome=outcome(message.outcome) if message.HasField("outcome") else None,
    )


def outcome(message: pb.Outcome) -> Outcome:
    return Outcome(
        ok=message.ok,
        reason=message.reason,
        message=message.message,
        seconds=message.seconds,
        phases=tuple(
            PhaseTime(name=p.name, seconds=p.seconds, size=p.bytes) for p in message.phases
        ),
        checkpoint=message.checkpoint,
    )


def view(message: pb.NodeStatus) -> NodeView:
    return NodeView(
        node=message.node,
        cards=tuple(
            CardState(
                index=gpu.index,
                uuid=gpu.uuid,
                product=gpu.product,
                memory=gpu.memory,
                used=gpu.used,
                booked=gpu.booked,
                health=gpu.health,
            )
            for gpu in message.gpus
        ),
        workloads=tuple(_workload(one) for one in message.workloads),
        tiers=tuple(
            TierState(
                tier=tier.tier,
                capacity=tier.capacity,
                used=tier.used,
                bytes_per_second=tier.bytes_per_second,
            )
            for tier in message.tiers
        ),
        policy_revision=message.policy_revision,
    )


def _workload(message: pb.WorkloadStatus) -> WorkloadState:
    return WorkloadState(
        key=WorkloadKey(message.workload.namespace, message.workload.name),
        uid=PodUid(message.workload.pod_uid),
        state=State(message.state),
        seat=message.seat,
        gpus=tuple(message.gpus),
        vram=message.vram,
        tier=message.tier,
        seconds_in_state=message.seconds_in_state,
        why=message.why,
        workload_class=message.workload_class,
        priority=message.priority,
        idle_seconds=None if message.idle_seconds < 0 else message.idle_seconds,
        demand=_demand(message.demand) if message.HasField("demand") else None,
    )


def _demand(message: pb.WorkloadDemand) -> Demand:
    return Demand(
        wanted=message.wanted,
        busy=message.busy,
        in_flight=message.in_flight if message.HasField("in_flight") else None,
        idle_for=message.idle_seconds if message.HasField("idle_seconds") else None,
        why=message.why,
    )
