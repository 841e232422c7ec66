"""
How a workload's contents leave VRAM and come back: one port, several mechanisms.

Called by the stories (`park`, `resume`) and by recovery, never by the coordinator.
Rules of the port:
1. Contents are copied and verified while the workload is locked: a dead agent leaves a locked
   workload, never a half-filled one.
2. Every method is idempotent: recovery calls them again without knowing how far it came.
3. A part is what moves at once (a VMM segment). A mechanism that copies straight into pinned memory
   takes the slot's file as its target; nothing here forces contents through Python.
4. Errors are the four below; none of a driver's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.model.workload import ParkMechanism
from nodeagent.disk.pool import Kept, Slot

Moved = Callable[[int], None]
"""Called with the card's bytes moved since the last call."""


class CardFull(Refused):
    """The card has no room; nothing changed."""


class BodyGone(Refused):
    """The workload's process or its GPU state is not there any more."""


class NotPossible(Refused):
    """This mechanism cannot do that with this workload."""


class NotYet(Retry):
    """It took too long, or the driver is away; it may work later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a mechanism needs to know of a workload."""

    key: WorkloadKey
    uid: PodUid
    pid: int  # the container's first process
    gpus: tuple[GpuUuid, ...]
    container_id: str = ""
    park: ParkMechanism = ParkMechanism.AUTO  # what its pod asks for
    returns_soon: bool = False  # the next in line: what is quick to take up again may stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a workload's VRAM. `digest` is empty while it is not backed."""

    name: str
    uuid: GpuUuid
    size: int
    content: int
    backed: bool
    digest: str


class Stands(StrEnum):
    """Where the contents of what is parked are."""

    SLOT = "slot"  # in the slot's files, and `copy_in` takes them from wherever a slot reads them
    BULK = "bulk"  # in the pool, beside the slot's files
    PROCESS = "process"  # with the workload's own processes; the slot has a note


class Mechanism(Protocol):
    """The port. Thread safe for different workloads, and for parts of one workload on different
    cards, which are copied at once. `limit` is in seconds."""

    name: str

    def stands(self, body: Body) -> Stands:
        """Where `copy_out` puts what it copies; what is with the processes cannot be moved on."""

    def lock(self, body: Body, limit: float) -> None:
        """Close the gate and drain running work. NotYet when it did not drain: nothing changed."""

    def unlock(self, body: Body, limit: float) -> None:
        """Open the gate."""

    def parts(self, body: Body) -> tuple[Part, ...]:
        """All of its VRAM, backed or not."""

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """Copy a part into the slot; the digest is of what was written there."""

    def release(self, body: Body, part: Part, limit: float) -> None:
        """Give a part's VRAM back to the card."""

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """Back a part again and fill it; the digest of what is in VRAM then. Raises CardFull."""

    def let_go(self, body: Body, limit: float) -> str:
        """Have its processes drop what ties them to this machine's driver, so that an image can be
        made of them. Only while locked and released, and while they run: the gate stays closed.
        A text without which `adopt` cannot be; in place, `unlock` has them take it up again.
        """

    def adopt(self, body: Body, known: str) -> None:
        """The GPU state of processes that were made from an image: locked, without VRAM, on the
        body's cards, which stand for those of before in their order. `known` is `let_go`'s. They
        stand still, and must not be needed for it. Idempotent."""

    def forget(self, body: Body) -> None:
        """Its processes are gone: nothing is kept for it any more. Never raises."""

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """Bytes and seconds of a small copy to a card, to begin the measurement with."""
