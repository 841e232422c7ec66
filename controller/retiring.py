"""Checkpoints that nobody keeps any more: judged by `kyb.retention`, collected after a grace time.

Called by: `process`. What becomes of each is `kybernate.decisions.collection`. Its condition Kept
says so to people, and since when, also to the next leader: the grace time counts from there. Rule:
one is deleted only as it was read from the API server itself, so that a claim taken meanwhile keeps
it. Its bytes go when the agents see that the object is gone.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from controller import references
from controller.duties import Duty
from kybernate.api import checkpoints as codec
from kybernate.api import goldimages
from kybernate.api.checkpointpolicies import CheckpointPolicy, read_policy
from kybernate.api.checkpoints import Kept
from kybernate.api.goldimages import Seated
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    PODS,
    RESTOREREQUESTS,
    TIERPLACEMENTS,
    Resource,
)
from kybernate.decisions import collection
from kybernate.decisions.collection import Doing, Held, Keeping, Step
from kybernate.model.checkpoint import Checkpoint, key_of
from kybernate.model.policy import RetentionQuestion, RetentionVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.runtime.logs import get_logger

UNSYNCED = 0.5  # seconds until the next look while a first list is under way
EVERY = 300.0  # seconds: so late is it noticed that policy says something else
AWAY = 10.0  # seconds until policy that gave no verdict is asked again

Names = tuple[str, ...]
Seen = tuple[Checkpoint, Kept | None]


class Asks(Protocol):
    """The part of the policy port that is needed."""

    def retention(self, question: RetentionQuestion) -> RetentionVerdict | Refusal:
        """Which checkpoints of a workload are kept."""


class NoPolicy:
    """Where no OPA is given: nothing is ever let go."""

    def retention(self, question: RetentionQuestion) -> RetentionVerdict | Refusal:  # noqa: ARG002
        """No verdict."""
        return Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="no OPA is given (--opa-url)")


class Retiring:
    """Watches checkpoints and who names them; the leader looks at one namespace at a time."""

    def __init__(self, kube: Kube, clock: Clock, policy: Asks) -> None:
        self._kube, self._clock, self._policy = kube, clock, policy
        self._checkpoints: Reflector[Seen] = Reflector(
            kube, GPUCHECKPOINTS, project=_seen, on_change=self._changed
        )
        self._policies: Reflector[CheckpointPolicy] = Reflector(
            kube, CHECKPOINTPOLICIES, project=read_policy, on_change=self._changed
        )
        self._named: dict[str, Reflector[Names]] = {
            "pod": self._naming(PODS, references.of_pod),
            "deployment": self._naming(DEPLOYMENTS, references.of_deployment),
            "tierplacement": self._naming(TIERPLACEMENTS, references.of_placement),
            "restorerequest": self._naming(RESTOREREQUESTS, references.of_restore),
        }
        self._running: Reflector[Seated] = Reflector(
            kube, PODS, project=references.living, on_change=self._changed
        )
        self.watches: tuple[Reflector[Any], ...] = (
            self._checkpoints, self._policies, self._running, *self._named.values(),
        )  # fmt: skip
        self.duty: Duty[str] = Duty("retention", clock, self.look, self._namespaces)
        self._log = get_logger(duty="retention")

    def look(self, namespace: str) -> float | None:
        """Say what becomes of each, collect what may go; seconds until the next look.

        Raises ApiError.
        """
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        ours = {key: seen for key, seen in self._checkpoints.items().items() if key[0] == namespace}
        if not ours:
            return None
        held = [self._held(key, seen) for key, seen in ours.items()]
        plan = collection.plan(
            held, self._keeping(namespace), self._policy.retention, self._clock.now()
        )
        for step in plan.steps:
            self._carry_out(step, ours[namespace, step.checkpoint.name][1])
        for over, size in plan.over.items():
            self._log.warning("over its quota by what is kept", namespace=over, bytes=size)
        return _again(plan.steps)

    def _naming(self, resource: Resource, project: Any) -> Reflector[Names]:
        return Reflector(self._kube, resource, project=project, on_change=self._changed)

    def _held(self, key: Key, seen: Seen) -> Held:
        checkpoint, kept = seen
        released = kept.since if kept is not None and not kept.holds else None
        return Held(
            checkpoint=checkpoint,
            references=tuple(sorted(self._references(key))),
            released=released,
            superseded=self._superseded(checkpoint),
        )

    def _references(self, key: Key) -> Iterator[str]:
        for kind, watch in self._named.items():
            for (space, who), named in watch.items().items():
                if any(key_of(one, space) == key for one in named):
                    yield f"{kind} {who}"

    def _superseded(self, one: Checkpoint) -> bool:
        """Whether a policy had a gold image made after it that is Ready, and nobody runs that it
        is of."""
        families = [
            policy
            for policy in self._policies.items().values()
            if policy.namespace == one.namespace
            and policy.gold
            and goldimages.is_of(policy.gold, one.name)
        ]
        return one.gold and any(self._has_newer(policy, one) for policy in families)

    def _has_newer(self, policy: CheckpointPolicy, one: Checkpoint) -> bool:
        for (space, _), pod in self._running.items().items():
            name = goldimages.name_of(policy.gold, pod.version)
            if space == one.namespace and name == one.name and policy.selects(pod.labels):
                return False
        return any(
            other.gold and other.ready and other.sealed_at > one.sealed_at
            for (space, name), (other, _) in self._checkpoints.items().items()
            if space == one.namespace and goldimages.is_of(policy.gold, name)
        )

    def _keeping(self, namespace: str) -> list[Keeping]:
        policies = self._policies.items().values()
        return [_keeping(policy) for policy in policies if policy.namespace == namespace]

    def _carry_out(self, step: Step, before: Kept | None) -> None:
        if step.doing is Doing.COLLECT:
            self._collect(step)
            return
        now = Kept(
            holds=step.doing is Doing.KEEP,
            reason=step.reason,
            message=step.detail,
            since=self._clock.now(),
        )
        if before is None or replace(before, since=now.since) != now:
            self._say(step.checkpoint, now)

    def _say(self, checkpoint: Checkpoint, kept: Kept) -> None:
        """Write the condition of this very checkpoint, as it is now."""
        obj = self._find(checkpoint)
        if obj is None:
            return
        patch = {"metadata": _version(obj), "status": {"conditions": codec.with_kept(obj, kept)}}
        self._kube.patch(
            GPUCHECKPOINTS, checkpoint.name, patch, checkpoint.namespace, subresource="status"
        )

    def _collect(self, step: Step) -> None:
        obj = self._find(step.checkpoint)
        if obj is None or codec.read_checkpoint(obj).claim is not None:
            return  # its change has touched the namespace again
        name, namespace = step.checkpoint.name, step.checkpoint.namespace
        version = obj["metadata"]["resourceVersion"]
        self._kube.delete(GPUCHECKPOINTS, name, namespace, resource_version=version)
        self._log.info(
            "checkpoint collected", checkpoint=f"{namespace}/{name}", why=step.reason,
            bytes=step.checkpoint.size,
        )  # fmt: skip

    def _find(self, checkpoint: Checkpoint) -> Obj | None:
        """As the API server has it, where it still is that one."""
        try:
            obj = self._kube.get(GPUCHECKPOINTS, checkpoint.name, checkpoint.namespace)
        except NotFound:
            return None
        return obj if codec.read_checkpoint(obj).signature == checkpoint.signature else None

    def _namespaces(self) -> set[str]:
        return {namespace for namespace, _ in self._checkpoints.items()}

    def _changed(self, change: Change[Any]) -> None:
        if change.old != change.new:
            self.duty.touch(change.key[0])


def _seen(obj: Obj) -> Seen:
    return codec.read_checkpoint(obj), codec.read_kept(obj)


def _keeping(policy: CheckpointPolicy) -> Keeping:
    return Keeping(
        namespace=policy.namespace,
        keep=policy.keep,
        selects=lambda checkpoint: policy.selects(checkpoint.labels),
    )


def _version(obj: Obj) -> dict[str, str]:
    metadata = obj["metadata"]
    return {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}


def _again(steps: tuple[Step, ...]) -> float:
    waits = [step.left for step in steps if step.doing is Doing.WAIT]
    unjudged = [AWAY for step in steps if step.reason == "NoVerdict"]
    return max(0.5, min([EVERY, *waits, *unjudged]))
