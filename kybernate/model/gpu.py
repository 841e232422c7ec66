"""GPUs, the groups they are given out in, and the seats of a group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kybernate.model.ids import GpuUuid, GroupName, ResourceName, SeatId


class Health(StrEnum):
    """Two-way: a GPU may come back. UNKNOWN counts as unhealthy."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card as its inventory (NVML, a file, or the simulator) shows it. Sizes in bytes."""

    index: int
    uuid: GpuUuid
    product: str
    memory: int
    numa: int | None = None
    health: Health = Health.HEALTHY
    links: Mapping[int, int] = field(
        default_factory=dict
    )  # other GPU's index -> rank, more is nearer
    device_nodes: tuple[str, ...] = ()  # "/dev/nvidia0"; empty where nothing is to be mounted


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How many GPUs a seat spans and how many seats a group of that size has."""

    name: str
    resource: ResourceName
    group_size: int
    seats_per_group: int
    active_per_group: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A set of GPUs of one node that is given out together. `gpus` holds indices, ascending."""

    name: GroupName
    gpus: tuple[int, ...]
    profile: Profile
    vram: int  # bytes of all its GPUs together

    def seats(self) -> tuple["Seat", ...]:
        """Every seat of the group, `G01/0` first."""
        return tuple(Seat(self.name, n) for n in range(self.profile.seats_per_group))

    def overlaps(self, other: "Group") -> bool:
        """Whether a GPU belongs to both."""
        return not set(self.gpus).isdisjoint(other.gpus)


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """The right to exist on a group."""

    group: GroupName
    number: int

    @property
    def id(self) -> SeatId:
        """The device id the kubelet knows: `G01/2`."""
        return SeatId(f"{self.group}/{self.number}")

    @classmethod
    def parse(cls, text: str) -> "Seat":
        """Read `G01/2`; raises ValueError naming the text."""
        group, slash, number = text.rpartition("/")
        if not slash or not group or not number.isdigit():
            raise ValueError(f"not a seat id: {text!r} (expected GROUP/NUMBER, like G01/2)")
        return cls(GroupName(group), int(number))
