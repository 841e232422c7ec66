"""
The first record of a workload: who it is, what it asked for, and whether it may start at all. Pure,
but for the clock.

Called by: containers (held at their FIFO), wakings (made from a checkpoint).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.model.gpu import Group, Seat
from kybernate.model.ids import GpuUuid
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import ParkMechanism, Workload
from nodeagent.disk.records import Mark, Record, Terms

UNKNOWN = ""  # the container id of a life whose record was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where records are made."""

    uuids: Mapping[int, GpuUuid]
    boot: str
    clock: Clock
    parkable: bool  # whether there is a mechanism to park with


def record_of(
    place: Place, workload: Workload, seat: Seat, group: Group, container_id: str
) -> Record:
    """Of a container that has no process yet. It wants its GPU from now on."""
    now = place.clock.now()
    return Record(
        key=workload.key,
        uid=workload.uid,
        seat=seat,
        container=workload.seat_container,
        container_id=container_id,
        pid=0,
        pid_started=0,
        exec_fifo="",
        boot=place.boot,
        terms=terms(workload, group, place.parkable),
        cards=tuple(place.uuids[index] for index in group.gpus),
        since=now,
        wanted_since=now,
    )


def record_of_nobody(place: Place, pod: Workload, seat: Seat, group: Group) -> Record:
    """Of a pod whose own record cannot be read: what it holds is nobody's to touch."""
    return Record(
        key=pod.key,
        uid=pod.uid,
        seat=seat,
        container=pod.seat_container,
        container_id=UNKNOWN,
        pid=0,
        pid_started=0,
        exec_fifo="",
        boot=place.boot,
        terms=terms(pod, group, False),
        mark=Mark.QUARANTINED,
        since=place.clock.now(),
    )


def terms(workload: Workload, group: Group, parkable: bool) -> Terms:
    """What the pod asks for, on this group."""
    wishes = workload.wishes
    barred = _barred(workload, group)
    return Terms(
        resource=workload.resource,
        vram=min(wishes.vram or group.vram, group.vram),
        workload_class=wishes.workload_class,
        priority=workload.priority,
        min_runtime=wishes.min_runtime,
        idle_after=wishes.idle_after,
        pinned=wishes.pinned,
        parkable=_parkable(parkable, wishes.park),
        park=wishes.park,
        barred_reason=barred.reason.name if barred else "",
        barred_detail=barred.detail if barred else "",
    )


def _parkable(usually: bool, wish: ParkMechanism) -> bool:
    """A server that sleeps by itself needs nothing of the node."""
    return (usually or wish is ParkMechanism.VLLM_SLEEP) and wish is not ParkMechanism.NEVER


def _barred(workload: Workload, group: Group) -> Refusal | None:
    """Why it must not start on the seat it was given."""
    wishes = workload.wishes
    if wishes.require_group not in (None, group.name):
        detail = f"it requires {wishes.require_group} and was given a seat on {group.name}"
        return Refusal(reason=Reason.GROUP_ABSENT, detail=detail)
    if (wishes.vram or 0) > group.vram:
        detail = f"{(wishes.vram or 0) / 2**30:.0f} GiB wanted of {group.vram / 2**30:.0f}"
        return Refusal(reason=Reason.VRAM_TOO_SMALL, detail=detail)
    return None
