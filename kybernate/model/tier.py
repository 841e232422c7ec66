"""The tiers, hot to cold, and what is known of each on a node."""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Where contents stand."""

    VRAM = "vram"
    RAM = "ram"
    NVME = "nvme"
    OBJECT = "object"


BELOW_RAM = frozenset({Tier.NVME, Tier.OBJECT})
"""From these contents are fetched before or while they come in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """A measured rate. `spread` is its relative uncertainty (0.1 = ten per cent)."""

    bytes_per_second: float
    spread: float = 0.1

    def seconds(self, size: int) -> float:
        """Seconds to move `size` bytes."""
        return size / self.bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a tier holds on a node, in bytes."""

    capacity: int
    used: int = 0

    @property
    def free(self) -> int:
        """Bytes left; never negative."""
        return max(0, self.capacity - self.used)


def can_leave_ram(in_ram: int, on_nvme: int, nvme_free: int, store_free: int) -> int:
    """Bytes of what is parked in RAM that could be on NVMe instead, once some of what is there has
    made room by going on into the object store."""
    return min(nvme_free + min(store_free, on_nvme), in_ram)
