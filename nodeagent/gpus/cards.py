"""
What is in the cards: the inventory, put in the agent's own terms.

Called by: the coordinator before it decides (`look`), the stories before they fill a card (`free`).
Rule: bytes belong to the workload in whose container the process is that holds them; the rest is
foreign. Foreign bytes that stay make their cards' groups unhealthy, and well again when they are
gone. The agent's own workers are on no workload's account and no strangers, nor is the little that
the driver has beside all processes.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kybernate.clients.clock import Clock
from kybernate.clients.gpus import GpuProcess, Inventory, InventoryAway
from kybernate.decisions.grouping import group_health
from kybernate.model.gpu import Gpu, Group, Health
from kybernate.model.ids import GpuUuid, GroupName, WorkloadKey
from kybernate.model.tier import Bandwidth, Tier
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.processes import of_container, owner
from nodeagent.lives.life import Lives
from nodeagent.mechanisms import Body
from nodeagent.truth.own import is_own

# A process that just ended shows for a moment; one that stays longer is a stranger's.
FOREIGN_GRACE = 5.0
# What the driver may use on a card beside its processes, and beside what it says it reserves.
DRIVERS_OWN = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Below:
    """The tiers below the cards: bytes left, and measured rates up to the next hotter one."""

    pool_free: int = 0
    nvme_size: int = 0
    nvme_free: int = 0
    object_free: int = 0
    rates: Mapping[Tier, Bandwidth] = field(default_factory=dict)

    def matters(self) -> tuple[int, int, int]:
        """What may change a decision by itself: what fits does, not only whether anything does.
        All three count what is ours against a limit, whatever others write to the same disk."""
        return (self.pool_free, self.nvme_free, self.object_free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The cards at a moment. Bytes by GPU index; idle seconds, as of then, by workload."""

    at: float  # by the clock that never jumps
    gpus: tuple[Gpu, ...]
    used: Mapping[int, int]
    held: Mapping[WorkloadKey, Mapping[int, int]] = field(default_factory=dict)
    idle: Mapping[WorkloadKey, float] = field(default_factory=dict)
    foreign: Mapping[int, int] = field(default_factory=dict)
    strangers: frozenset[int] = frozenset()  # cards whose foreign bytes stayed
    outsiders: tuple[GpuProcess, ...] = ()  # on cards, and of no workload
    health: Mapping[GroupName, Health] = field(default_factory=dict)
    below: Below = field(default_factory=Below)

    def matters(self) -> tuple[object, ...]:
        """What may change a decision by itself. Bytes of workloads come and go with their states,
        and how long somebody is idle is asked about when policy said to ask again."""
        return (dict(self.foreign), self.strangers, dict(self.health), *self.below.matters())


class CardWatch:
    """`Cards` for the stories and pictures for the coordinator. Thread safe."""

    def __init__(
        self,
        inventory: Inventory,
        groups: Mapping[GroupName, Group],
        lives: Lives,
        clock: Clock,
        cgroups: Cgroups,
        below: Callable[[], Below] = Below,
    ) -> None:
        """`below` tells of the tiers below the cards."""
        self._inventory = inventory
        self._below = below
        self._groups = groups
        self._lives = lives
        self._clock = clock
        self._cgroups = cgroups
        self._foreign_since: dict[int, float] = {}
        self._lock = threading.Lock()

    def free(self, uuid: GpuUuid) -> int:
        """Bytes of the card that nobody uses. Raises InventoryAway."""
        memory = next((g.memory for g in self._inventory.gpus() if g.uuid == uuid), 0)
        return memory - self._inventory.usage().get(uuid, memory)

    def held_by(self, body: Body) -> int:
        """Bytes the workload's processes hold. Raises InventoryAway."""
        shown = self._inventory.processes()
        own = of_container(shown, body.pid, body.container_id, self._cgroups)
        return sum(process.used for process in own)

    def look(self) -> Picture | None:
        """A new picture; None while the inventory is away: then nothing is concluded."""
        at = self._clock.monotonic()
        try:
            gpus, used = self._inventory.gpus(), self._inventory.usage()
            processes = self._inventory.processes()
        except InventoryAway:
            return None
        index = {gpu.uuid: gpu.index for gpu in gpus}
        held, idle, outsiders, own = self._attribute(processes, index)
        by_index = {index[uuid]: size for uuid, size in used.items() if uuid in index}
        known = {g: sum(h.get(g, 0) for h in held.values()) for g in by_index}
        foreign = {g: by_index[g] - known[g] for g in by_index if by_index[g] > known[g]}
        strangers = self._staying(_suspicious(foreign, own, outsiders, index))
        return Picture(
            at=at,
            gpus=gpus,
            used=by_index,
            held=held,
            idle=idle,
            foreign=foreign,
            strangers=strangers,
            outsiders=outsiders,
            health=self._health(gpus, strangers),
            below=self._below(),
        )

    def _attribute(
        self, processes: tuple[GpuProcess, ...], index: Mapping[GpuUuid, int]
    ) -> tuple[
        dict[WorkloadKey, dict[int, int]],
        dict[WorkloadKey, float],
        tuple[GpuProcess, ...],
        dict[int, int],
    ]:
        """Bytes by workload and GPU, idle seconds by workload, who is left over, and the bytes of
        the agent's own workers by GPU."""
        held: dict[WorkloadKey, dict[int, int]] = {}
        idle: dict[WorkloadKey, float] = {}
        outsiders: list[GpuProcess] = []
        own: dict[int, int] = {}
        lives = self._lives.all()
        firsts = {life.record.pid: life for life in lives if life.record.pid > 0}
        ids = {life.id: life for life in lives if life.id}
        for process in processes:
            if process.uuid not in index:
                continue
            if is_own(process.pid):
                own[index[process.uuid]] = own.get(index[process.uuid], 0) + process.used
                continue
            life = owner(process.pid, firsts, ids, self._cgroups)
            if life is None:
                outsiders.append(process)
                continue
            there = held.setdefault(life.key, {})
            gpu = index[process.uuid]
            there[gpu] = there.get(gpu, 0) + process.used
            if process.idle_seconds is not None:
                so_far = idle.get(life.key, process.idle_seconds)
                idle[life.key] = min(so_far, process.idle_seconds)
        return held, idle, tuple(outsiders), own

    def _staying(self, suspicious: frozenset[int]) -> frozenset[int]:
        now = self._clock.monotonic()
        with self._lock:
            self._foreign_since = {g: self._foreign_since.get(g, now) for g in suspicious}
            since = self._foreign_since.items()
            return frozenset(g for g, began in since if now - began >= FOREIGN_GRACE)

    def _health(self, gpus: tuple[Gpu, ...], strangers: frozenset[int]) -> dict[GroupName, Health]:
        return {
            name: Health.UNHEALTHY if strangers & set(group.gpus) else group_health(group, gpus)
            for name, group in self._groups.items()
        }


def _suspicious(
    foreign: Mapping[int, int],
    own: Mapping[int, int],
    outsiders: tuple[GpuProcess, ...],
    index: Mapping[GpuUuid, int],
) -> frozenset[int]:
    """Cards with a stranger, or with more that is nobody's than the driver has for itself."""
    seen = {index[one.uuid] for one in outsiders if one.used}
    rest = {g for g, size in foreign.items() if size - own.get(g, 0) > DRIVERS_OWN}
    return frozenset(g for g in foreign if g in seen or g in rest)
