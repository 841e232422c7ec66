"""Answers: yes, or no with a reason. Reasons are constants; numbers go into the detail.

The extender's reasons end up in the scheduler's histogram and in a condition whose every change
re-queues the pod, so a reason text must never hold a number, a name or a time.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why something is refused. The value is the constant text people read."""

    NOT_MANAGED = "node has no Kybernate seats"
    NO_SUCH_SEAT = "node has no seat of this size"
    VRAM_TOO_SMALL = "workload needs more VRAM than a group of this size has"
    GROUP_ABSENT = "node has not the required group"
    GROUP_FULL = "required group has no free seat"
    GROUP_UNHEALTHY = "no healthy group of this size"
    AGENT_AWAY = "node agent does not report"
    NO_HOST_MEMORY = "no room in host memory to park the holder"
    POLICY_DENIED = "policy denies this node"
    MALFORMED = "pod annotations cannot be read"
    # between tenants of a GPU
    MIN_RUNTIME = "holder is within its minimum runtime"
    PROTECTED = "policy protects the holder"
    POLICY_UNAVAILABLE = "no verdict from policy, so nothing is preempted"
    STICKY = "holder keeps the GPU"
    NOT_PARKABLE = "holder cannot be parked"
    PINNED = "somebody asked that the holder stays active"
    VRAM_NOT_FREE = "VRAM is not free where the books say it is"
    INVARIANT = "verdict would break an invariant"
    BUSY = "a switch is under way on this GPU"
    UNKNOWN_WORKLOAD = "no such workload on this node"
    QUARANTINED = "workload is quarantined"
    WANTED_PARKED = "somebody asked that the workload stays parked"
    # between the tiers of a node
    NOT_DEMOTABLE = "contents cannot leave host memory"
    NO_NVME_ROOM = "no room on NVMe for the contents"
    CONTENTS_AWAY = "the object store does not give the contents now"
    NO_OBJECT_ROOM = "no room in object storage for the contents"
    # making checkpoints
    NOT_STARTED = "workload has not started yet, so there is nothing to seal"
    NOT_SEALABLE = "no checkpoint can be made of the workload"
    NO_CHECKPOINT_ROOM = "no room for a checkpoint"
    NAME_TAKEN = "there is a checkpoint of this name"
    NO_STORE_ROOM = "no room in object storage"
    STORE_QUOTA = "the namespace's quota of object storage is used up"
    # about checkpoints
    CHECKPOINT_ABSENT = "there is no such checkpoint"
    CHECKPOINT_NOT_READY = "checkpoint is not ready"
    CHECKPOINT_CLAIMED = "another pod wakes from this checkpoint"
    CHECKPOINT_NOT_SHARED = "checkpoint is another namespace's, and not shared with this one"
    CHECKPOINT_UNUSABLE = "checkpoint cannot be used here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No, why, and the numbers. `detail` is for events and people."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class EventReason(StrEnum):
    """Reasons of the events we write (events.k8s.io/v1)."""

    PLACED = "Placed"
    PLACEMENT_REFUSED = "PlacementRefused"
    SEAT_ASSIGNED = "SeatAssigned"
    WAITING_FOR_GPU = "WaitingForGpu"
    PREEMPTION_PLANNED = "PreemptionPlanned"
    PREEMPTION_REFUSED = "PreemptionRefused"
    PARKED = "Parked"
    STARTED = "Started"  # it has its GPU for the first time
    RESUMED = "Resumed"
    SLICE_ENDED = "SliceEnded"
    IDLE = "Idle"  # it had no work for long enough, and is parked though nobody takes its place
    CHECKPOINTED = "Checkpointed"
    CHECKPOINT_FAILED = "CheckpointFailed"  # the workload is as before
    CHECKPOINT_SKIPPED = "CheckpointSkipped"  # it went without one; the last one is kept
    WOKEN = "Woken"
    WAKE_FAILED = "WakeFailed"  # from this checkpoint: the next one, or a cold start
    TO_ZERO = "ScaledToZero"  # on the Deployment: nobody asks for it, a checkpoint has its state
    FROM_ZERO = "ScaledFromZero"  # on the Deployment: somebody asks for it
    PROMOTED = "Promoted"
    DEMOTED = "Demoted"
    PROMOTE_FAILED = "PromoteFailed"  # contents are in the tier they were in, and so below
    DEMOTE_FAILED = "DemoteFailed"  # of a checkpoint too: it is tried again
    STORE_COLLECTED = "StoreCollected"  # on the GpuNode whose agent did it: what nothing names went
    STORE_LEFT_ALONE = "StoreLeftAlone"  # likewise: part of the object store could not be judged
    EVACUATED = "Evacuated"
    PARK_FAILED = "ParkFailed"
    NOT_PARKABLE = "NotParkable"  # as it runs now; why is in its condition Parkable too
    PARKABLE_IN_PART = "ParkableInPart"  # some of it stays on the card, or another way is taken
    RESUME_FAILED = "ResumeFailed"
    QUARANTINED = "Quarantined"
    STRANDED = "Stranded"  # its group is not on the node any more
    POLICY_UNAVAILABLE = "PolicyUnavailable"
    POLICY_REFUSED = "PolicyRefused"
    POLICY_PUBLISHED = "PolicyPublished"
    GROUP_UNHEALTHY = "GroupUnhealthy"  # on the Node: a group is not given out for now
    GROUP_HEALTHY = "GroupHealthy"  # on the Node: it is again
    PROBLEM_FOUND = "ProblemFound"  # on the Node: others give out, use or reshape its GPUs
    PROBLEM_OVER = "ProblemOver"  # on the Node: they do no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision as it is kept in `GpuWorkload.status.decisions` and printed in its event.

    `time` is RFC 3339; `seconds` is the estimate or the measured time, None where neither applies.
    """

    time: str
    reason: EventReason
    message: str
    revision: str = ""
    seconds: float | None = None
