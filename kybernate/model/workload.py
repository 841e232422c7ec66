"""A workload: what holds GPU state. One pod's GPU-using container, with identity and wishes."""

from dataclasses import dataclass
from enum import StrEnum

from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName, NodeName, PodUid, ResourceName, WorkloadKey


class WorkloadClass(StrEnum):
    """What policy distinguishes by."""

    INFERENCE = "inference"
    TRAINING = "training"
    BATCH = "batch"


class State(StrEnum):
    """Where a workload is in its life. The only transitions are in `decisions/lifecycle.py`."""

    ABSENT = "Absent"
    WAITING = "Waiting"
    ACTIVATING = "Activating"
    ACTIVE = "Active"
    PARKING = "Parking"
    PARKED = "Parked"
    SEALING = "Sealing"
    WAKING = "Waking"
    QUARANTINED = "Quarantined"


class Desired(StrEnum):
    """What a person asked for in `GpuWorkload.spec.desired`."""

    AUTO = "Auto"
    ACTIVE = "Active"
    PARKED = "Parked"


class ParkMechanism(StrEnum):
    """`kyb.ai/park`: how contents are moved out. AUTO lets the agent probe."""

    AUTO = "auto"
    VLLM_SLEEP = "vllm-sleep"
    DRIVER = "driver"
    NEVER = "never"


class OnDelete(StrEnum):
    """`kyb.ai/on-delete`."""

    CHECKPOINT = "checkpoint"
    DISCARD = "discard"


class ScaleToZero(StrEnum):
    """`kyb.ai/scale-to-zero`: whether an idle one's Deployment goes to zero, by a checkpoint."""

    CHECKPOINT = "checkpoint"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a pod tells its metrics, in Prometheus' text."""

    port: int
    path: str = "/metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a pod's annotations ask for. Seconds are floats; None means policy decides."""

    vram: int | None = None  # bytes over the whole group; None means the whole group
    workload_class: WorkloadClass = WorkloadClass.INFERENCE
    min_runtime: float | None = None
    idle_after: float | None = None
    prefer_group: GroupName | None = None
    require_group: GroupName | None = None
    restore_from: tuple[str, ...] = ()
    on_delete: OnDelete | None = None
    park: ParkMechanism = ParkMechanism.AUTO
    readiness_active: bool = False
    pinned: bool = False  # never parked for somebody else, nor for being idle
    keep_warm: bool = False  # its contents stay in RAM, and its pod stays
    scale_to_zero: ScaleToZero | None = None
    model: str = ""  # what clients of the activator call it; empty: as the workload
    metrics: Endpoint | None = None  # None: as policy's data says for its class


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A seat pod as its spec shows it, wherever it stands."""

    key: WorkloadKey
    uid: PodUid
    resource: ResourceName
    seat_container: str
    priority: int = 0
    wishes: Wishes = Wishes()
    node: NodeName | None = None
    nominated_node: NodeName | None = None
    seat: Seat | None = None
    policy_class: str = ""  # the PriorityClass name, for messages
