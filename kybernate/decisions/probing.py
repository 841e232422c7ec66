"""
What a probe comes to: alive without being asked, or what its own action came to. Pure.

Called by: the agent's `probing`. Rule: a workload without its GPU cannot answer, which is no fault
of it: it is alive. Rule: what was begun with the GPU and ended without it has not failed.
Rule: the container's loading counts from when it was let go, not from when the kubelet made it.
"""

from dataclasses import dataclass

from kybernate.model.ids import WorkloadKey
from kybernate.model.probing import Asked, Kind, Outcome
from kybernate.model.workload import State

# After a resume: its first answers wait for memory that comes back, and for all who waited as well.
RESUME_GRACE_S = 10.0

WITH_GPU = frozenset({State.ACTIVE, State.ABSENT})  # absent: not ours, so nothing holds it
# Its sockets are there, and who connects is answered when it has its GPU again.
_STAYS_READY = frozenset({State.PARKING, State.PARKED, State.SEALING, State.ACTIVATING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A workload at one moment."""

    key: WorkloadKey
    state: State
    begun: bool = True  # its first process was let go
    active_since: float | None = None
    resumed: bool = False  # this turn is not its first
    ready_only_active: bool = False  # `kyb.ai/readiness: active`


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is remembered of a container's loading."""

    ran: float = 0.0  # seconds it had its GPU so far
    passed: bool = False  # an action of its own was good once


def at_once(kind: Kind, standing: Standing) -> Outcome | None:
    """The answer for who cannot be asked; None for who can."""
    if standing.state in WITH_GPU:
        return None
    what = f"{standing.key} is {standing.state}: it does not have its GPU now"
    if kind is Kind.READINESS and not _stays_ready(standing):
        return Outcome(passed=False, say=f"not ready: {what}")
    return Outcome(passed=True, say=f"alive: {what}")


def judged(
    asked: Asked, outcome: Outcome, before: Standing, after: Standing, course: Course, now: float
) -> Outcome:
    """What its action's outcome comes to, with its standing before and after."""
    if outcome.passed:
        return outcome
    if after.state not in WITH_GPU:
        return at_once(asked.kind, after) or outcome
    if before.active_since != after.active_since:
        return _excused("it was parked meanwhile", outcome)
    if after.resumed and now - (after.active_since or now) < RESUME_GRACE_S:
        return _excused("it was resumed a moment ago", outcome)
    left = _may_load(asked, course) - course.ran
    if asked.kind is not Kind.READINESS and left > 0:
        return _excused(f"it has {left:.0f} s left to load", outcome)
    return outcome


def _stays_ready(standing: Standing) -> bool:
    if not standing.begun or standing.ready_only_active:
        return False
    return standing.state in _STAYS_READY


def _may_load(asked: Asked, course: Course) -> float:
    """Seconds with its GPU in which a failure is none.

    The kubelet takes a container that waited for started (its startup probe was answered), so the
    startup phase goes on in the liveness probe. Until then the kubelet itself keeps it.
    """
    loads = asked.startup if asked.kind is Kind.LIVENESS and not course.passed else 0
    return max(asked.delay, loads)


def _excused(why: str, outcome: Outcome) -> Outcome:
    return Outcome(passed=True, say=f"alive: {why} ({outcome.say})")
