"""Checkpoints that a CheckpointPolicy wants in object storage some time after they were sealed.

Called by: `process`. Level-based: a checkpoint that is due and not there is demoted by the first
agent that has a copy and a store. Of several policies the earliest counts. Copies on nodes stay
where they are: what goes is for TierPlacements and retention to say. Rule: what nobody can do now
is tried again, and said once in the log and in an event.
"""

from collections.abc import Mapping
from typing import Any

from controller.carriers import Carrier
from controller.duties import Duty
from controller.storing import StoreFull
from kybernate.api.checkpointpolicies import CheckpointPolicy, read_policy
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.clock import Clock
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import CHECKPOINTPOLICIES, GPUCHECKPOINTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger

THREADS = 2  # each follows one agent
UNSYNCED = 0.5  # seconds until the next look while a first list is under way
REFUSED = 300.0  # until agents that cannot are asked again
_GIB = 1 << 30


class NotWanted(Exception):
    """No policy asks for it any more, or it is gone."""


class Cooling:
    """Watches policies and checkpoints; the leader has agents demote what is due."""

    def __init__(self, kube: Kube, clock: Clock, carrier: Carrier, events: EventRecorder) -> None:
        self._clock, self._carrier, self._events = clock, carrier, events
        self._policies: Reflector[CheckpointPolicy] = Reflector(
            kube, CHECKPOINTPOLICIES, project=read_policy, on_change=self._policy_changed
        )
        self._checkpoints: Reflector[Checkpoint] = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._changed
        )
        self.watches: tuple[Reflector[Any], ...] = (self._policies, self._checkpoints)
        self.duty: Duty[Key] = Duty("cooling", clock, self.look, self._checkpoints.items, THREADS)
        self._log = get_logger(duty="cooling")

    def checkpoints(self) -> Mapping[Key, Checkpoint] | None:
        """All there are; None while nobody knows yet."""
        return self._checkpoints.items() if self._checkpoints.synced else None

    def look(self, key: Key) -> float | None:
        """Demote it where it is due; seconds until the next look. Raises AgentAway, ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        one = self._checkpoints.get(key)
        after = self._after(one) if one else None
        if one is None or after is None:
            return None
        left = one.sealed_at + after - self._clock.now()
        return left if left > 0 else self._demote(one)

    def _demote(self, one: Checkpoint) -> float | None:
        said = []
        for node in sorted(one.copies):
            try:
                self._put(one, node)
            except StoreFull as full:
                said = [str(full)]
                break
            except (AgentAway, AgentRefused) as no:
                said.append(f"{node}: {no}")
            except NotWanted:
                return None
            else:
                return None
        note = f"not in object storage yet: {'; '.join(said)}"
        self._tell(one, EventReason.DEMOTE_FAILED, note)
        return REFUSED

    def _put(self, one: Checkpoint, node: NodeName) -> None:
        def told(*_: object) -> None:
            now = self._checkpoints.get((one.namespace, one.name))
            if now is None or self._after(now) is None:
                raise NotWanted

        moved = self._carrier.demote(node, one, told)
        note = (
            f"copy in object storage from {node}: {moved.size / _GIB:.1f} GiB in "
            f"{moved.seconds:.1f} s, {moved.put / _GIB:.1f} GiB of them new there"
        )
        self._tell(one, EventReason.DEMOTED, note)

    def _after(self, one: Checkpoint) -> float | None:
        """Seconds after its sealing, where it is to go there and has not."""
        if not one.ready or one.in_object_storage or not one.copies:
            return None
        asked = [
            policy.object_after
            for policy in self._policies.items().values()
            if policy.object_after is not None and policy.is_about(one.namespace, one.labels)
        ]
        return min(asked, default=None)

    def _tell(self, one: Checkpoint, reason: EventReason, note: str) -> None:
        regarding = ObjectRef(
            kind="GpuCheckpoint", name=one.name, namespace=one.namespace, uid="",
            api_version=GPUCHECKPOINTS.api_version,
        )  # fmt: skip
        self._events.record(regarding, reason, "Demote", note)
        self._log.info(note, checkpoint=f"{one.namespace}/{one.name}")

    def _changed(self, change: Change[Checkpoint]) -> None:
        if change.old != change.new:
            self.duty.touch(change.key)

    def _policy_changed(self, change: Change[CheckpointPolicy]) -> None:
        if change.old != change.new:
            for key in self._checkpoints.items():
                if key[0] == change.key[0]:
                    self.duty.touch(key)
