"""The byte ledger: what is booked on each GPU, and whether one more fits.

Three things are counted: what states entitle workloads to (residue of parked contexts included),
what the inventory shows them holding beyond that, and bytes that belong to nobody we know.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.decisions.tenancy import Tenancy
from kybernate.model.ids import WorkloadKey
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import State

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Bytes by GPU index. `memory` is the card's, `foreign` is held by processes not ours."""

    memory: Mapping[int, int]
    tenancies: tuple[Tenancy, ...] = ()
    foreign: Mapping[int, int] = field(default_factory=dict)

    def booked(self, gpu: int) -> int:
        """Bytes kept for workloads."""
        return sum(tenancy.booked(gpu) for tenancy in self.tenancies)

    def free(self, gpu: int) -> int:
        """Bytes left; negative where more is held than the card's books allow."""
        return self.memory.get(gpu, 0) - self.booked(gpu) - self.foreign.get(gpu, 0)

    def without(self, keys: Collection[WorkloadKey]) -> "Ledger":
        """The ledger as it will be when these are parked: their residue stays booked."""
        parked = (
            replace(t, state=State.PARKED, held={}) if t.key in keys else t
            for t in self.tenancies
        )  # fmt: skip
        return replace(self, tenancies=tuple(parked))

    def room_for(self, incoming: Tenancy) -> Refusal | None:
        """None if the workload fits beside everybody booked; else where it does not."""
        others = replace(self, tenancies=tuple(t for t in self.tenancies if t.key != incoming.key))
        need = incoming.share()
        for gpu in incoming.gpus:
            if others.free(gpu) < need:
                left = max(0, others.free(gpu)) / GIB
                detail = f"GPU {gpu} has {left:.1f} GiB left, {need / GIB:.1f} GiB are needed"
                return Refusal(reason=Reason.VRAM_NOT_FREE, detail=detail)
        return None


def crowd(active: Iterable[Tenancy], gpu: int) -> tuple[Tenancy, ...]:
    """Who is in VRAM on a GPU."""
    return tuple(t for t in active if t.in_vram and gpu in t.gpus)


def too_many(active: Collection[Tenancy], incoming: Tenancy) -> bool:
    """Whether one more would break `activePerGroup` on a GPU. Overlapping groups must all agree."""
    for gpu in incoming.gpus:
        there = [t for t in crowd(active, gpu) if t.key != incoming.key]
        allowed = min(t.group.profile.active_per_group for t in (*there, incoming))
        if len(there) + 1 > allowed:
            return True
    return False
