"""TierPlacements: agents fetch and remove copies until these are where they should be.

Level-based, as `tier_plan` says; where copies are is what the agents wrote into
`GpuCheckpoint.status.copies`. Rule: an agent is believed about its own disk, and refuses by itself
to delete a last good copy; what is under way when a leader ends is finished by the agent, or goes
on with the next one from where it was.
"""

from contextlib import suppress
from typing import Any

from controller import tier_plan as plans
from controller.carriers import Carrier
from controller.duties import Duty
from controller.storing import StoreFull
from controller.tier_plan import Bring, Copies, Demote, Remove, Rest, Withdraw
from kybernate.api import tierplacements as codec
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.tierplacements import Placed, TierPlacement, read_placement
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.clock import Clock
from kybernate.clients.copies import Told
from kybernate.clients.errors import ApiError, NotFound
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import GPUCHECKPOINTS, TIERPLACEMENTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger

THREADS = 4  # copies that are moved at once; each keeps a disk and the network busy
UNSYNCED = 0.5  # seconds until the next look while a first list is under way
SOON = 2.0  # until the agents' word about their copies has come back to us
REFUSED = 60.0  # until an agent that refused is asked again
_GIB = 1 << 30
AWAY, NO, FULL = "AgentAway", "AgentRefused", "StoreFull"
TOLD_EVERY = 5.0  # seconds between two writes of progress
Moving = Bring | Demote | Remove | Withdraw


class NotWanted(Exception):
    """Nobody asks for it any more."""


class Tiers:
    """Watches placements and checkpoints; the leader has agents move copies."""

    def __init__(self, kube: Kube, clock: Clock, carrier: Carrier, events: EventRecorder) -> None:
        self._kube, self._clock, self._carrier, self._events = kube, clock, carrier, events
        self._placements: Reflector[TierPlacement] = Reflector(
            kube, TIERPLACEMENTS, project=read_placement, on_change=self._placement_changed
        )
        self._checkpoints: Reflector[Checkpoint] = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._checkpoint_changed
        )
        self.watches: tuple[Reflector[Any], ...] = (self._placements, self._checkpoints)
        self.duty: Duty[Key] = Duty("tiers", clock, self.look, self._placements.items, THREADS)
        self._log = get_logger(duty="tiers")

    def look(self, key: Key) -> float | None:
        """Take the next step; seconds until the next look. Raises AgentAway, ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        placement = self._placements.get(key)
        if placement is None:
            return None
        one = self._checkpoints.get((key[0], placement.checkpoint))
        step = plans.plan(placement, one, self._wanted(placement))
        self._say(placement, step.placed)
        if isinstance(step, Rest) or one is None:
            return None
        return self._move(placement, one, step)

    def _move(self, placement: TierPlacement, one: Checkpoint, step: Moving) -> float | None:
        """By the first agent that can."""
        refused = []
        for node in step.nodes if isinstance(step, Demote | Withdraw) else (step.node,):
            try:
                self._carry_out(placement, one, step, node)
            except AgentAway as away:
                said = f"the agent of {node} does not answer, and is asked again: {away}"
                self._say_why(placement, step, AWAY, said)
                raise
            except AgentRefused as no:
                refused.append(f"{node}: {no}")
            except StoreFull as full:
                self._full(placement, step, full)
                return REFUSED
            except NotWanted:
                self._log.info("called off", placement="/".join(placement.key), node=node)
                return SOON
            else:
                return SOON
        self._say_why(placement, step, NO, "; ".join(refused))
        return REFUSED

    def _full(self, placement: TierPlacement, step: Moving, full: StoreFull) -> None:
        """Said once, in an event too."""
        told = placement.told
        if told is None or (told.reason, told.message) != (FULL, str(full)):
            note = f"not in object storage yet: {full}"
            self._tell(placement, EventReason.DEMOTE_FAILED, "Demote", note)
        self._say_why(placement, step, FULL, str(full))

    def _carry_out(
        self, placement: TierPlacement, one: Checkpoint, step: Moving, node: NodeName
    ) -> None:
        """Raises AgentAway, AgentRefused, StoreFull, NotWanted."""
        told = self._following(placement, step)
        if isinstance(step, Bring):
            moved = self._carrier.bring(node, one, step.sources, told)
            source = f" from {_named(moved.source)}" if moved.source else ""
            note = f"copy on {node} (nvme){source}: {moved.size / _GIB:.1f} GiB in "
            self._tell(placement, EventReason.PROMOTED, "Promote", f"{note}{moved.seconds:.1f} s")
            return
        if isinstance(step, Demote):
            moved = self._carrier.demote(node, one, told)
            note = (
                f"copy in object storage from {node}: {moved.size / _GIB:.1f} GiB in "
                f"{moved.seconds:.1f} s, {moved.put / _GIB:.1f} GiB of them new there"
            )
        elif isinstance(step, Withdraw):
            self._carrier.withdraw(node, one)
            note = f"copy in object storage removed by {node}"
        else:
            moved = self._carrier.remove(node, one)
            note = f"copy on {node} (nvme) removed: {moved.size / _GIB:.1f} GiB are free"
        self._tell(placement, EventReason.DEMOTED, "Demote", note)

    def _following(self, placement: TierPlacement, step: Moving) -> Told:
        """Writes now and then how far it is; calls off what nobody asks for any more."""
        before = self._clock.monotonic()

        def told(done: int, total: int, left: float) -> None:
            nonlocal before
            if self._placements.get(placement.key) is None and self._placements.synced:
                raise NotWanted
            now = self._clock.monotonic()
            if now - before < TOLD_EVERY:
                return
            before = now
            percent = 100 * done // total if total else 0
            message = f"{step.placed.message}: {percent} %, {left:.0f} s left"
            with suppress(ApiError):  # it is said again
                self._say_why(placement, step, step.placed.reason, message)

        return told

    def _tell(self, placement: TierPlacement, reason: EventReason, action: str, note: str) -> None:
        namespace, name = placement.key
        regarding = ObjectRef(
            kind="TierPlacement", name=name, namespace=namespace, uid=placement.uid,
            api_version=TIERPLACEMENTS.api_version,
        )  # fmt: skip
        related = ObjectRef(
            kind="GpuCheckpoint", name=placement.checkpoint, namespace=namespace, uid="",
            api_version=GPUCHECKPOINTS.api_version,
        )  # fmt: skip
        self._events.record(regarding, reason, action, note, related=related)
        self._log.info(note, checkpoint=f"{namespace}/{placement.checkpoint}")

    def _say_why(self, placement: TierPlacement, step: Moving, reason: str, message: str) -> None:
        placed = step.placed
        why = Placed(
            holds=False, reason=reason, message=message, wanted=placed.wanted, there=placed.there
        )
        self._say(placement, why)

    def _say(self, placement: TierPlacement, placed: Placed) -> None:
        """Write what changed, of this life of it only. Raises ApiError."""
        if placement.told == placed:
            return
        namespace, name = placement.key
        status = codec.write_status(placement, placed, self._clock.now())
        patch = {"metadata": {"uid": placement.uid}, "status": status}
        try:
            self._kube.patch(TIERPLACEMENTS, name, patch, namespace, subresource="status")
        except NotFound:
            self._log.info("deleted meanwhile", placement=f"{namespace}/{name}")

    def _wanted(self, placement: TierPlacement) -> Copies:
        """By all that are about this checkpoint."""
        about = [
            other
            for (namespace, _), other in self._placements.items().items()
            if (namespace, other.checkpoint) == (placement.key[0], placement.checkpoint)
        ]
        nodes = frozenset(node for other in about for node in other.nodes)
        return Copies(nodes, any(other.stored for other in about))

    def _placement_changed(self, change: Change[TierPlacement]) -> None:
        both = (change.old, change.new)
        asked = [(plans.wanted_by(one), one.others) if one else None for one in both]
        if asked[0] != asked[1]:  # else it is our own word about it
            seen = change.new or change.old
            if seen is not None:
                self._touch(change.key[0], seen.checkpoint)

    def _checkpoint_changed(self, change: Change[Checkpoint]) -> None:
        if change.old != change.new:
            self._touch(*change.key)

    def _touch(self, namespace: str, checkpoint: str) -> None:
        for key, placement in self._placements.items().items():
            if key[0] == namespace and placement.checkpoint == checkpoint:
                self.duty.touch(key)


def _named(source: str) -> str:
    return "object storage" if source == Tier.OBJECT else source
