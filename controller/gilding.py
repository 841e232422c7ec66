"""Gold images that CheckpointPolicies ask for: of each image and command that runs there is one.

Called by: `process`. Level-based: a pod that is Ready, that a policy with `gold` selects, and for
whose image and command no gold image is there, is sealed as one; so after a rollout a new one is
made of the first pod of the new version that is Ready. What it is called follows from the pod
(`kybernate/api/goldimages.py`), so whoever looks asks for the same one. Rule: the old one is not
touched: it goes by retention, once a newer one is Ready and no pod is of its version.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.duties import Duty
from kybernate.api import checkpointrequests, fields, goldimages, pods, timestamps
from kybernate.api.checkpointpolicies import CheckpointPolicy, read_policy
from kybernate.api.goldimages import Seated
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import CHECKPOINTPOLICIES, CHECKPOINTREQUESTS, GPUCHECKPOINTS, PODS
from kybernate.model.ids import WorkloadKey
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way
SETTLED = 10.0  # how long it has to be Ready
AGAIN = 60.0  # until the next look at one that is being sealed, or could not be


@dataclass(frozen=True, slots=True)
class Running:
    """A pod that runs. `ready` is since when it is Ready, seconds since the epoch; None: it is
    not."""

    seated: Seated
    ready: float | None


class Gilding:
    """Watches policies, pods and checkpoints; the leader asks for what is missing."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube, self._clock = kube, clock
        self._policies: Reflector[CheckpointPolicy] = Reflector(
            kube, CHECKPOINTPOLICIES, project=_with_gold, on_change=self._policy_changed
        )
        self._pods: Reflector[Running] = Reflector(
            kube, PODS, project=_running, on_change=self._changed
        )
        self._images: Reflector[bool] = Reflector(kube, GPUCHECKPOINTS, project=lambda _: True)
        self.watches: tuple[Reflector[Any], ...] = (self._policies, self._pods, self._images)
        self.duty: Duty[Key] = Duty("gilding", clock, self.look, self._pods.items)
        self._log = get_logger(duty="gilding")

    def look(self, key: Key) -> float | None:
        """Ask for what is missing of this pod's version; seconds until the next look.

        Raises ApiError.
        """
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        pod = self._pods.get(key)
        missing = list(self._missing(key, pod)) if pod else []
        if pod is None or pod.ready is None or not missing:
            return None
        left = pod.ready + SETTLED - self._clock.now()
        if left > 0:
            return min(left, SETTLED)
        for name in missing:
            self._ask(key, name)
        return AGAIN

    def _missing(self, key: Key, pod: Running) -> Iterator[str]:
        for policy in self._policies.items().values():
            if policy.is_about(key[0], pod.seated.labels):
                name = goldimages.name_of(policy.gold, pod.seated.version)
                if self._images.get((key[0], name)) is None:
                    yield name

    def _ask(self, key: Key, name: str) -> None:
        """Once: of a request that failed it is not asked again before that one is forgotten."""
        namespace, pod = key
        made = checkpointrequests.new_object(WorkloadKey(namespace, pod), name=name, gold=True)
        made["metadata"] = {"namespace": namespace, "name": f"gold-{name}"}
        try:
            self._kube.create(CHECKPOINTREQUESTS, made)
        except AlreadyExists:
            return
        self._log.info("a gold image is asked for", image=f"{namespace}/{name}", pod=pod)

    def _changed(self, change: Change[Running]) -> None:
        if change.old != change.new:
            self.duty.touch(change.key)

    def _policy_changed(self, change: Change[CheckpointPolicy]) -> None:
        for key in self._pods.items():
            if key[0] == change.key[0]:
                self.duty.touch(key)


def _with_gold(obj: Mapping[str, Any]) -> CheckpointPolicy | None:
    policy = read_policy(obj)
    return policy if policy.gold else None


def _running(obj: Mapping[str, Any]) -> Running | None:
    """None for a pod that is none of ours, that ended, or that goes."""
    if pods.is_finished(obj) or obj["metadata"].get("deletionTimestamp"):
        return None
    seated = goldimages.seated(obj)
    if seated is None:
        return None
    ready = fields.condition(obj, "Ready") == "True"
    return Running(seated, _since(obj) if ready else None)


def _since(obj: Mapping[str, Any]) -> float:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition.get("lastTransitionTime"):
            return timestamps.parse_rfc3339(condition["lastTransitionTime"])
    return 0.0
