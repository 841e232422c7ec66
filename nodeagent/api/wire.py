"""Messages of agent.proto to our values and back. Pure."""

from collections.abc import Iterable, Mapping

from kybernate.clients.pb import agent_pb2 as pb
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import Demand
from kybernate.model.ids import NodeName, PodUid, WorkloadKey
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.verdict import Refusal
from kybernate.model.workload import State
from nodeagent.demand.told import LONGEST_S
from nodeagent.gpus.cards import Picture
from nodeagent.lives.feed import Doing, Ended, Update
from nodeagent.lives.phases import PhaseTime
from nodeagent.reporting.standing import tier_of

_PHASES: Mapping[Doing, "pb.Phase.ValueType"] = {
    Doing.WAITING: pb.WAITING,
    Doing.PARKING: pb.PARKING,
    Doing.RESUMING: pb.RESUMING,
    Doing.VERIFYING: pb.VERIFYING,
    Doing.SEALING: pb.SEALING,
    Doing.WAKING: pb.WAKING,
    Doing.DEMOTING: pb.DEMOTING,
    Doing.PROMOTING: pb.PROMOTING,
    Doing.DONE: pb.DONE,
}


def key_of(ref: pb.WorkloadRef) -> WorkloadKey:
    """Raises ValueError for a reference without a name."""
    if not ref.name:
        raise ValueError("a workload is named by namespace and name")
    return WorkloadKey(ref.namespace or "default", ref.name)


def ref_of(key: WorkloadKey, uid: PodUid) -> pb.WorkloadRef:
    """A workload's reference."""
    return pb.WorkloadRef(namespace=key.namespace, name=key.name, pod_uid=uid)


def demand_report(
    request: pb.ReportDemandRequest,
) -> tuple[str, dict[WorkloadKey, tuple[PodUid | None, int]]]:
    """Who tells, and what is in flight. Raises ValueError."""
    if not request.reporter:
        raise ValueError("reporter: a name that stays, like the activator's pod")
    if not 0 <= request.valid_seconds <= LONGEST_S:
        raise ValueError(f"valid_seconds {request.valid_seconds:g}: 0 to {LONGEST_S:g}")
    counts = {
        key_of(one.workload): (PodUid(one.workload.pod_uid) or None, one.count)
        for one in request.requests
    }
    return request.reporter, counts


def progress(update: Update) -> pb.Progress:
    """One update, without an outcome: that belongs to whoever asked."""
    return pb.Progress(
        workload=ref_of(update.key, update.uid),
        state=update.state.value,
        phase=_PHASES[update.doing],
        bytes_done=update.done,
        bytes_total=update.total,
        seconds_left=update.seconds_left,
        message=update.message,
    )


def standing(tenancy: Tenancy, why: str) -> pb.Progress:
    """How a workload is at this moment."""
    phase = pb.DONE if tenancy.state is State.ACTIVE else pb.WAITING
    return pb.Progress(
        workload=ref_of(tenancy.key, tenancy.uid),
        state=tenancy.state.value,
        phase=phase if not tenancy.in_vram or phase == pb.DONE else pb.RESUMING,
        message=why,
    )


def outcome(ended: Ended, seconds: float, phases: Iterable[PhaseTime]) -> pb.Outcome:
    """The last word on a request."""
    return pb.Outcome(
        ok=ended.ok,
        reason=ended.reason.name if ended.reason else "",
        message=ended.message or (ended.reason.value if ended.reason else ""),
        seconds=seconds,
        phases=[pb.PhaseTime(name=p.name, seconds=p.seconds, bytes=p.size) for p in phases],
        checkpoint=ended.checkpoint,
    )


def refused(refusal: Refusal) -> Ended:
    """A refusal as the end of a request."""
    return Ended(ok=False, reason=refusal.reason, message=str(refusal))


def node_status(
    node: NodeName,
    books: Books,
    picture: Picture | None,
    whys: Mapping[WorkloadKey, str],
    now: float,
) -> pb.NodeStatus:
    """Cards and workloads. Revision and tiers are the caller's to add."""
    ledger = books.ledger()
    return pb.NodeStatus(
        node=node,
        gpus=[
            pb.GpuStatus(
                index=gpu.index,
                uuid=gpu.uuid,
                product=gpu.product,
                memory=gpu.memory,
                used=picture.used.get(gpu.index, 0),
                booked=ledger.booked(gpu.index),
                health=gpu.health.value,
            )
            for gpu in (picture.gpus if picture else ())
            if picture is not None
        ],
        workloads=[
            _workload(tenancy, whys.get(key, ""), now)
            for key, tenancy in sorted(books.tenancies.items())
        ],
    )


def tiers(rooms: Mapping[Tier, Room], bandwidths: Mapping[Tier, Bandwidth]) -> list[pb.TierStatus]:
    """Room and rate of each tier."""
    found = []
    for tier, room in rooms.items():
        rate = bandwidths.get(tier)
        found.append(
            pb.TierStatus(
                tier=tier.value,
                capacity=room.capacity,
                used=room.used,
                bytes_per_second=rate.bytes_per_second if rate else 0.0,
            )
        )
    return found


def _workload(tenancy: Tenancy, why: str, now: float) -> pb.WorkloadStatus:
    tier = tier_of(tenancy)
    idle = -1.0 if tenancy.idle_since is None else max(0.0, now - tenancy.idle_since)
    return pb.WorkloadStatus(
        demand=_demand(tenancy.demand, None if idle < 0 else idle),
        workload=ref_of(tenancy.key, tenancy.uid),
        state=tenancy.state.value,
        seat=tenancy.seat.id,
        gpus=tenancy.gpus,
        vram=tenancy.vram,
        tier=tier.value if tier else "",
        seconds_in_state=max(0.0, now - tenancy.since),
        why=why,
        workload_class=tenancy.workload_class.value,
        priority=tenancy.priority,
        idle_seconds=idle,
    )


def _demand(demand: Demand | None, idle: float | None) -> pb.WorkloadDemand | None:
    """`idle` is by the books, which know it of now."""
    if demand is None:
        return None
    return pb.WorkloadDemand(
        wanted=demand.wanted,
        busy=demand.busy,
        in_flight=demand.in_flight,
        idle_seconds=idle,
        why=demand.why,
    )
