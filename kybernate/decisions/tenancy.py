"""A workload on its group as the node's coordinator sees it. Called by the books and by turns.

Times are seconds since the epoch, given by the caller; nothing here reads a clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.demand import Demand
from kybernate.model.gpu import Group, Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Refusal
from kybernate.model.workload import Desired, State, WorkloadClass

IN_VRAM = frozenset({State.ACTIVATING, State.ACTIVE, State.PARKING})
OUT_OF_VRAM = frozenset({State.WAITING, State.PARKED})
# These go on by themselves when their GPU is free again; inference waits to be asked.
RETURNING = frozenset({WorkloadClass.TRAINING, WorkloadClass.BATCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """One workload on one seat. Bytes are for the whole group unless a GPU is named."""

    key: WorkloadKey
    uid: PodUid
    life: str = ""  # the container's id: a pod's restarted container is another life
    group: Group
    seat: Seat
    vram: int
    state: State = State.WAITING
    since: float = 0.0  # when it came into this state
    workload_class: WorkloadClass = WorkloadClass.INFERENCE
    priority: int = 0
    desired: Desired = Desired.AUTO
    min_runtime: float | None = None  # seconds, the pod's own wish
    idle_after: float | None = None  # seconds, the pod's own wish
    parkable: bool = True
    pinned: bool = False  # its pod's word: never parked for others, nor for being idle
    tier: Tier = Tier.RAM  # where its contents are while it is parked
    movable: bool = True  # they may be in another tier
    through_ram: bool = False  # from NVMe they come back by way of the pool only
    residue: int = 0  # what stays on the card while parked
    held: Mapping[int, int] = field(default_factory=dict)  # GPU -> bytes the inventory shows

    wanted_since: float | None = None  # None while it does not want the GPU
    most_waiting: int = 0  # the most seats of its island that waited at once while it waited
    active_since: float | None = None
    last_active: float | None = None  # when its last turn ended
    idle_since: float | None = None  # None: unknown
    quiet_since: float | None = None  # likewise, by what signals said at their last look
    demand: Demand | None = None  # all signals joined, at their last look
    asked_at: float | None = None  # when it last began to be wanted
    asked_every: float | None = None  # seconds between two such moments, the latest counting most
    asked_by: str = ""  # who wants it back, in words
    asked_to_park: bool = False
    not_before: float = 0.0  # after a failure: no switch before this
    failures: int = 0
    barred: Refusal | None = None  # it cannot start whatever the queue says

    @property
    def gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs it needs, ascending."""
        return self.group.gpus

    @property
    def in_vram(self) -> bool:
        """Whether its group's VRAM is its own now."""
        return self.state in IN_VRAM

    @property
    def waits(self) -> bool:
        """Whether it wants the GPU and has not got it."""
        return self.wanted_since is not None and self.state in OUT_OF_VRAM

    @property
    def returns_by_itself(self) -> bool:
        """Whether it wants the GPU back as soon as it was parked for somebody else."""
        if self.asked_to_park or self.desired is Desired.PARKED:
            return False
        by_itself = self.pinned or self.workload_class in RETURNING
        return self.desired is Desired.ACTIVE or by_itself

    def shares_gpu(self, other: "Tenancy") -> bool:
        """Whether both need a GPU in common."""
        return self.group.overlaps(other.group)

    def share(self) -> int:
        """Bytes it needs on each of its GPUs, rounded up."""
        return -(-self.vram // len(self.gpus))

    def booked(self, gpu: int) -> int:
        """Bytes kept for it on a GPU: what its state entitles it to, or what it holds if more."""
        if gpu not in self.gpus:
            return self.held.get(gpu, 0)
        entitled = 0
        if self.in_vram:
            entitled = self.share()
        elif self.state is State.PARKED:
            entitled = -(-self.residue // len(self.gpus))
        return max(entitled, self.held.get(gpu, 0))

    def had_a_turn_since(self, moment: float) -> bool:
        """Whether it was in VRAM at any time after `moment`."""
        return self.in_vram or (self.last_active is not None and self.last_active > moment)

    def queue_order(self) -> tuple[float, WorkloadKey]:
        """First come, first served; names settle ties."""
        return (self.wanted_since or 0.0, self.key)
