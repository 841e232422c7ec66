"""
`GpuWorkload`: one per seat pod, named as the pod, owned by it.

The controller makes the object (`new_object`), people set `spec.desired`, the agent writes `status`
(`write_status`), and whoever decides appends to `status.decisions` (`append`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kybernate.api import fields, names, timestamps
from kybernate.api.fields import Reader
from kybernate.model.demand import Demand
from kybernate.model.ids import PodUid, ResourceName, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import Desired, State, Workload, WorkloadClass

Obj = Mapping[str, Any]

FINISHED = "Finished"  # the condition that says its pod has ended for good
PARKABLE = "Parkable"  # the condition that says what keeps it from being parked as it runs
KEPT = 10  # decisions in the status: design section 4, Explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is wanted of a workload, and which life of the pod it is about."""

    key: WorkloadKey
    pod_uid: PodUid
    resource: ResourceName
    desired: Desired = Desired.AUTO
    workload_class: WorkloadClass = WorkloadClass.INFERENCE
    priority: int = 0
    vram: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a switch and what it took."""

    name: str
    seconds: float
    size: int = 0  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A workload as its agent sees it. `since` is seconds since the epoch."""

    state: State
    since: float
    node: str = ""
    group: str = ""
    seat: str = ""
    tier: Tier | None = None
    mechanism: str = ""
    why: str = ""  # why it waits or is where it is: one line for people
    seconds_in: Mapping[State, float] = field(default_factory=dict)
    last_switch: Sequence[Phase] = ()
    demand: Demand | None = None  # None: nobody has looked
    last_switch_seconds: float = 0.0  # start to end; what the phases leave unaccounted shows
    worked_at: float = (
        0.0  # when it was last seen busy, seconds since the epoch; 0: nobody can tell
    )


def new_object(workload: Workload) -> dict[str, Any]:
    """The GpuWorkload of a pod, with the pod as its owner, as the controller creates it."""
    spec: dict[str, Any] = {
        "desired": Desired.AUTO.value,
        "podUID": workload.uid,
        "resource": workload.resource,
        "class": workload.wishes.workload_class.value,
        "priority": workload.priority,
    }
    if workload.wishes.vram is not None:
        spec["vramBytes"] = workload.wishes.vram
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": workload.key.name,
        "uid": workload.uid,
        "controller": True,
        "blockOwnerDeletion": False,  # a pod's end never waits for its book-keeping
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuWorkload",
        "metadata": {
            "namespace": workload.key.namespace,
            "name": workload.key.name,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def read_spec(obj: Obj) -> Spec:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]
    key = WorkloadKey(metadata.get("namespace", "default"), metadata["name"])
    return fields.read(obj.get("spec") or {}, "spec", lambda spec: _spec(spec, key))


def read_status(obj: Obj) -> Status | None:
    """What the agent wrote; None before it did. Raises Malformed.

    Before it did the API server says Absent, of no node: the schema's default.
    """
    status = obj.get("status") or {}
    if status.get("state", State.ABSENT) == State.ABSENT and not status.get("node"):
        return None
    return fields.read(status, "status", _status)


def write_status(status: Status) -> dict[str, Any]:
    """The agent's part of the status, for a merge patch: absent optional values become null."""
    return {
        "state": status.state.value,
        "since": timestamps.rfc3339(status.since),
        "node": status.node or None,
        "group": status.group or None,
        "seat": status.seat or None,
        "tier": status.tier.value if status.tier else None,
        "mechanism": status.mechanism or None,
        "why": status.why,
        "secondsIn": {
            state.value: round(seconds, 3) for state, seconds in status.seconds_in.items()
        },
        "lastSwitch": _write_switch(status),
        "demand": _write_demand(status),
    }


def finished_condition(now: float) -> dict[str, Any]:
    """Written by the controller: the seat is free, the object stays as long as the pod does."""
    return {
        "type": FINISHED,
        "status": "True",
        "reason": "PodEnded",
        "message": "the pod has ended; its seat is free",
        "lastTransitionTime": timestamps.rfc3339(now),
    }


def parkable_condition(holds: bool, reason: str, message: str, since: float) -> dict[str, Any]:
    """Written by the agent while the workload runs. `since` is when `holds` last changed."""
    return {
        "type": PARKABLE,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamps.rfc3339(since),
    }


def unparkable(obj: Obj) -> str:
    """What keeps it from being parked, in words; empty where nothing does, or nobody has looked."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found["type"] == PARKABLE and found["status"] == "False":
            return str(found.get("message") or found["reason"])
    return ""


def read_decisions(obj: Obj) -> tuple[Decision, ...]:
    """The kept decisions, oldest first. Raises Malformed."""
    status = obj.get("status") or {}
    return fields.read(
        status, "status", lambda reader: tuple(map(_decision, reader.each("decisions")))
    )


def append(kept: Sequence[Decision], decision: Decision) -> tuple[Decision, ...]:
    """The last ten. The same decision again only moves its time: it must not push others out."""
    if kept and _same(kept[-1], decision):
        kept = kept[:-1]
    return (*kept, decision)[-KEPT:]


def write_decisions(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """The value of `status.decisions`."""
    return [_write_decision(decision) for decision in decisions]


def _same(one: Decision, other: Decision) -> bool:
    return (one.reason, one.message, one.revision) == (other.reason, other.message, other.revision)


def _spec(spec: Reader, key: WorkloadKey) -> Spec:
    return Spec(
        key=key,
        pod_uid=PodUid(spec.text("podUID")),
        resource=ResourceName(spec.text("resource")),
        desired=spec.one_of("desired", Desired, Desired.AUTO),
        workload_class=spec.one_of("class", WorkloadClass, WorkloadClass.INFERENCE),
        priority=spec.signed("priority", 0),
        vram=spec.integer("vramBytes") if "vramBytes" in spec.value else None,
    )


def _status(status: Reader) -> Status:
    switch = status.below("lastSwitch")
    return Status(
        state=status.one_of("state", State),
        since=status.time("since"),
        node=status.text("node", ""),
        group=status.text("group", ""),
        seat=status.text("seat", ""),
        tier=status.one_of("tier", Tier) if status.value.get("tier") else None,
        mechanism=status.text("mechanism", ""),
        why=status.text("why", ""),
        seconds_in=_seconds_in(status.below("secondsIn")),
        last_switch=tuple(map(_phase, switch.each("phases"))),
        last_switch_seconds=switch.seconds("seconds", 0.0),
        demand=_demand(status.below("demand")),
        worked_at=status.below("demand").time("workedAt"),
    )


def _seconds_in(reader: Reader) -> dict[State, float]:
    return {state: reader.seconds(state) for state in State if state in reader.value}


def _phase(reader: Reader) -> Phase:
    return Phase(
        name=reader.text("name"),
        seconds=reader.seconds("seconds"),
        size=reader.integer("bytes", 0),
    )


def _write_switch(status: Status) -> dict[str, Any] | None:
    if not status.last_switch:
        return None
    phases = [
        {"name": phase.name, "seconds": round(phase.seconds, 3), "bytes": phase.size}
        for phase in status.last_switch
    ]
    return {"phases": phases, "seconds": round(status.last_switch_seconds, 3)}


def _demand(reader: Reader) -> Demand | None:
    if not reader.value:
        return None
    counted, timed = reader.value.get("inFlight"), reader.value.get("idleSeconds")
    return Demand(
        wanted=bool(reader.value.get("wanted")),
        busy=bool(reader.value.get("busy")),
        in_flight=None if counted is None else reader.integer("inFlight"),
        idle_for=None if timed is None else reader.seconds("idleSeconds"),
        why=reader.text("why", ""),
    )


def _write_demand(status: Status) -> dict[str, Any] | None:
    """Numbers that nobody knows are null: a merge patch would keep those of before."""
    demand = status.demand
    if demand is None:
        return None
    return {
        "wanted": demand.wanted,
        "busy": demand.busy,
        "inFlight": demand.in_flight,
        "idleSeconds": None if demand.idle_for is None else round(demand.idle_for, 1),
        "workedAt": timestamps.rfc3339_micro(status.worked_at) if status.worked_at else None,
        "why": demand.why,
    }


def _decision(reader: Reader) -> Decision:
    return Decision(
        time=reader.text("time"),
        reason=reader.one_of("reason", EventReason),
        message=reader.text("message", ""),
        revision=reader.text("revision", ""),
        seconds=reader.seconds("seconds") if "seconds" in reader.value else None,
    )


def _write_decision(decision: Decision) -> dict[str, Any]:
    written: dict[str, Any] = {
        "time": decision.time,
        "reason": decision.reason.value,
        "message": decision.message,
    }
    if decision.revision:
        written["revision"] = decision.revision
    if decision.seconds is not None:
        written["seconds"] = round(decision.seconds, 3)
    return written
