"""
`GpuNode` to `NodeState` and back: how a node looks to placement.

Written by the agent (`write_status`), read by the extender and the controller (`read_node`).
Rule: seconds and sizes are whole numbers on the wire, so that two writers print the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kybernate.api import fields, names, quantity, timestamps
from kybernate.api.fields import Reader
from kybernate.model.gpu import Gpu, Group, Health, Profile, Seat
from kybernate.model.ids import GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.node import NodeState, Tenant
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.workload import State, WorkloadClass

Obj = Mapping[str, Any]

# Characters, the limits of the schema in manifests/components/crd.
_LONGEST_ACTIVE = 1024
_LONGEST_MESSAGE = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One of a node's conditions. `since` is when its status last changed, in epoch seconds."""

    type: str
    holds: bool
    since: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the agent sees besides the books: cards, driver, mechanisms. Times are epoch seconds."""

    at: float
    ready_since: float  # when the agent began to report: the Ready condition's last transition
    gpus: Sequence[Gpu] = ()
    used: Mapping[int, int] = field(default_factory=dict)  # bytes by GPU index, as NVML shows them
    driver: str = ""
    mechanisms: Sequence[str] = ()
    policy_revision: str = ""
    endpoint: str = ""  # HOST:PORT of the agent
    conditions: Sequence[Condition] = ()  # beside Ready


def read_node(obj: Obj) -> NodeState:
    """The node of a GpuNode. Raises Malformed with every fault and its path."""
    ready = fields.condition(obj, "Ready") == "True"
    metadata = obj["metadata"]
    return fields.read(
        obj.get("status") or {}, "status", lambda status: _node(status, metadata, ready)
    )


def new_object(node: NodeName) -> dict[str, Any]:
    """A GpuNode without status, as the agent creates it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuNode",
        "metadata": {"name": node},
    }


def write_status(node: NodeState, seen: Observed) -> dict[str, Any]:
    """The whole `status`. `read_node` reads the same NodeState back."""
    status = {
        "product": node.product,
        "driver": seen.driver,
        "gpus": [_write_gpu(gpu, seen.used) for gpu in seen.gpus],
        "groups": [
            _write_group(group, node.group_health.get(group.name, Health.HEALTHY))
            for group in node.groups.values()
        ],
        "tenants": [_write_tenant(tenant) for tenant in node.tenants],
        "tiers": [
            {"tier": tier.value, "capacityBytes": room.capacity, "usedBytes": room.used}
            for tier, room in node.rooms.items()
        ],
        "bandwidths": [
            {
                "tier": tier.value,
                "bytesPerSecond": round(rate.bytes_per_second),
                "spreadPercent": round(rate.spread * 100),
            }
            for tier, rate in node.bandwidths.items()
        ],
        "mechanisms": list(seen.mechanisms),
        "policyRevision": seen.policy_revision,
        "endpoint": seen.endpoint,
        "observedAt": timestamps.rfc3339(seen.at),
        "summary": _summary(node, len(seen.gpus), seen.mechanisms),
    }
    others = [_condition(one) for one in seen.conditions]
    status["conditions"] = [ready_condition(node.agent_ready, seen.ready_since), *others]
    return status


def ready_condition(
    ready: bool | None, since: float, reason: str = "", message: str = ""
) -> dict[str, Any]:
    """The Ready condition; None means Unknown: the agent's Lease is stale."""
    default = {True: "AgentReports", False: "AgentNotReady", None: "AgentAway"}[ready]
    return {
        "type": "Ready",
        "status": {True: "True", False: "False", None: "Unknown"}[ready],
        "reason": reason or default,
        "message": message,
        "lastTransitionTime": timestamps.rfc3339(since),
    }


def _condition(one: Condition) -> dict[str, Any]:
    return {
        "type": one.type,
        "status": "True" if one.holds else "False",
        "reason": one.reason,
        "message": one.message[:_LONGEST_MESSAGE],
        "lastTransitionTime": timestamps.rfc3339(one.since),
    }


def _node(status: Reader, metadata: Obj, ready: bool) -> NodeState:
    groups = [(_group(reader), reader) for reader in status.each("groups")]
    return NodeState(
        name=NodeName(metadata["name"]),
        groups={group.name: group for group, _ in groups},
        group_health={group.name: _health(reader) for group, reader in groups},
        tenants=tuple(_tenant(reader) for reader in status.each("tenants")),
        bandwidths={_tier(reader): _bandwidth(reader) for reader in status.each("bandwidths")},
        rooms={_tier(reader): _room(reader) for reader in status.each("tiers")},
        product=status.text("product", ""),
        labels=metadata.get("labels") or {},
        agent_ready=ready,
    )


def _group(reader: Reader) -> Group:
    gpus = _indices(reader)
    profile = Profile(
        name=reader.text("profile"),
        resource=ResourceName(reader.text("resource")),
        group_size=len(gpus),
        seats_per_group=reader.integer("seats"),
        active_per_group=reader.integer("activePerGroup", 1),
    )
    return Group(
        name=GroupName(reader.text("name")),
        gpus=gpus,
        profile=profile,
        vram=reader.integer("vramBytes"),
    )


def _indices(reader: Reader) -> tuple[int, ...]:
    gpus = reader.sequence("gpus")
    if all(type(index) is int and index >= 0 for index in gpus):
        return tuple(gpus)
    reader.faults.add(f"{reader.path}.gpus", list(gpus), "GPU indices")
    return ()


def _health(reader: Reader) -> Health:
    return reader.one_of("health", Health, Health.UNKNOWN)


def _tier(reader: Reader) -> Tier:
    return reader.one_of("tier", Tier)


def _bandwidth(reader: Reader) -> Bandwidth:
    rate = reader.integer("bytesPerSecond")
    if rate == 0:
        reader.faults.add(f"{reader.path}.bytesPerSecond", 0, "a number above 0")
    return Bandwidth(bytes_per_second=rate, spread=reader.integer("spreadPercent", 10) / 100)


def _room(reader: Reader) -> Room:
    return Room(capacity=reader.integer("capacityBytes"), used=reader.integer("usedBytes", 0))


def _tenant(reader: Reader) -> Tenant:
    workload = reader.below("workload")
    seat = reader.parsed("seat", Seat.parse, Seat(GroupName(""), 0))
    return Tenant(
        key=WorkloadKey(workload.text("namespace"), workload.text("name")),
        uid=PodUid(workload.text("uid")),
        group=GroupName(reader.text("group")),
        seat=seat,
        state=reader.one_of("state", State),
        vram=reader.integer("vramBytes"),
        workload_class=reader.one_of("class", WorkloadClass, WorkloadClass.INFERENCE),
        priority=reader.signed("priority", 0),
        min_runtime_until=reader.time("minRuntimeUntil"),
        tier=_tier(reader) if reader.value.get("tier") else None,
        waits=reader.flag("waits"),
    )


def _summary(node: NodeState, gpus: int, mechanisms: Sequence[str]) -> dict[str, Any]:
    """The columns of `kubectl get gpunodes`, which can neither count nor join."""
    seats = sum(group.profile.seats_per_group for group in node.groups.values())
    active = [f"{one.key} on {one.group}" for one in node.tenants if one.state is State.ACTIVE]
    written = {
        "gpus": gpus,
        "seats": f"{len(node.tenants)}/{seats}",
        "active": ", ".join(active)[:_LONGEST_ACTIVE],
        "waiting": sum(one.waits for one in node.tenants),
        "mechanisms": ", ".join(mechanisms),
    }
    used = {tier.value: _used(node, tier) for tier in (Tier.RAM, Tier.NVME, Tier.OBJECT)}
    return _with(written, **used)


def _used(node: NodeState, tier: Tier) -> str | None:
    room, size = node.rooms.get(tier), quantity.readable_bytes
    return f"{size(room.used)} of {size(room.capacity)}" if room else None


def _write_gpu(gpu: Gpu, used: Mapping[int, int]) -> dict[str, Any]:
    written = {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "memoryBytes": gpu.memory,
        "usedBytes": used.get(gpu.index, 0),
        "health": gpu.health.value,
    }
    return _with(written, numa=gpu.numa)


def _write_group(group: Group, health: Health) -> dict[str, Any]:
    return {
        "name": group.name,
        "gpus": list(group.gpus),
        "resource": group.profile.resource,
        "profile": group.profile.name,
        "seats": group.profile.seats_per_group,
        "activePerGroup": group.profile.active_per_group,
        "vramBytes": group.vram,
        "health": health.value,
    }


def _write_tenant(tenant: Tenant) -> dict[str, Any]:
    until = tenant.min_runtime_until
    written = {
        "workload": {
            "namespace": tenant.key.namespace,
            "name": tenant.key.name,
            "uid": tenant.uid,
        },
        "group": tenant.group,
        "seat": tenant.seat.id,
        "state": tenant.state.value,
        "vramBytes": tenant.vram,
        "class": tenant.workload_class.value,
        "priority": tenant.priority,
    }
    return _with(
        written,
        minRuntimeUntil=timestamps.rfc3339(until) if until else None,
        tier=tenant.tier.value if tenant.tier else None,
        waits=True if tenant.waits else None,
    )


def _with(written: dict[str, Any], **optional: object) -> dict[str, Any]:
    return written | {name: value for name, value in optional.items() if value is not None}
