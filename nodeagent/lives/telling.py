"""
The port through which decisions and outcomes are told to people. Never blocks, never fails.

Called by the coordinator and the switches. Implemented by `reporting.decisions` (events and
`GpuWorkload.status`); in tests by a list.
"""

from collections.abc import Iterable
from typing import Protocol

from kybernate.decisions.switching import SwitchPlan
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.tiers import Move
from kybernate.model.gpu import Group
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Refusal
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.disk.records import Record
from nodeagent.lives.life import Life
from nodeagent.lives.phases import PhaseTime


class Teller(Protocol):
    """Who tells. Each method is one sentence about one workload, with the seconds in it."""

    def seated(self, life: Life) -> None:
        """The kubelet gave it this seat."""

    def waits(self, waiter: Tenancy, why: Refusal) -> None:
        """It wants its GPU and does not get it, for a new reason."""

    def planned(self, plan: SwitchPlan, parties: tuple[Tenancy, ...]) -> None:
        """Holders will be parked for it."""

    def parked(self, life: Life, plan: SwitchPlan) -> None:
        """Its contents are out of VRAM."""

    def started(self, life: Life, plan: SwitchPlan) -> None:
        """It has its GPU for the first time, and begins."""

    def resumed(self, life: Life, plan: SwitchPlan) -> None:
        """It runs again."""

    def park_failed(self, life: Life, why: str) -> None:
        """It was to be parked and is active still."""

    def resume_failed(self, life: Life, why: str) -> None:
        """It was to run and is where it was."""

    def sealed(self, life: Life, sealed: Sealed, phases: Iterable[PhaseTime]) -> None:
        """There is a checkpoint of it, made in these phases."""

    def seal_failed(self, life: Life, why: str) -> None:
        """It was to be sealed and is as it was."""

    def woken(self, life: Life) -> None:
        """It was made from a checkpoint and is parked until it gets its GPU."""

    def wake_failed(self, key: WorkloadKey, uid: PodUid, why: str) -> None:
        """It was to be made from a checkpoint, and is not made from that one."""

    def demoted(self, life: Life, move: Move, phases: Iterable[PhaseTime]) -> None:
        """Its contents left the pool for NVMe, or NVMe for the object store."""

    def promoted(self, life: Life, move: Move, phases: Iterable[PhaseTime]) -> None:
        """Its contents are in the pool again, or on NVMe."""

    def move_failed(self, life: Life, move: Move, why: str) -> None:
        """They were to go to another tier, and are where they were."""

    def quarantined(self, life: Life, why: str) -> None:
        """Its contents cannot be brought back."""

    def stranded(self, record: Record) -> None:
        """It lives on a group that is not here any more."""

    def sick(self, group: Group, why: str) -> None:
        """A group cannot be given out for now; an empty `why`: it can again."""

    def went(self, key: WorkloadKey, uid: PodUid, why: str) -> None:
        """It was deleted without being sealed, though that was wished."""
