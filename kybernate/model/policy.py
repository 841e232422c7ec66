"""Questions to policy and its verdicts, as values. `api/policy.py` turns them into JSON and back.

A verdict that is absent or unreadable never reaches this form: the caller gets a Refusal, and
undefined protects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kybernate.model.ids import NO_REVISION, GroupName, Revision, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.workload import Desired, State, WorkloadClass


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFacts:
    """A tenant of a GPU as policy sees it. Seconds are durations up to now; None means unknown."""

    key: WorkloadKey
    workload_class: WorkloadClass
    priority: int
    vram: int
    state: State
    desired: Desired = Desired.AUTO
    running_seconds: float = 0.0
    waiting_seconds: float = 0.0
    idle_seconds: float | None = None
    min_runtime_seconds: float | None = None  # the pod's own wish
    idle_after_seconds: float | None = None  # the pod's own wish
    gpus: tuple[int, ...] = ()  # those it holds or waits for; empty: all that are asked about
    in_flight: int | None = None  # requests it has not answered, where somebody counts them
    pinned: bool = False  # the pod's own wish: never to be parked
    reload_seconds: float | None = None  # out of VRAM and in again, by the measured rate
    asked_every_seconds: float | None = None  # how long it was not wanted, on average
    ran_since_others_wait: bool = False  # it had a turn after the longest waiter began to wait


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """The group asked about."""

    name: GroupName
    gpus: tuple[int, ...]
    vram: int
    seats: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """The node's wall clock in UTC, for day and night rules."""

    weekday: int  # 0 = Monday
    hour: int
    minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionQuestion:
    """May `incoming` take the GPU from `holder`?"""

    incoming: TenantFacts
    holder: TenantFacts
    group: GroupFacts
    calendar: Calendar
    slice_seconds: float  # what the last time-slice verdict gave the holder
    switches_last_minute: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionVerdict:
    """`order` sorts holders that may all go, lowest first. `reason` is policy's own word."""

    allow: bool
    reason: str
    order: float = 0.0
    retry_seconds: float | None = None  # when the answer may change by itself
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesliceQuestion:
    """Who is next on these GPUs? Groups that share a GPU are asked about together."""

    group: GroupFacts
    holders: tuple[TenantFacts, ...]
    waiting: tuple[TenantFacts, ...]
    calendar: Calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderTerms:
    """How long a holder may stay undisturbed."""

    slice_seconds: float
    min_runtime_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesliceVerdict:
    """`next` is None while the holders stay. `terms` has an entry for each holder and waiter."""

    next: WorkloadKey | None
    reason: str
    terms: Mapping[WorkloadKey, HolderTerms]
    retry_seconds: float | None = None
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class TieringQuestion:
    """In which tier should a workload's contents be? Of a holder that nobody asks for: may it leave
    its GPU? Of a parked one: in RAM, on NVMe or in object storage? Bytes are the card's."""

    workload: TenantFacts
    waiting: int  # others that wait for any of its GPUs
    ram_free: int  # of a holder's question: also what demoting others would leave
    calendar: Calendar
    parked: "ParkedFacts | None" = None  # None: it is a holder


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedFacts:
    """Where a parked workload's contents are, and what there is to know of leaving them there."""

    tier: Tier
    seconds: float  # since it was parked
    place: int | None  # how many of those that wait for its GPUs go before it; None: it waits not
    fetch_seconds: float  # to RAM from where it is, or would be next, by the measured rate
    ram_capacity: int
    ram_short: int  # what a plan lacks that would park somebody
    ram_to_come: int  # what the holders of its GPUs need when they are parked for it
    nvme_free: int
    nvme_capacity: int
    nvme_short: int  # what NVMe lacks for the next one that has to leave RAM
    object_free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TieringVerdict:
    """Where its contents should be. `after_seconds`: when the answer may change by itself."""

    tier: Tier
    reason: str
    after_seconds: float | None = None
    value: float = 0.0  # of a parked one: what it is worth to have it in RAM, against others
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint as policy sees it. `size` is in bytes, `age_seconds` since it was sealed."""

    name: str
    age_seconds: float
    size: int
    gold: bool = False
    superseded: bool = False  # a gold image: there is a newer one, and no pod of its version
    ready: bool = True
    claimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionQuestion:
    """Which checkpoints of a workload are kept? `keep` is what the CheckpointPolicies that select
    it say; None where none does."""

    namespace: str
    workload: str
    keep: int | None
    checkpoints: tuple[CheckpointFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionVerdict:
    """`keep` has a reason for each name that is kept. `grace_seconds`: how long one stays that is
    not kept any more. `quota_bytes` is the whole namespace's; None: no limit."""

    keep: Mapping[str, str]
    grace_seconds: float
    quota_bytes: int | None = None
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingQuestion:
    """May pods of namespace `by` wake from this gold image of another namespace?"""

    by: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingVerdict:
    """`reason` is policy's own word."""

    allow: bool
    reason: str
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """Nodes that policy cannot tell apart. `id` is stable for the same content."""

    id: str
    product: str
    labels: Mapping[str, str]
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementQuestion:
    """Which classes of nodes may this workload run on, and at what penalty?"""

    key: WorkloadKey
    workload_class: WorkloadClass
    priority: int
    vram: int | None
    resource: str
    classes: tuple[NodeClass, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementVerdict:
    """By class id. A class that is absent from both is allowed and free."""

    deny: Mapping[str, str] = field(default_factory=dict)
    penalty_seconds: Mapping[str, float] = field(default_factory=dict)
    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionQuestion:
    """May this pod have its seat, and what is it given that it does not say itself?

    `pod` is as the API server sent it; what it says in units is beside it, parsed. `seats_used`
    counts the namespace's seats by resource, this pod not among them; None where nobody counted.
    """

    pod: Mapping[str, Any]
    namespace: str
    namespace_labels: Mapping[str, str]
    resource: str
    vram: int | None
    min_runtime_seconds: float | None = None
    seats_used: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionVerdict:
    """`deny` holds (reason, message) pairs; `defaults` maps annotation names to values."""

    deny: tuple[tuple[str, str], ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    revision: Revision = NO_REVISION
