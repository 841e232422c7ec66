"""
What GPUs a node has and what is in them: one port, three sources.

`nvml` asks the driver, `simulated` asks the testbed's device, `listed` knows only what the profile
file says. Called by: the device plugin, the node agent, `kyb topology`.
Rule: indices and UUIDs stay the same while a process runs; health and usage are of this moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kybernate.clients.errors import Retry
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid


class InventoryAway(Retry):
    """The source does not answer now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process on one card. A stranger the source cannot name has pid 0."""

    pid: int
    uuid: GpuUuid
    used: int  # bytes
    idle_seconds: float | None = None  # None where the source cannot tell
    submitted: int = 0  # pieces of work, ever; 0 where the source cannot tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How people have set a card up."""

    mig: bool = False  # it is cut into instances
    exclusive: bool = False  # the driver lets one process have it, and refuses all others


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailment:
    """What is wrong with a card. `name` is constant. `sick`: it is not to be used now."""

    name: str
    words: str
    sick: bool = True


class Inventory(Protocol):
    """All methods may raise InventoryAway. Thread safe."""

    def gpus(self) -> tuple[Gpu, ...]:
        """Every card, by index, with its health now."""

    def usage(self) -> Mapping[GpuUuid, int]:
        """Bytes in use on every card, whoever holds them."""

    def processes(self) -> tuple[GpuProcess, ...]:
        """Who is on which card. A process on two cards comes twice."""

    def setups(self) -> Mapping[GpuUuid, Setup]:
        """How every card is set up; those that the source cannot tell of are left out."""

    def ailments(self) -> Mapping[GpuUuid, tuple[Ailment, ...]]:
        """What is wrong with cards; those that are well are left out. A sick one is unhealthy."""

    def driver(self) -> str:
        """The driver's version."""

    def close(self) -> None:
        """Let go of the source."""
