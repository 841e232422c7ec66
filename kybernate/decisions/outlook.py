"""
What starting on each group of a node would take, whoever it is.

Called by: the extender's view when a node changed, and by replay. The rest of placement is then a
few comparisons per node and demand, which is what keeps 5,000 nodes affordable.
Rule: what is not reported counts against the node: an unknown health is unhealthy, an unknown RAM
tier has no room.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kybernate.decisions import estimates
from kybernate.model.cluster import Arrival, NodeView
from kybernate.model.estimate import Item
from kybernate.model.gpu import Group, Health
from kybernate.model.ids import NodeName, ResourceName
from kybernate.model.node import NodeState, Tenant
from kybernate.model.tier import Bandwidth, Room, Tier, can_leave_ram
from kybernate.model.workload import State

HOLDING = frozenset({State.ACTIVE, State.ACTIVATING, State.PARKING})
"""States in which a tenant has its VRAM."""
WAITING = frozenset({State.WAITING, State.WAKING})
"""States in which a tenant waits for its first turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutlook:
    """One group. Bytes and seconds; `not_before` is when its holders may go, on the wall clock."""

    group: Group
    healthy: bool
    seat_free: bool
    room_to_park: bool
    beside: int  # VRAM a newcomer may have without anybody being parked; -1: somebody must go
    not_before: float
    park: tuple[Item, ...]
    park_seconds: float
    park_spread: float
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutlook:
    """A node's groups by the resource that gives out their seats."""

    name: NodeName
    agent_ready: bool
    class_id: str  # see `classes.py`
    rates: Mapping[Tier, Bandwidth]
    groups: Mapping[ResourceName, tuple[GroupOutlook, ...]]
    nominated: tuple[Arrival, ...]  # not in `waiting`: who counts depends on who asks


def of(view: NodeView, class_id: str) -> NodeOutlook:
    """The outlook of a node."""
    state = view.state
    bound = tuple(arrival for arrival in view.arrivals if not arrival.nominated)
    groups: dict[ResourceName, tuple[GroupOutlook, ...]] = {}
    for group in sorted(state.groups.values(), key=lambda g: g.name):
        resource = group.profile.resource
        groups[resource] = (*groups.get(resource, ()), _outlook(state, group, bound))
    return NodeOutlook(
        name=state.name,
        agent_ready=state.agent_ready,
        class_id=class_id,
        rates=state.bandwidths,
        groups=groups,
        nominated=tuple(arrival for arrival in view.arrivals if arrival.nominated),
    )


def _outlook(state: NodeState, group: Group, bound: tuple[Arrival, ...]) -> GroupOutlook:
    near = [t for t in state.tenants if _shares_gpu(state, t, group)]
    holders = tuple(t for t in near if t.state in HOLDING)
    park, spread = estimates.park(holders, state.bandwidths)
    return GroupOutlook(
        group=group,
        healthy=state.group_health.get(group.name, Health.UNKNOWN) is Health.HEALTHY,
        seat_free=_seats_taken(state, group, bound) < group.profile.seats_per_group,
        room_to_park=not holders or _ram(state) >= _vram(holders),
        beside=_beside(group, holders),
        not_before=max((t.min_runtime_until for t in holders), default=0.0),
        park=park,
        park_seconds=sum(item.seconds for item in park),
        park_spread=spread,
        waiting=len(bound) + sum(t.state in WAITING for t in near),
    )


def _ram(state: NodeState) -> int:
    """Bytes of host memory that are free, or would be once those in it are demoted, and others
    before them."""
    tiers = (Tier.RAM, Tier.NVME, Tier.OBJECT)
    ram, nvme, store = (state.rooms.get(tier, Room(capacity=0)).free for tier in tiers)
    in_ram, on_nvme = (
        sum(t.vram for t in state.tenants if t.state is State.PARKED and t.tier is tier)
        for tier in (Tier.RAM, Tier.NVME)
    )
    return ram + can_leave_ram(in_ram, on_nvme, nvme, store)


def _shares_gpu(state: NodeState, tenant: Tenant, group: Group) -> bool:
    """Whether the tenant's group and this one have a GPU in common; one not listed shares all."""
    if tenant.group == group.name:
        return True
    theirs = state.groups.get(tenant.group)
    return theirs is None or theirs.overlaps(group)


def _seats_taken(state: NodeState, group: Group, bound: tuple[Arrival, ...]) -> int:
    """By the agent's report, and by those on the way who can sit nowhere else."""
    coming = sum(arrival.require_group == group.name for arrival in bound)
    return coming + sum(tenant.group == group.name for tenant in state.tenants)


def _beside(group: Group, holders: tuple[Tenant, ...]) -> int:
    """`activePerGroup` counts on the group; a holder of another group takes the GPU whole."""
    if not holders:
        return group.vram
    shared = all(holder.group == group.name for holder in holders)
    if not shared or len(holders) >= group.profile.active_per_group:
        return -1
    return group.vram - _vram(holders)


def _vram(holders: tuple[Tenant, ...]) -> int:
    return sum(holder.vram for holder in holders)
