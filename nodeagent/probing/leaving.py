"""
The last thing before a pod goes: sealed, where its owner wants its state kept ("deleting is not
losing").

Called by: `prober`, for the preStop hook, while the kubelet waits out the grace period. Rule: what
cannot be sealed in time is not begun; the last checkpoint stays, and people are told. Rule: a hook
runs as well when a container is only restarted; then there is nothing to keep.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kybernate.api import identity
from kybernate.api.timestamps import parse_rfc3339
from kybernate.clients.clock import Clock
from kybernate.clients.errors import ApiError, NotFound
from kybernate.clients.resources import GPUCHECKPOINTS, PODS, Resource
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.probing import Asked, Outcome
from kybernate.model.workload import OnDelete, State, Workload

# Of the grace period: what the kubelet needs to hear of it, and to end the container.
_SPARE_S = 2.0
_WITHOUT_WORD_S = 30.0  # Kubernetes' own grace period, where nobody can be asked for the pod's
Pod = Mapping[str, Any]
_NOTHING = Outcome(passed=True)


class Sealing(Protocol):
    """Who makes checkpoints."""

    def seconds(self, key: WorkloadKey) -> float:
        """How long one of it will take, about."""

    def seal(self, key: WorkloadKey, uid: PodUid, within: float) -> Outcome:
        """Park it where it is active, and seal it, in so many seconds; leave it parked."""


class Api(Protocol):
    """What is asked of the API server."""

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Raises NotFound, ApiError, Unavailable."""

    def list(self, resource: Resource, namespace: str | None = None) -> "list[dict[str, Any]]":
        """Raises ApiError, Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """A `Leaving`. `went` tells people that it went without a checkpoint."""

    api: Api
    sealing: Sealing
    pod_of: Callable[[WorkloadKey], Workload | None]
    state_of: Callable[[WorkloadKey], State]
    went: Callable[[WorkloadKey, PodUid, str], None]
    clock: Clock

    def leave(self, key: WorkloadKey, uid: PodUid, asked: Asked) -> Outcome:
        """Seal it where that is wished and there is time."""
        if not self._is_to_be_sealed(key, uid, asked) or self.state_of(key) is State.WAITING:
            return _NOTHING
        try:
            pod = self.api.get(PODS, key.name, key.namespace)
        except NotFound:
            pod = {}
        except ApiError:
            return self._seal(key, uid, float(asked.grace or _WITHOUT_WORD_S), {})
        metadata = pod.get("metadata") or {}
        if metadata.get("uid") != uid:
            return self._not_sealed(key, uid, "it was deleted by force, which leaves no time", {})
        if not metadata.get("deletionTimestamp"):
            return _NOTHING
        left = parse_rfc3339(metadata["deletionTimestamp"]) - self.clock.now()
        return self._seal(key, uid, left, pod)

    def _is_to_be_sealed(self, key: WorkloadKey, uid: PodUid, asked: Asked) -> bool:
        pod = self.pod_of(key)
        if pod is not None and pod.uid == uid:
            return pod.wishes.on_delete is OnDelete.CHECKPOINT
        return asked.seal

    def _seal(self, key: WorkloadKey, uid: PodUid, left: float, pod: Pod) -> Outcome:
        within, needed = left - _SPARE_S, self.sealing.seconds(key)
        if needed > within:
            why = f"{max(0.0, within):.0f} s of its grace period are left, and a checkpoint takes"
            return self._not_sealed(key, uid, f"{why} about {needed:.0f} s", pod)
        sealed = self.sealing.seal(key, uid, within)
        return sealed if sealed.passed else self._not_sealed(key, uid, sealed.say, pod)

    def _not_sealed(self, key: WorkloadKey, uid: PodUid, why: str, pod: Pod) -> Outcome:
        said = f"deleted without a new checkpoint: {why}; {self._last(key, pod)}"
        self.went(key, uid, said)
        return Outcome(passed=False, say=said)

    def _last(self, key: WorkloadKey, pod: Pod) -> str:
        """In words, what it may wake from. One that identity does not find goes by the pod's name,
        as it does when it is sealed."""
        workloads = {key.name, identity.of_pod(pod, key.namespace, lambda *_: 1)}
        try:
            listed = self.api.list(GPUCHECKPOINTS, key.namespace)
        except ApiError:
            return "the last one is kept"
        made = [
            (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"])
            for one in listed
            if (one.get("spec") or {}).get("workload") in workloads
        ]
        return f"the last one is kept: {max(made)[1]}" if made else "there is none from before"


class NoSealing:
    """Where nothing can be sealed."""

    def seconds(self, key: WorkloadKey) -> float:  # noqa: ARG002
        """As the port says."""
        return 0.0

    def seal(self, key: WorkloadKey, uid: PodUid, within: float) -> Outcome:  # noqa: ARG002
        """As the port says."""
        return Outcome(passed=False, say="this agent makes no checkpoints")
