"""What GpuNode and GpuWorkload are to say: the books and the cards in the API's terms. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.api import gpuworkloads
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import Demand
from kybernate.model.gpu import Group, Health
from kybernate.model.ids import GroupName, NodeName
from kybernate.model.node import NodeState, Tenant
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.verdict import Refusal
from kybernate.model.workload import State
from nodeagent.gpus.cards import Picture
from nodeagent.lives.life import Life
from nodeagent.lives.phases import UNACCOUNTED

_SPELLS = (60.0, 600.0, 3600.0)  # idle seconds that are worth a write
_NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of the tiers."""

    rooms: Mapping[Tier, Room] = field(default_factory=dict)
    bandwidths: Mapping[Tier, Bandwidth] = field(default_factory=dict)


def node_state(
    name: NodeName,
    books: Books,
    picture: Picture | None,
    measured: Measured,
    incomplete: Mapping[GroupName, Group] | None = None,
) -> NodeState:
    """The node as placement is to see it. Of `incomplete` groups a card is missing."""
    incomplete = incomplete or {}
    gpus = picture.gpus if picture else ()
    return NodeState(
        name=name,
        groups={**books.groups, **incomplete},
        group_health={**books.health, **dict.fromkeys(incomplete, Health.UNHEALTHY)},
        tenants=tuple(_tenant(books, t) for _, t in sorted(books.tenancies.items())),
        bandwidths=dict(measured.bandwidths),
        rooms=dict(measured.rooms),
        product=gpus[0].product if gpus else "",
        agent_ready=picture is not None,
    )


def _tenant(books: Books, tenancy: Tenancy) -> Tenant:
    return Tenant(
        key=tenancy.key,
        uid=tenancy.uid,
        group=tenancy.group.name,
        seat=tenancy.seat,
        state=tenancy.state,
        vram=tenancy.vram,
        workload_class=tenancy.workload_class,
        priority=tenancy.priority,
        min_runtime_until=_protected_until(books, tenancy),
        tier=tier_of(tenancy),
        waits=tenancy.waits,
    )


def _protected_until(books: Books, tenancy: Tenancy) -> float:
    """By what policy gave it, else by the pod's own wish."""
    if tenancy.active_since is None:
        return 0.0
    terms = books.terms.get(tenancy.key)
    seconds = terms.min_runtime_seconds if terms else tenancy.min_runtime
    return tenancy.active_since + seconds if seconds else 0.0


def tier_of(tenancy: Tenancy) -> Tier | None:
    """Where its contents are; None while it has none, or while that is unknown."""
    if tenancy.in_vram:
        return Tier.VRAM
    return tenancy.tier if tenancy.state is State.PARKED else None


def workload_status(
    node: NodeName, tenancy: Tenancy, life: Life, why: Refusal | None, mechanism: str
) -> gpuworkloads.Status:
    """One workload as its agent sees it."""
    phases = [p for p in life.last_switch if p.seconds >= 0.0005 or p.name == UNACCOUNTED]
    return gpuworkloads.Status(
        state=tenancy.state,
        since=tenancy.since,
        node=node,
        group=tenancy.group.name,
        seat=tenancy.seat.id,
        tier=tier_of(tenancy),
        mechanism=mechanism,
        why=str(why) if why else "",
        seconds_in={State(state): spent for state, spent in life.record.seconds_in.items()},
        last_switch=[
            gpuworkloads.Phase(name=p.name, seconds=p.seconds, size=p.size) for p in phases
        ],
        last_switch_seconds=life.last_switch_seconds,
        demand=tenancy.demand,
    )


def by_the_wall(state: NodeState, wall: Callable[[float], float]) -> NodeState:
    """With moments as the wall clock has them: placement compares them with its own."""

    def told(tenant: Tenant) -> Tenant:
        until = tenant.min_runtime_until
        return replace(tenant, min_runtime_until=wall(until)) if until else tenant

    return replace(state, tenants=tuple(map(told, state.tenants)))


def fingerprint(status: gpuworkloads.Status) -> object:
    """Equal while nothing changed that is worth a write: numbers in `why` run on by themselves."""
    return (
        status.state,
        round(status.since),
        status.seat,
        _NUMBERS.sub("#", status.why),
        tuple((phase.name, phase.seconds) for phase in status.last_switch),
        _coarse(status.demand),
    )


def _coarse(demand: Demand | None) -> object:
    """Changes with spells of work, not with requests: two writes a minute at most."""
    if demand is None:
        return None
    idle = demand.idle_for
    spell = None if idle is None else sum(idle >= limit for limit in _SPELLS)
    return (demand.wanted, spell)


def node_fingerprint(state: NodeState, used: Mapping[int, int]) -> object:
    """As above. Rates count when they moved by a tenth."""
    tenants = tuple((t.key, t.uid, t.seat, t.state, t.vram, t.tier, t.waits) for t in state.tenants)
    rooms = tuple((tier, room.capacity, room.used) for tier, room in state.rooms.items())
    rates = tuple((tier, f"{rate.bytes_per_second:.1e}") for tier, rate in state.bandwidths.items())
    protected = tuple(round(t.min_runtime_until) for t in state.tenants)
    health = tuple(sorted(state.group_health.items()))
    return (tenants, protected, rooms, rates, health, tuple(used.items()), state.agent_ready)
