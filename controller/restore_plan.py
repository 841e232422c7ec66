"""What is to be done next for one RestoreRequest. Pure; `restoring` carries it out.

Rule: only the pod's agent claims a checkpoint, when its container is created; here it is asked for
and watched. Rule: no replica is chosen by chance. An owner's pod may wake only where the checkpoint
can be meant for one pod alone: a Deployment of one, or the ordinal that was sealed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controller.steps import Fail, Nothing, Remove, by_its_times
from kybernate.api.restorerequests import Owner, OwnerKind, RestoreRequest
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.workload import State

SETTLE = 1.0  # seconds; watches bring a request to every webhook within a fraction of it
SOON = 1.0  # seconds until the next look at what only others change

ASKED = "PodAsked"
STARTING = "PodStarting"
WOKE = "Woke"
NO_CHECKPOINT = "NoSuchCheckpoint"
NOT_READY = "CheckpointNotReady"
CLAIMED = "CheckpointClaimed"
NO_SEAT = "NoSeat"
POD_EXISTS = "PodExists"
POD_REFUSED = "PodRefused"
POD_GONE = "PodGone"
NO_OWNER = "NoSuchOwner"
NOT_FOR_OWNER = "NotForOwner"
OWNER_RUNS = "OwnerRuns"
COLD = "StartedCold"

# It has its state back: from here on it lives like any other workload.
ALIVE = frozenset({State.PARKED, State.ACTIVATING, State.ACTIVE, State.PARKING, State.SEALING})
_ORDINAL = re.compile(r"statefulset\.(?P<name>.+)\.(?P<ordinal>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waker:
    """A seat pod that is to wake from the checkpoint. `state` is None before an agent knew it."""

    name: str
    uid: PodUid
    state: State | None = None
    node: NodeName | None = None
    finished: bool = False
    woken: bool = False  # its agent said so


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What there is now. `taken` says whether a pod of the wanted name is there, of whomever."""

    checkpoint: Checkpoint | None
    wakers: Sequence[Waker] = ()
    taken: bool = False
    has_seat: bool = True  # the template asks for one
    replicas: int | None = None  # of the owner; None where there is none


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for others, and say for what."""

    reason: str
    message: str
    pod: Waker | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Say that it is Running, so that webhooks know of it before a pod is asked for."""

    message: str


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Make the pod of the template."""

    name: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Have the owner run so many pods."""

    owner: Owner
    replicas: int


@dataclass(frozen=True, slots=True)
class Succeed:
    """This pod woke."""

    pod: Waker
    message: str


Step = Nothing | Remove | Hold | Fail | Begin | CreatePod | Scale | Succeed


def plan(request: RestoreRequest, around: Around, now: float) -> Step:
    """The next step. `now` is the wall clock."""
    over = by_its_times(request.status, request.times, "nothing woke", now)
    if over is not None:
        return over
    if not request.status.started:
        return _refused(request, around) or Begin(
            f"asks for a pod to wake from {request.checkpoint}"
        )
    return _woken(request, around) or _asked(request, around, now)


def ordinal_of(checkpoint: Checkpoint, stateful_set: str) -> int | None:
    """Which pod of this StatefulSet was sealed; None where it was another workload."""
    found = _ORDINAL.fullmatch(checkpoint.workload)
    return int(found["ordinal"]) if found and found["name"] == stateful_set else None


def _refused(request: RestoreRequest, around: Around) -> Fail | None:
    """What is wrong before anything was done."""
    return _unusable(request, around.checkpoint) or (
        _wrong_owner(request.owner, around) if request.owner else _wrong_pod(request, around)
    )


def _unusable(request: RestoreRequest, checkpoint: Checkpoint | None) -> Fail | None:
    at = f"spec.checkpoint: {request.checkpoint!r}"
    if checkpoint is None:
        return Fail(NO_CHECKPOINT, f"{at} (expected a GpuCheckpoint of this namespace)")
    if not checkpoint.ready:
        return Fail(NOT_READY, f"{at} is not ready (expected one whose condition Ready is True)")
    if checkpoint.claim is not None:
        claim = checkpoint.claim
        by = f"pod {claim.pod or claim.pod_uid} on {claim.node}"
        return Fail(CLAIMED, f"{at} is claimed by {by} (expected one that no pod woke from)")
    return None


def _wrong_pod(request: RestoreRequest, around: Around) -> Fail | None:
    pod = request.pod
    assert pod is not None  # the schema asks for a pod or an owner
    if not around.has_seat:
        words = "(expected one container that asks for a seat, kyb.ai/gpu-1x-seat: 1)"
        return Fail(NO_SEAT, f"spec.pod.template.spec.containers: none asks for a seat {words}")
    if around.taken:
        words = "(expected a name that no pod of this namespace has)"
        return Fail(POD_EXISTS, f"spec.pod.name: {pod.name!r} {words}")
    return None


def _wrong_owner(owner: Owner, around: Around) -> Fail | None:
    assert around.checkpoint is not None  # `_unusable` is asked first
    if around.replicas is None:
        words = f"(expected a {owner.kind} of this namespace)"
        return Fail(NO_OWNER, f"spec.owner.name: {owner.name!r} {words}")
    if around.checkpoint.gold:
        words = "gold image: put kyb.ai/restore-from into its pod template, all its pods may wake"
        return Fail(NOT_FOR_OWNER, f"spec.checkpoint: {around.checkpoint.name!r} is a {words}")
    if owner.kind is OwnerKind.STATEFULSET:
        return _wrong_stateful_set(owner, around.checkpoint, around)
    if around.replicas > 0:
        words = f"asks for {around.replicas} pods (expected 0: what wakes is its one pod)"
        return Fail(OWNER_RUNS, f"spec.owner: {owner} {words}")
    return None


def _wrong_stateful_set(owner: Owner, checkpoint: Checkpoint, around: Around) -> Fail | None:
    ordinal = ordinal_of(checkpoint, owner.name)
    if ordinal is None:
        words = f"(expected statefulset.{owner.name}.N)"
        return Fail(NOT_FOR_OWNER, f"spec.owner: {owner}, {checkpoint.workload} was sealed {words}")
    if around.taken or (around.replicas or 0) > ordinal:
        words = f"asks for {around.replicas} pods, {owner.name}-{ordinal} among them"
        return Fail(OWNER_RUNS, f"spec.owner: {owner} {words} (expected that it does not run)")
    return None


def _woken(request: RestoreRequest, around: Around) -> Succeed | Fail | None:
    """Whether a pod woke from it, or cannot any more."""
    claim = around.checkpoint.claim if around.checkpoint else None
    for waker in around.wakers:
        mine = waker.woken or (claim is not None and claim.pod_uid == waker.uid)
        if waker.state in ALIVE:
            if mine:
                return Succeed(waker, f"pod {waker.name} woke on {waker.node}")
            words = f"pod {waker.name} runs on {waker.node}, but did not wake from it"
            return Fail(COLD, f"{words}; its events say why")
        if waker.finished:
            return Fail(POD_GONE, f"pod {waker.name} ended before it woke; its events say why")
    bound = request.status.pod_uid
    if bound and bound not in {waker.uid for waker in around.wakers}:
        return Fail(POD_GONE, f"pod {request.status.pod} is gone; it had not woken")
    return None


def _asked(request: RestoreRequest, around: Around, now: float) -> Step:
    """The pod that was asked for, or the asking."""
    if around.wakers:
        return _starting(around.wakers[0])
    if now < request.status.started + SETTLE:
        return Hold(ASKED, request.status.message)
    unusable = _unusable(request, around.checkpoint)
    if unusable is not None:
        return unusable
    if request.owner is None:
        assert request.pod is not None
        return CreatePod(request.pod.name)
    assert around.checkpoint is not None
    target = 1 + (ordinal_of(around.checkpoint, request.owner.name) or 0)
    if around.replicas is None:
        return Fail(NO_OWNER, f"{request.owner} is gone")
    if around.replicas < target:
        return Scale(request.owner, target)
    return Hold(ASKED, f"{request.owner} was scaled to {target}; its pod is not there yet")


def _starting(waker: Waker) -> Hold:
    where = f"on {waker.node}" if waker.node else "has no node yet"
    return Hold(STARTING, f"pod {waker.name} is {waker.state or 'Pending'}, {where}", waker)
