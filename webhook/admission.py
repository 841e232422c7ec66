"""The two answers: what a seat pod is completed with, and whether it may be. Called by `app`.

Mutating fails open: without policy a pod still gets what is static. Validating fails closed, for
seat pods only: without policy they are refused with the reason, and their controller tries again.
Nothing here changes anything, so a dry run needs no second path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kybernate.api import annotations, goldimages, identity
from kybernate.api.errors import Malformed, told
from kybernate.api.goldimages import Seated
from kybernate.clients.policy import Policy
from kybernate.model.checkpoint import key_of
from kybernate.model.policy import (
    AdmissionQuestion,
    AdmissionVerdict,
    SharingQuestion,
    SharingVerdict,
)
from kybernate.model.verdict import Refusal
from kybernate.model.workload import ScaleToZero, Wishes
from webhook import defaulting, seats, validation
from webhook.wire import ALLOWED, Answer, Denial, Review

CANDIDATES = 3  # checkpoints named to a new pod: the newest, and two to fall back on


class View(Protocol):
    """What is known of the cluster. Whatever is not known yet is empty or None."""

    def checkpoints(self, namespace: str, workload: str) -> tuple[str, ...]:
        """Names of Ready checkpoints of this identity, newest first; gold images not among them."""
        ...

    def gold(self, namespace: str, pod: Seated) -> tuple[str, ...]:
        """Names of Ready gold images that CheckpointPolicies had made of pods like this one."""
        ...

    def asked(self, namespace: str, kind: str, name: str) -> tuple[str, ...]:
        """Checkpoints that RestoreRequests want this owner's next pod to wake from."""
        ...

    def replicas(self, namespace: str, deployment: str) -> int | None:
        """What the Deployment asks for; None where it is not known."""
        ...

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Its labels."""
        ...

    def seats_used(self, namespace: str) -> Mapping[str, int] | None:
        """Seats of the namespace by resource; None while they are not counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What both answers are made of. `schedulers` are the accepted ones, ours among them."""

    policy: Policy
    view: View
    scheduler: str
    schedulers: frozenset[str]

    def mutate(self, review: Review) -> Answer:
        """The additions that complete a seat pod, and warnings for its author."""
        if not _is_ours(review):
            return ALLOWED
        terms, left_out = self._terms(review)
        return Answer(
            additions=defaulting.complete(review.pod, terms),
            warnings=(*defaulting.warnings(review.pod, terms), *left_out),
        )

    def validate(self, review: Review) -> Answer:
        """Allowed, or every reason against it."""
        if not _is_ours(review):
            return ALLOWED
        faults = validation.faults(review.pod, self.schedulers)
        if faults:
            return _denied(told(faults), 422, "Invalid")
        verdict = self.policy.admission(self._question(review))
        if isinstance(verdict, Refusal):
            why = (
                f"policy gives no verdict, so no seat is given: {verdict.detail or verdict.reason}"
            )
            return _denied(why, 503, "ServiceUnavailable")
        return _judged(self._with_sharing(review, verdict))

    def _with_sharing(self, review: Review, verdict: AdmissionVerdict) -> AdmissionVerdict:
        """Denied too for each gold image of another namespace that policy does not share. Its agent
        asks again when the pod wakes."""
        denied = list(verdict.deny)
        for named in _wishes(review.pod).restore_from:
            namespace, name = key_of(named, review.namespace)
            if namespace != review.namespace:
                question = SharingQuestion(by=review.namespace, namespace=namespace, name=name)
                denied += _unshared(question, self.policy.sharing(question))
        return replace(verdict, deny=tuple(denied))

    def _terms(self, review: Review) -> tuple[defaulting.Terms, tuple[str, ...]]:
        verdict = self.policy.admission(self._question(review))
        given = {} if isinstance(verdict, Refusal) else verdict.defaults
        defaults, left_out = defaulting.usable(given)
        terms = defaulting.Terms(
            defaults=defaults, candidates=self._candidates(review), scheduler=self.scheduler
        )
        return terms, left_out

    def _candidates(self, review: Review) -> tuple[str, ...]:
        """What somebody asked for, then the newest of this very workload, then gold images that a
        CheckpointPolicy had made of pods like it."""
        workload = identity.of_pod(review.pod, review.namespace, self._replicas(review))
        own = self.view.checkpoints(review.namespace, workload) if workload else ()
        seated = goldimages.seated(review.pod)
        gold = self.view.gold(review.namespace, seated) if seated else ()
        return tuple(dict.fromkeys((*self._asked(review, own), *own[:CANDIDATES], *gold)))

    def _replicas(self, review: Review) -> identity.Replicas:
        """As watched; but the pod of a Deployment that comes back from zero may come before the
        word that it does, and is the one of one."""
        if _wishes(review.pod).scale_to_zero is not ScaleToZero.CHECKPOINT:
            return self.view.replicas
        return lambda namespace, name: self.view.replicas(namespace, name) or 1

    def _asked(self, review: Review, own: tuple[str, ...]) -> tuple[str, ...]:
        """Pods of a StatefulSet are not alike: each wakes from its own state only."""
        owner = identity.owner_of(review.pod)
        if owner is None:
            return ()
        asked = self.view.asked(review.namespace, *owner)
        alike = owner[0] == "Deployment"
        return tuple(name for name in asked if alike or name in own)

    def _question(self, review: Review) -> AdmissionQuestion:
        wishes = _wishes(review.pod)
        return AdmissionQuestion(
            pod=review.pod,
            namespace=review.namespace,
            namespace_labels=self.view.namespace_labels(review.namespace),
            resource=seats.claims(review.pod)[0].resource,
            vram=wishes.vram,
            min_runtime_seconds=wishes.min_runtime,
            seats_used=self.view.seats_used(review.namespace),
        )


def _is_ours(review: Review) -> bool:
    """Only the creation of a pod that wants a seat; containers' resources never change later."""
    return review.operation == "CREATE" and bool(seats.claims(review.pod))


def _wishes(pod: Mapping[str, Any]) -> Wishes:
    """What the annotations ask for; nothing where they cannot be read, as `validation` will say."""
    try:
        return annotations.read_wishes((pod.get("metadata") or {}).get("annotations") or {})
    except Malformed:
        return Wishes()


def _unshared(
    question: SharingQuestion, verdict: SharingVerdict | Refusal
) -> list[tuple[str, str]]:
    image = f"gold image {question.namespace}/{question.name}"
    if isinstance(verdict, Refusal):
        return [("NoVerdict", f"{image} is not known to be shared: {verdict.detail}")]
    if verdict.allow:
        return []
    return [(verdict.reason, f"{image} is not shared with namespace {question.by}")]


def _judged(verdict: AdmissionVerdict) -> Answer:
    if not verdict.deny:
        return ALLOWED
    reasons = "; ".join(f"{message} ({reason})" for reason, message in verdict.deny)
    return _denied(f"policy {verdict.revision} denies it: {reasons}", 403, "Forbidden")


def _denied(message: str, code: int, reason: str) -> Answer:
    return Answer(denial=Denial(message=message, code=code, reason=reason))
