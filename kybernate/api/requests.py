"""
What CheckpointRequests and RestoreRequests have in common: how long they live, and their status.

Called by: their two codecs, the controller that carries them out, `kyb` that waits for them.
Rule: Succeeded and Failed are final; the API server keeps that too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kybernate.api import duration, timestamps
from kybernate.api.fields import Reader

WITHIN_S = 900.0  # as the schema has it
FORGET_AFTER_S = 3600.0
_LONGEST_MESSAGE = 4096  # characters, the limit of the schema


class RequestState(StrEnum):
    """How far a request is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


FINISHED = frozenset({RequestState.SUCCEEDED, RequestState.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When it was made (seconds since the epoch), and its two bounds in seconds."""

    made: float
    within: float = WITHIN_S
    forget_after: float = FORGET_AFTER_S

    @property
    def deadline(self) -> float:
        """When it has failed, if it has not finished."""
        return self.made + self.within


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """What became of a request. Times are seconds since the epoch, 0 where there is none yet.

    `reason` is a constant word, `message` the same for people. `node` and `pod_uid` are the
    workload's that is sealed or that wakes.
    """

    state: RequestState = RequestState.PENDING
    reason: str = ""
    message: str = ""
    node: str = ""
    pod_uid: str = ""
    started: float = 0.0
    finished: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether it is final."""
        return self.state in FINISHED


def read_times(spec: Reader, metadata: Mapping[str, Any]) -> Times:
    """The bounds of a spec."""
    made = metadata.get("creationTimestamp")
    return Times(
        made=timestamps.parse_rfc3339(made) if made else 0.0,
        within=_seconds(spec, "within", WITHIN_S),
        forget_after=_seconds(spec, "forgetAfter", FORGET_AFTER_S),
    )


def read_status(status: Reader) -> RequestStatus:
    """The common part of a status; one that is not there yet is Pending."""
    return RequestStatus(
        state=status.one_of("state", RequestState, RequestState.PENDING),
        reason=status.text("reason", ""),
        message=status.text("message", ""),
        node=status.text("node", ""),
        pod_uid=status.text("podUID", ""),
        started=status.time("startedAt"),
        finished=status.time("finishedAt"),
    )


def write_status(status: RequestStatus) -> dict[str, Any]:
    """The same for a merge patch: absent values become null."""
    return {
        "state": status.state.value,
        "reason": status.reason,
        "message": status.message[:_LONGEST_MESSAGE],
        "node": status.node or None,
        "podUID": status.pod_uid or None,
        "startedAt": timestamps.rfc3339(status.started) if status.started else None,
        "finishedAt": timestamps.rfc3339(status.finished) if status.finished else None,
    }


def ended(status: RequestStatus, state: RequestState, reason: str, message: str, now: float) -> Any:
    """The final status after this one, of the same type."""
    return replace(status, state=state, reason=reason, message=message, finished=now)


def _seconds(spec: Reader, name: str, default: float) -> float:
    return spec.parsed(name, duration.parse_seconds, default) if name in spec.value else default
