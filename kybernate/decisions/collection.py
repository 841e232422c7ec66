"""
Which checkpoints are collected, which stay, and why: a plan, printed or carried out.

Called by: the controller, which carries it out, and `kyb gc --dry-run`, which prints it. Pure.
Rules, whatever policy says: no verdict keeps; what is gold (but for an image that a policy had made
anew since), claimed, not ready or referenced is
kept; the newest that can be woken from is kept of every workload. What nobody keeps goes once it
has been so for the grace time; over its quota a namespace loses those at once, the oldest first,
and never what is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from kybernate.model.checkpoint import Checkpoint
from kybernate.model.policy import CheckpointFacts, RetentionQuestion, RetentionVerdict
from kybernate.model.verdict import Refusal

Of = tuple[str, str]
"""Namespace and workload."""
Asks = Callable[[RetentionQuestion], RetentionVerdict | Refusal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What a CheckpointPolicy says: how many, and of which pods (by their labels)."""

    namespace: str
    keep: int
    selects: Callable[[Checkpoint], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A checkpoint, and who needs it, in words. `released` is when policy first did not keep it,
    seconds since the epoch; None while it does, or nobody has asked."""

    checkpoint: Checkpoint
    references: tuple[str, ...] = ()
    released: float | None = None
    superseded: bool = False  # a gold image that a policy had made: there is a newer one


class Doing(StrEnum):
    """What becomes of a checkpoint."""

    KEEP = "keep"
    WAIT = "wait"  # nobody keeps it; it goes when its grace time is over
    COLLECT = "collect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`reason` is a constant word, policy's or ours; `left` is in seconds, of a WAIT."""

    checkpoint: Checkpoint
    doing: Doing
    reason: str
    detail: str = ""
    left: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A step for each checkpoint, oldest first. `over` is by how many bytes a namespace is over its
    quota though nothing is left that may go."""

    steps: tuple[Step, ...]
    over: Mapping[str, int]


def plan(held: Sequence[Held], policies: Sequence[Keeping], asks: Asks, now: float) -> Plan:
    """`now` is the wall clock, as `released`."""
    steps: list[Step] = []
    quotas: dict[str, int] = {}
    for (namespace, workload), ours in _by_workload(held).items():
        verdict = asks(question(namespace, workload, ours, policies, now))
        steps += _judged(ours, verdict, now)
        if isinstance(verdict, RetentionVerdict) and verdict.quota_bytes is not None:
            quotas[namespace] = min(verdict.quota_bytes, quotas.get(namespace, verdict.quota_bytes))
    steps.sort(key=lambda step: age(step.checkpoint))
    over: dict[str, int] = {}
    for namespace, quota in quotas.items():
        steps, left_over = _within(steps, namespace, quota)
        if left_over:
            over[namespace] = left_over
    return Plan(steps=tuple(steps), over=over)


def question(
    namespace: str,
    workload: str,
    held: Sequence[Held],
    policies: Sequence[Keeping],
    now: float,
) -> RetentionQuestion:
    """Which of these are kept? Of several policies the one that keeps most counts."""
    checkpoints = [one.checkpoint for one in held]
    superseded = {one.checkpoint.name for one in held if one.superseded}
    ready = [one for one in checkpoints if one.ready and not one.gold]
    newest = max(ready, key=age, default=None)
    keeps = [
        policy.keep
        for policy in policies
        if newest is not None and policy.namespace == namespace and policy.selects(newest)
    ]
    return RetentionQuestion(
        namespace=namespace,
        workload=workload,
        keep=max(keeps, default=None),
        checkpoints=tuple(
            CheckpointFacts(
                name=one.name,
                age_seconds=max(0.0, now - one.sealed_at),
                size=one.size,
                gold=one.gold,
                superseded=one.name in superseded,
                ready=one.ready,
                claimed=one.claim is not None,
            )
            for one in sorted(checkpoints, key=age)
        ),
    )


def age(checkpoint: Checkpoint) -> tuple[float, str, str]:
    """The order they were sealed in."""
    return checkpoint.sealed_at, checkpoint.namespace, checkpoint.name


def _by_workload(held: Iterable[Held]) -> dict[Of, list[Held]]:
    found: dict[Of, list[Held]] = defaultdict(list)
    for one in held:
        found[one.checkpoint.namespace, one.checkpoint.workload].append(one)
    return found


def _judged(
    ours: Sequence[Held], verdict: RetentionVerdict | Refusal, now: float
) -> Iterator[Step]:
    last = max(
        (one.checkpoint for one in ours if one.checkpoint.ready and not one.checkpoint.gold),
        key=age,
        default=None,
    )
    for one in ours:
        kept = _kept(one, verdict, one.checkpoint is last)
        if kept is not None:
            reason, detail = kept
            yield Step(checkpoint=one.checkpoint, doing=Doing.KEEP, reason=reason, detail=detail)
        elif isinstance(verdict, RetentionVerdict):
            yield _released(one, verdict.grace_seconds, now)


def _kept(one: Held, verdict: RetentionVerdict | Refusal, is_last: bool) -> tuple[str, str] | None:
    """Why it is kept: what code keeps, then what policy keeps."""
    checkpoint = one.checkpoint
    if isinstance(verdict, Refusal):
        return "NoVerdict", str(verdict)
    ours = (
        ("Gold", checkpoint.gold and not one.superseded),
        ("NotReady", not checkpoint.ready),
        ("Claimed", checkpoint.claim is not None),
        ("Nameless", not checkpoint.workload),
        ("Referenced", bool(one.references)),
    )
    for reason, holds in ours:
        if holds:
            return reason, ", ".join(one.references)
    if checkpoint.name in verdict.keep:
        return verdict.keep[checkpoint.name], ""
    return ("LastOfItsWorkload", "") if is_last else None


def _released(one: Held, grace: float, now: float) -> Step:
    """A clock that was set back makes it wait for no longer than the whole grace time."""
    since = now if one.released is None else one.released
    left = min(grace, since + grace - now)
    doing = Doing.WAIT if left > 0 or one.released is None else Doing.COLLECT
    return Step(checkpoint=one.checkpoint, doing=doing, reason="Replaced", left=max(0.0, left))


def _within(steps: list[Step], namespace: str, quota: int) -> tuple[list[Step], int]:
    """Those that wait go at once, the oldest first, until the rest is within the quota."""
    stays = [
        step
        for step in steps
        if step.checkpoint.namespace == namespace and step.doing is not Doing.COLLECT
    ]
    over = sum(step.checkpoint.size for step in stays) - quota
    changed = []
    for step in steps:
        mine = step.checkpoint.namespace == namespace
        if mine and step.doing is Doing.WAIT and over > 0:
            over -= step.checkpoint.size
            step = replace(step, doing=Doing.COLLECT, reason="OverQuota", left=0.0)
        changed.append(step)
    return changed, max(0, over)
