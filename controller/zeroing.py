"""Deployments that go to zero when nobody asks for them, and come back when somebody does.

Level-based, as `zero_plan` says. Who waits is read from the activators' Leases: each names the
Deployments at zero that it holds requests for, and counts as long as it is renewed *while we
watch*. Rule: only here is a Deployment scaled for that, by its scale subresource and only as it was
read; what its next pod wakes from is named by the webhook, as for any other pod of it.
"""

from controller import zero_plan
from controller.duties import Duty
from controller.zero_plan import Around, Nothing, Pod, Scale, Seal, Sealed
from controller.zero_seen import (
    LENGTH_S,
    SUFFIX,
    Deployment,
    PodSeen,
    Standing,
    Wish,
    deployments_own,
    deployments_pod,
    may_go,
    request_name,
    sealing,
    standing,
    wish,
)
from kybernate.api import checkpointrequests, names
from kybernate.api.checkpointrequests import Leave
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import (
    CHECKPOINTREQUESTS,
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    GPUWORKLOADS,
    LEASES,
    PODS,
)
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way
_ACTION = "Scale"


class Zeroing:
    """Watches; the leader scales."""

    def __init__(self, kube: Kube, clock: Clock, events: EventRecorder, after: float) -> None:
        self._kube, self._clock, self._events, self._after = kube, clock, events, after
        self._deployments = Reflector(
            kube, DEPLOYMENTS, project=may_go, on_change=self._deployment_changed
        )
        self._pods = Reflector(kube, PODS, project=deployments_pod, on_change=self._pod_changed)
        self._standings = Reflector(
            kube, GPUWORKLOADS, project=standing, on_change=self._standing_changed
        )
        self._checkpoints = Reflector(
            kube, GPUCHECKPOINTS, project=deployments_own, on_change=self._checkpoint_changed
        )
        self._requests = Reflector(
            kube, CHECKPOINTREQUESTS, project=sealing, on_change=self._request_changed
        )
        self._leases = Reflector(
            kube, LEASES, namespace=names.SYSTEM_NAMESPACE, project=wish, on_change=self._wished
        )
        self.watches = (
            self._deployments, self._pods, self._standings, self._checkpoints, self._requests,
            self._leases,
        )  # fmt: skip
        self._heard: dict[str, float] = {}  # when an activator's Lease was seen to change
        self.duty: Duty[Key] = Duty("zeroing", clock, self.look, self._deployments.items)
        self._log = get_logger(duty="zeroing")

    def look(self, key: Key) -> float | None:
        """Take the next step; seconds until the next look. Raises ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        found = self._deployments.get(key)
        if found is None:
            return None
        around = self._around(key, found)
        step = zero_plan.plan(around, self._clock.now(), self._after)
        match step:
            case Nothing(again):
                return LENGTH_S if again is None and around.wanted else again
            case Seal(pod, instead):
                self._seal(key, pod, instead)
            case Scale(replicas, why):
                self._scale(key, found, replicas, why)
        return None

    def _around(self, key: Key, found: Deployment) -> Around:
        own = {
            pod: seen
            for pod, seen in self._pods.items().items()
            if (pod[0], seen.deployment) == key
        }
        living = [self._pod(pod, seen, found) for pod, seen in own.items() if not seen.leaving]
        return Around(
            replicas=found.replicas,
            wanted=self._is_wanted(key),
            pods=tuple(living),
            leaving=sum(seen.leaving for seen in own.values()),
            sealed=self._sealed(key),
            candidate=self._candidate(key),
        )

    def _pod(self, key: Key, seen: PodSeen, found: Deployment) -> Pod:
        stands = self._standings.get(key)
        if stands is None or stands.pod_uid != seen.uid:
            return Pod(name=key[1], uid=seen.uid, stays=found.stays)
        return Pod(
            name=key[1],
            uid=seen.uid,
            state=stands.state,
            since=stands.since,
            stays=found.stays or stands.stays,
        )

    def _is_wanted(self, key: Key) -> bool:
        now = self._clock.monotonic()
        for (_, name), found in self._leases.items().items():
            if key in found.wanted and now - self._heard.get(name, now) <= found.length:
                return True
        return False

    def _sealed(self, key: Key) -> Sealed | None:
        """Our request for it, and the checkpoint that came of it. Read anew: it is rare, and a
        wrong answer costs a state."""
        namespace, _ = key
        if self._requests.get((namespace, request_name(key[1]))) is None:
            return None
        try:
            obj = self._kube.get(CHECKPOINTREQUESTS, request_name(key[1]), namespace)
        except NotFound:
            return None
        request = checkpointrequests.read_request(obj)
        status = request.status
        annotations = obj["metadata"].get("annotations") or {}
        return Sealed(
            pod_uid=PodUid(status.pod_uid or annotations.get(_OF_POD, "")),
            state=status.state,
            message=status.message,
            at=self._complete_at(namespace, status.checkpoint),
            checkpoint=status.checkpoint,
        )

    def _complete_at(self, namespace: str, name: str) -> float:
        try:
            found = (
                read_checkpoint(self._kube.get(GPUCHECKPOINTS, name, namespace)) if name else None
            )
        except NotFound:
            return 0.0
        usable = found is not None and found.ready and found.claim is None
        return found.sealed_at if found is not None and usable else 0.0

    def _candidate(self, key: Key) -> str:
        """As the webhook names it: the newest that is ready, of this Deployment."""
        found = [
            (at, name)
            for (space, name), (deployment, at) in self._checkpoints.items().items()
            if (space, deployment) == key
        ]
        return max(found)[1] if found else ""

    def _seal(self, key: Key, pod: Pod, instead: bool) -> None:
        namespace, name = key[0], request_name(key[1])
        if instead:
            self._kube.delete(CHECKPOINTREQUESTS, name, namespace)
        workload = WorkloadKey(namespace, pod.name)
        made: Obj = checkpointrequests.new_object(workload, leave=Leave.PARKED)
        made["metadata"] = {
            "namespace": namespace,
            "name": name,
            "annotations": {_OF_POD: pod.uid},
        }
        self._kube.create(CHECKPOINTREQUESTS, made)
        self._log.info("a checkpoint is asked for", deployment="/".join(key), pod=pod.name)

    def _scale(self, key: Key, found: Deployment, replicas: int, why: str) -> None:
        """Conditional on how the Deployment was read: whoever scales it by hand comes first."""
        namespace, name = key
        patch = {"metadata": {"resourceVersion": found.version}, "spec": {"replicas": replicas}}
        self._kube.patch(DEPLOYMENTS, name, patch, namespace, subresource="scale")
        self._log.info("scaled", deployment="/".join(key), to=replicas, why=why)
        regarding = ObjectRef(
            kind="Deployment", name=name, namespace=namespace, uid=found.uid, api_version="apps/v1"
        )
        reason = EventReason.FROM_ZERO if replicas else EventReason.TO_ZERO
        self._events.record(regarding, reason, _ACTION, why)

    def _deployment_changed(self, change: Change[Deployment]) -> None:
        parts = [(one.replicas, one.stays) if one else None for one in (change.old, change.new)]
        if parts[0] != parts[1]:  # most changes of a Deployment are of its status
            self.duty.touch(change.key)

    def _pod_changed(self, change: Change[PodSeen]) -> None:
        if change.old != change.new:
            for seen in (change.old, change.new):
                if seen is not None:
                    self.duty.touch((change.key[0], seen.deployment))

    def _standing_changed(self, change: Change[Standing]) -> None:
        seen = self._pods.get(change.key)
        if seen is not None and change.old != change.new:
            self.duty.touch((change.key[0], seen.deployment))

    def _checkpoint_changed(self, change: Change[tuple[str, float]]) -> None:
        for seen in (change.old, change.new):
            if seen is not None:
                self.duty.touch((change.key[0], seen[0]))

    def _request_changed(self, change: Change[str]) -> None:
        self.duty.touch((change.key[0], change.key[1].removesuffix(SUFFIX)))

    def _wished(self, change: Change[Wish]) -> None:
        self._heard[change.key[1]] = self._clock.monotonic()
        touched: set[Key] = set()
        for seen in (change.old, change.new):
            touched |= seen.wanted if seen is not None else set()
        for key in touched:
            self.duty.touch(key)


_OF_POD = f"{names.GROUP}/pod-uid"
