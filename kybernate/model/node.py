"""A node as its agent publishes it (`GpuNode`), and who is on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.gpu import Group, Health, Seat
from kybernate.model.ids import GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.workload import State, WorkloadClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One workload on a group as the agent reports it. Seconds are at the time of the report."""

    key: WorkloadKey
    uid: PodUid
    group: GroupName
    seat: Seat
    state: State
    vram: int
    workload_class: WorkloadClass = WorkloadClass.INFERENCE
    priority: int = 0
    min_runtime_until: float = 0.0  # wall clock, seconds since the epoch; 0 = may be parked now
    tier: Tier | None = None  # where the contents are when not in VRAM
    waits: bool = False  # wants the GPU and has not got it: its first turn, or the next one


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """Everything placement needs of one node."""

    name: NodeName
    groups: Mapping[GroupName, Group]
    group_health: Mapping[GroupName, Health] = field(default_factory=dict)
    tenants: tuple[Tenant, ...] = ()
    # from each tier to the next hotter one: NVMe and object storage to RAM, RAM to VRAM (the bus)
    bandwidths: Mapping[Tier, Bandwidth] = field(default_factory=dict)
    rooms: Mapping[Tier, Room] = field(default_factory=dict)
    product: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    agent_ready: bool = True

    def groups_of(self, resource: ResourceName) -> tuple[Group, ...]:
        """The groups that give out seats of this resource, by name."""
        found = (g for g in self.groups.values() if g.profile.resource == resource)
        return tuple(sorted(found, key=lambda g: g.name))
