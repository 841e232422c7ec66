"""Claims on GpuCheckpoints whose pods are gone are freed: another pod may wake from the state then.

Called by: `process`. Whether a claim is an orphan is `kybernate.decisions.claims`. Rule: it is
freed by what the API server itself says of the pod, never by what a watch has not shown yet, and
only as long as nobody wrote the checkpoint since it was read.
"""

from collections.abc import Mapping
from typing import Any

from controller.duties import Duty
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import GPUCHECKPOINTS, PODS
from kybernate.decisions import claims
from kybernate.model.checkpoint import Claim
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way
EVERY = 30.0  # seconds: so late is a claim noticed whose pod went while we did not look


class Claims:
    """Watches claims; the leader frees them."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._claimed: Reflector[Claim] = Reflector(
            kube, GPUCHECKPOINTS, project=_claim, on_change=self._changed
        )
        self.watches = (self._claimed,)
        self.duty: Duty[Key] = Duty("claims", clock, self.look, self._claimed.items)
        self._log = get_logger(duty="claims")

    def pod_gone(self, namespace: str, uid: str) -> None:
        """A pod went: its claims are looked at now."""
        for key, claim in self._claimed.items().items():
            if key[0] == namespace and claim.pod_uid == uid:
                self.duty.touch(key)

    def look(self, key: Key) -> float | None:
        """Free the claim if its pod is gone; seconds until the next look. Raises ApiError."""
        if not self._claimed.synced:
            return UNSYNCED
        if self._claimed.get(key) is None:
            return None
        namespace, name = key
        found = self._find(namespace, name)
        checkpoint = None if found is None else read_checkpoint(found)
        if found is None or checkpoint is None or checkpoint.claim is None:
            return None
        pod = self._pod(namespace, checkpoint.claim.pod)
        if not claims.orphaned(checkpoint, pod):
            return EVERY
        self._free(namespace, name, found["metadata"]["resourceVersion"])
        self._log.info("claim freed", checkpoint=f"{namespace}/{name}", pod=checkpoint.claim.pod)
        return None

    def _free(self, namespace: str, name: str, version: str) -> None:
        patch = {"metadata": {"resourceVersion": version}, "status": {"claim": None}}
        self._kube.patch(GPUCHECKPOINTS, name, patch, namespace, subresource="status")

    def _find(self, namespace: str, name: str) -> Obj | None:
        try:
            return self._kube.get(GPUCHECKPOINTS, name, namespace)
        except NotFound:
            return None

    def _pod(self, namespace: str, name: str) -> Obj | None:
        if not name:
            return None
        try:
            return self._kube.get(PODS, name, namespace)
        except NotFound:
            return None

    def _changed(self, change: Change[Any]) -> None:
        self.duty.touch(change.key)


def _claim(obj: Mapping[str, Any]) -> Claim | None:
    return read_checkpoint(obj).claim
