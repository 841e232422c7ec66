"""
Snapshots: checkpoints of running workloads by the clock of their CheckpointPolicy (`every`).

Called by: `process`. Level-based: what is due is planned from what is (`snapshot_plan`), and asked
for by a CheckpointRequest like anybody's, which `checkpointing` carries out. Of several policies
the shortest `every` counts. Rule: a clock that is set makes no storm: whatever the wall clock says,
this leader asks for the same workload again only after `every` by a clock that does not jump. Rule:
what keeps a workload from being snapshotted is said once, and stands in its policies' condition
Ready.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from controller import snapshot_plan as plans
from controller.duties import Duty
from controller.snapshot_plan import Around, Ask, Plan, Rest, Running
from kybernate.api import checkpointrequests, fields, gpuworkloads, identity, pods, timestamps
from kybernate.api.checkpointpolicies import CheckpointPolicy, Labels, Standing, read_policy
from kybernate.api.checkpointpolicies import write_status as policy_status
from kybernate.api.checkpointrequests import CheckpointRequest
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, NotFound
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    CHECKPOINTREQUESTS,
    GPUCHECKPOINTS,
    GPUWORKLOADS,
    PODS,
)
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way
_NOBODY = ""
_NAMED = 5  # workloads that a policy's condition names

SeatPod = tuple[Labels, frozenset[str]]
"""Its labels, and what its checkpoints may be said to be of."""


class Snapshotting:
    """Watches policies, workloads and checkpoints; the leader asks for what is due."""

    def __init__(self, kube: Kube, clock: Clock, events: EventRecorder) -> None:
        self._kube, self._clock, self._events = kube, clock, events
        self._policies: Reflector[CheckpointPolicy] = Reflector(
            kube, CHECKPOINTPOLICIES, project=read_policy, on_change=self._policy_changed
        )
        self._pods: Reflector[SeatPod] = Reflector(
            kube, PODS, project=_seat_pod, on_change=self._changed
        )
        self._running: Reflector[Running] = Reflector(
            kube, GPUWORKLOADS, project=_running, on_change=self._changed
        )
        self._requests: Reflector[CheckpointRequest] = Reflector(
            kube,
            CHECKPOINTREQUESTS,
            project=checkpointrequests.read_request,
            on_change=self._request_changed,
        )
        self._checkpoints: Reflector[Checkpoint] = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint
        )
        self.watches: tuple[Reflector[Any], ...] = (
            self._policies, self._pods, self._running, self._requests, self._checkpoints,
        )  # fmt: skip
        self.duty: Duty[Key] = Duty("snapshots", clock, self.look, self._keys)
        self._asked: dict[str, float] = {}  # monotonic, by the pod's uid
        self._rests: dict[Key, Rest] = {}
        self._log = get_logger(duty="snapshots")

    def look(self, key: Key) -> float | None:
        """Ask for a snapshot where one is due; seconds until the next look. Raises ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        one, every = self._running.get(key), self._every(key)
        if one is None or every is None:
            self._rests.pop(key, None)
            self._tell_policies(key[0])
            return None
        made = plans.plan(one, every, self._around(key, one), self._clock.now())
        again = self._take(one, every, made)
        self._tell_policies(key[0])
        return again

    def _take(self, one: Running, every: float, made: Plan) -> float | None:
        key = (one.key.namespace, one.key.name)
        for past in made.forget:
            self._forget(past)
        if isinstance(made.step, Ask):
            self._rests[key] = Rest()
            left = self._asked.get(one.pod_uid, float("-inf")) + every - self._clock.monotonic()
            if left > 0:
                return left
            self._ask(one, made.step)
            return every
        self._say(key, one, made.step)
        return made.step.again

    def _ask(self, one: Running, step: Ask) -> None:
        obj = checkpointrequests.new_object(
            one.key,
            within=step.within,
            forget_after=plans.REMEMBERED,
        )
        obj["metadata"] = checkpointrequests.by_clock(step.name, one.key, one.uid)
        try:
            self._kube.create(CHECKPOINTREQUESTS, obj)
        except AlreadyExists:
            self._log.info("asked for before", request=step.name, workload=str(one.key))
        else:
            self._log.info("a snapshot is asked for", request=step.name, workload=str(one.key))
        self._asked[one.pod_uid] = self._clock.monotonic()

    def _forget(self, request: CheckpointRequest) -> None:
        namespace, name = request.key
        try:
            self._kube.delete(CHECKPOINTREQUESTS, name, namespace, uid=request.uid)
        except NotFound:
            self._log.info("forgotten before", request=f"{namespace}/{name}")

    def _say(self, key: Key, one: Running, rest: Rest) -> None:
        """Once; what passes by itself goes into the log only."""
        before = self._rests.get(key)
        self._rests[key] = rest
        if not rest.reason or (before is not None and before.reason == rest.reason):
            return
        self._log.info("no snapshot", workload="/".join(key), why=rest.message)
        if rest.reason in plans.OBSTACLES:
            regarding = ObjectRef(
                kind="GpuWorkload", name=key[1], namespace=key[0], uid=one.uid,
                api_version=GPUWORKLOADS.api_version,
            )  # fmt: skip
            self._events.record(
                regarding, EventReason.CHECKPOINT_SKIPPED, "Snapshot", rest.message, warning=True
            )

    # what a workload's policies say, and what they are told

    def _every(self, key: Key) -> float | None:
        asked = [policy.every for policy in self._selecting(key) if policy.every is not None]
        return min(asked, default=None)

    def _selecting(self, key: Key) -> Iterator[CheckpointPolicy]:
        return (one for one in self._policies.items().values() if self._is_about(one, key))

    def _tell_policies(self, namespace: str) -> None:
        """Raises ApiError."""
        for (space, _), policy in self._policies.items().items():
            if space == namespace:
                self._tell(policy)

    def _tell(self, policy: CheckpointPolicy) -> None:
        about = [
            key
            for key, one in self._running.items().items()
            if not one.finished and self._is_about(policy, key)
        ]
        if policy.every is not None and not self._rests.keys() >= set(about):
            return  # not everybody was looked at since we lead
        standing = Standing(workloads=len(about), message=self._words(policy, about))
        if policy.standing == standing:
            return
        patch = {
            "metadata": {"uid": policy.uid},
            "status": policy_status(policy, standing, self._clock.now()),
        }
        try:
            self._kube.patch(
                CHECKPOINTPOLICIES, policy.name, patch, policy.namespace, subresource="status"
            )
        except NotFound:
            self._log.info("deleted meanwhile", policy=f"{policy.namespace}/{policy.name}")

    def _is_about(self, policy: CheckpointPolicy, key: Key) -> bool:
        pod = self._pods.get(key)
        return pod is not None and policy.is_about(key[0], pod[0])

    def _words(self, policy: CheckpointPolicy, about: list[Key]) -> str:
        """Who is not snapshotted now, and why."""
        if policy.every is None:
            return ""
        rests = [(key[1], self._rests[key]) for key in sorted(about)]
        said = [f"{name}: {rest.message}" for name, rest in rests if _stands(rest)]
        more = f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        return "; ".join(said[:_NAMED]) + more

    # what there is

    def _around(self, key: Key, one: Running) -> Around:
        requests = [r for r in self._requests.items().values() if r.workload == one.key]
        named = {request.status.checkpoint for request in requests} - {""}
        pod = self._pods.get(key)
        identities = pod[1] if pod is not None else frozenset()
        sealed = {
            name: found.sealed_at
            for (space, name), found in self._checkpoints.items().items()
            if space == key[0] and found.ready and not found.gold
            if name in named or found.workload in identities
        }
        return Around(requests=requests, sealed=sealed)

    def _changed(self, change: Change[Any]) -> None:
        if change.old != change.new:
            if change.new is None and isinstance(change.old, Running):
                self._asked.pop(change.old.pod_uid, None)
            self.duty.touch(change.key)

    def _request_changed(self, change: Change[CheckpointRequest]) -> None:
        both = [one.status.is_finished if one else None for one in (change.old, change.new)]
        seen = change.new or change.old
        if both[0] != both[1] and seen is not None:
            self.duty.touch((seen.workload.namespace, seen.workload.name))

    def _policy_changed(self, change: Change[CheckpointPolicy]) -> None:
        if change.old == change.new:  # it is our own word about it
            return
        namespace = change.key[0]
        for key in self._running.items():
            if key[0] == namespace:
                self.duty.touch(key)
        self.duty.touch((namespace, _NOBODY))

    def _keys(self) -> set[Key]:
        """Every workload, and for each policy one more: it is told, also where it selects none."""
        told = {(namespace, _NOBODY) for namespace, _ in self._policies.items()}
        return told | set(self._running.items())


def _stands(rest: Rest) -> bool:
    """Whether it is worth a word: what is under way is told by its request."""
    return bool(rest.reason) and rest.reason != plans.UNDER_WAY


def _seat_pod(obj: Obj) -> SeatPod | None:
    if not pods.is_seat_pod(obj):
        return None
    metadata: Mapping[str, Any] = obj["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "default")
    alone = identity.of_pod(obj, namespace, lambda *_: 1)
    return dict(metadata.get("labels") or {}), frozenset({name, alone or name})


def _running(obj: Obj) -> Running:
    spec, status = gpuworkloads.read_spec(obj), gpuworkloads.read_status(obj)
    metadata = obj["metadata"]
    made = metadata.get("creationTimestamp")
    demand = status.demand if status else None
    return Running(
        key=spec.key,
        uid=metadata.get("uid", ""),
        pod_uid=spec.pod_uid,
        made=timestamps.parse_rfc3339(made) if made else 0.0,
        state=status.state if status else None,
        since=status.since if status else 0.0,
        busy=demand is not None and demand.busy,
        worked_at=status.worked_at if status else 0.0,
        obstacle=gpuworkloads.unparkable(obj),
        finished=fields.condition(obj, gpuworkloads.FINISHED) == "True",
    )
