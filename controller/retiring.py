"""Checkpoints that newer ones have replaced: deleted, as their CheckpointPolicy says.

Called by: `process`. Which ones may go is `kybernate.decisions.retention`. Rule: one is deleted
only as it was read from the API server itself, so that a claim taken meanwhile keeps it. Its bytes
go when the agents see that the object is gone.
"""

from typing import Any

from controller.duties import Duty
from kybernate.api.checkpointpolicies import CheckpointPolicy, read_policy
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import CHECKPOINTPOLICIES, GPUCHECKPOINTS
from kybernate.decisions import retention
from kybernate.decisions.retention import Keeping
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way


class Retiring:
    """Watches checkpoints and policies; the leader looks at one namespace at a time."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._checkpoints: Reflector[Checkpoint] = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._changed
        )
        self._policies: Reflector[CheckpointPolicy] = Reflector(
            kube, CHECKPOINTPOLICIES, project=read_policy, on_change=self._changed
        )
        self.watches = (self._checkpoints, self._policies)
        self.duty: Duty[str] = Duty("retention", clock, self.look, self._namespaces)
        self._log = get_logger(duty="retention")

    def look(self, namespace: str) -> float | None:
        """Delete what may go; seconds until the next look. Raises ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        ours = [one for one in self._checkpoints.items().values() if one.namespace == namespace]
        keeping = [_keeping(p) for p in self._policies.items().values() if p.namespace == namespace]
        for old in retention.replaced(ours, keeping):
            self._retire(old)
        return None

    def _retire(self, old: Checkpoint) -> None:
        try:
            obj = self._kube.get(GPUCHECKPOINTS, old.name, old.namespace)
            now = read_checkpoint(obj)
            if now.signature != old.signature or now.claim is not None:
                return  # its change has touched the namespace again
            version = obj["metadata"]["resourceVersion"]
            self._kube.delete(GPUCHECKPOINTS, old.name, old.namespace, resource_version=version)
        except NotFound:
            return
        self._log.info("checkpoint retired", checkpoint=f"{old.namespace}/{old.name}")

    def _namespaces(self) -> set[str]:
        return {policy.namespace for policy in self._policies.items().values()}

    def _changed(self, change: Change[Any]) -> None:
        self.duty.touch(change.key[0])


def _keeping(policy: CheckpointPolicy) -> Keeping:
    return Keeping(
        namespace=policy.namespace,
        keep=policy.keep,
        selects=lambda checkpoint: policy.selects(checkpoint.labels),
    )
