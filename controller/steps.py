"""
What the plans of both kinds of requests have in common: how a request ends and how long it is kept.

Called by: `checkpoint_plan`, `restore_plan`, and those who carry their steps out. Pure.
"""

from dataclasses import dataclass

from kybernate.api import duration
from kybernate.api.requests import RequestStatus, Times

TOO_LATE = "TooLate"


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is finished and kept; look again in so many seconds."""

    again: float


@dataclass(frozen=True, slots=True)
class Remove:
    """It is finished and was kept long enough."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Never, and why."""

    reason: str
    message: str


def by_its_times(
    status: RequestStatus, times: Times, undone: str, now: float
) -> Nothing | Remove | Fail | None:
    """What time alone says: it is over, or too late for what is `undone`. None while there is time.

    `now` is the wall clock, as the API server's creationTimestamp.
    """
    if status.is_finished:
        left = status.finished + times.forget_after - now
        return Nothing(left) if left > 0 else Remove()
    if now <= times.deadline:
        return None
    within = duration.format_seconds(times.within)
    last = f"; last: {status.message}" if status.message else ""
    return Fail(TOO_LATE, f"{undone} within {within} (spec.within){last}")
