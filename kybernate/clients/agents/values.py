"""What agents are asked and what they tell, as values. Called by: whoever asks an agent."""

from dataclasses import dataclass

from kybernate.model.demand import Demand
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """A part of a request's time. `size` is bytes of the card moved in it."""

    name: str
    seconds: float
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended. `reason` is a name of `model.verdict.Reason`, or empty."""

    ok: bool
    reason: str
    message: str
    seconds: float
    phases: tuple[PhaseTime, ...]
    checkpoint: str = ""  # the name of the one that was sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is going on. Bytes are the card's. The last one of a request has its outcome."""

    key: WorkloadKey
    uid: PodUid
    state: State
    phase: str
    done: int
    total: int
    seconds_left: float
    message: str
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """What checkpoint is asked for. Without a `name` the agent gives it one; unless it is to be
    left parked, a workload that was active is active again afterwards. `gold`: many replicas may
    start from it."""

    name: str = ""
    leave_parked: bool = False
    idempotency_key: str = ""
    gold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardState:
    """One GPU: bytes as the inventory shows them and as the books have them."""

    index: int
    uuid: str
    product: str
    memory: int
    used: int
    booked: int
    health: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadState:
    """One workload on the node. `idle_seconds` is None while unknown."""

    key: WorkloadKey
    uid: PodUid
    state: State
    seat: str
    gpus: tuple[int, ...]
    vram: int
    tier: str
    seconds_in_state: float
    why: str
    workload_class: str
    priority: int
    idle_seconds: float | None
    demand: Demand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierState:
    """Room of a tier in bytes, and how fast it is read."""

    tier: str
    capacity: int
    used: int
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """Everything an agent tells of its node."""

    node: str
    cards: tuple[CardState, ...]
    workloads: tuple[WorkloadState, ...]
    tiers: tuple[TierState, ...]
    policy_revision: str

    def workload(self, key: WorkloadKey) -> WorkloadState | None:
        """One of them."""
        return next((one for one in self.workloads if one.key == key), None)
