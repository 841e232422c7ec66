"""
Node agents: on one's own node over the unix socket, from the cluster over mTLS.

Called by: the light node and the device plugin (socket), the controller, kyb and the demo.
Errors: `AgentAway` (Retry: nobody there, or the time was over) and `AgentRefused` (the request
makes no sense). That a workload cannot be activated is no error but an `Outcome` that is not ok.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

import grpc

from kybernate.clients.errors import Refused, Retry
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.demand import Demand
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State

_SHORT_S = 10.0  # calls that only look


class AgentAway(Retry):
    """Nobody answers, or not in time. What was asked for may still happen."""


class AgentRefused(Refused):
    """The agent cannot make sense of the request, or does not know us."""


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
    left parked, a workload that was active is active again afterwards."""

    name: str = ""
    leave_parked: bool = False
    idempotency_key: str = ""


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


class Cancellable(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """End it."""


class End:
    """Lets any thread stop following a call: whoever follows it gets AgentAway."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: Cancellable | None = None
        self._ended = False

    def __call__(self) -> None:
        """Stop, also where it has not begun."""
        with self._lock:
            self._ended = True
            if self._call is not None:
                self._call.cancel()

    def of(self, call: Cancellable) -> None:
        """The call it is about."""
        with self._lock:
            self._call = call
            if self._ended:
                call.cancel()


class Agent:
    """Thread safe. Nothing is sent before the first call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._agent = rpc.AgentStub(channel)

    @classmethod
    def on_node(cls, socket: str | Path) -> "Agent":
        """Over the agent's unix socket."""
        path = Path(str(socket).removeprefix("unix://")).absolute()
        options = (("grpc.default_authority", "localhost"), *_PATIENCE)
        return cls(grpc.insecure_channel(f"unix://{path}", options=options))

    @classmethod
    def in_cluster(
        cls, address: str, credentials: grpc.ChannelCredentials, server_name: str = ""
    ) -> "Agent":
        """At `host:port`, by mTLS. `server_name` is what its certificate says, where not that."""
        named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
        return cls(grpc.secure_channel(address, credentials, options=(*named, *_PATIENCE)))

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every call and the connection."""
        self._channel.close()

    def activate(
        self,
        key: WorkloadKey,
        *,
        told: Callable[[str], None] = lambda _: None,
        within: float = 300.0,
        uid: str = "",
        idempotency_key: str = "",
    ) -> Outcome:
        """Have it in VRAM, and wait for that. `told` hears why it waits and what is planned.

        Raises AgentAway after `within` seconds; it stays wanted.
        """
        return _outcome_of(self.activating(key, within, uid, idempotency_key), told)

    def activating(
        self,
        key: WorkloadKey,
        within: float = 300.0,
        uid: str = "",
        idempotency_key: str = "",
        end: "End | None" = None,
    ) -> Iterator[Progress]:
        """The same, with every step on the way. The last progress has the outcome."""
        request = pb.ActivateRequest(
            workload=_ref(key, uid), idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        call = self._agent.Activate(request, timeout=within)
        if end is not None:
            end.of(cast(Cancellable, call))
        yield from _followed(call)

    def park(
        self,
        key: WorkloadKey,
        *,
        told: Callable[[str], None] = lambda _: None,
        within: float = 300.0,
        uid: str = "",
        idempotency_key: str = "",
    ) -> Outcome:
        """Have it out of VRAM until somebody asks for it. As `activate`."""
        return _outcome_of(self.parking(key, within, uid, idempotency_key), told)

    def parking(
        self, key: WorkloadKey, within: float = 300.0, uid: str = "", idempotency_key: str = ""
    ) -> Iterator[Progress]:
        """The same, with every step on the way."""
        request = pb.ParkRequest(
            workload=_ref(key, uid), idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        yield from _followed(self._agent.Park(request, timeout=within))

    def checkpoint(
        self,
        key: WorkloadKey,
        *,
        told: Callable[[str], None] = lambda _: None,
        within: float = 600.0,
        name: str = "",
        leave_parked: bool = False,
    ) -> Outcome:
        """Have it sealed, and wait for that. As `activate`."""
        asked = Sealing(name=name, leave_parked=leave_parked)
        return _outcome_of(self.sealing(key, asked, within), told)

    def sealing(
        self, key: WorkloadKey, asked: "Sealing", within: float = 600.0, uid: str = ""
    ) -> Iterator[Progress]:
        """The same, with every step on the way."""
        request = pb.CheckpointRequest(
            workload=_ref(key, uid),
            idempotency_key=asked.idempotency_key or uuid.uuid4().hex,
            name=asked.name,
            leave_parked=asked.leave_parked,
        )
        yield from _followed(self._agent.Checkpoint(request, timeout=within))

    def report_demand(
        self, reporter: str, in_flight: Mapping[tuple[WorkloadKey, str], int], valid_for: float = 10
    ) -> tuple[WorkloadKey, ...]:
        """What `reporter` has in flight here, by workload and its pod's uid (empty: whichever).

        Holds for `valid_for` seconds or until the next report. The workloads that are not here.
        """
        request = pb.ReportDemandRequest(
            reporter=reporter,
            valid_seconds=valid_for,
            requests=[
                pb.InFlight(workload=_ref(key, uid), count=count)
                for (key, uid), count in in_flight.items()
            ],
        )
        with translated():
            unknown = self._agent.ReportDemand(request, timeout=_SHORT_S).unknown
        return tuple(WorkloadKey(one.namespace, one.name) for one in unknown)

    def state(self) -> NodeView:
        """Who is here now."""
        with translated():
            return _view(self._agent.State(pb.StateRequest(), timeout=_SHORT_S))

    def watch(self, timeout: float | None = None) -> Iterator[Progress]:
        """How every workload is, then every change."""
        yield from _followed(self._agent.Watch(pb.WatchRequest(), timeout=timeout))

    def prefer_seats(
        self, resource: str, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> tuple[str, ...]:
        """The best of these seats, by id."""
        request = pb.PreferSeatsRequest(
            resource=resource, available=available, must_include=must_include, size=size
        )
        with translated():
            return tuple(self._agent.PreferSeats(request, timeout=_SHORT_S).seats)


# An agent that was restarted is found within a second; gRPC's default grows to two minutes.
_PATIENCE = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@contextmanager
def translated() -> Iterator[None]:
    """gRPC's errors become ours."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        text = error.details() if isinstance(error, grpc.Call) else str(error)
        kind = AgentRefused if code in _REFUSED else AgentAway
        raise kind(f"{code.name}: {text}") from error


def _followed(call: "grpc.CallIterator[pb.Progress]") -> Iterator[Progress]:
    try:
        with translated():
            for message in call:
                yield _progress(message)
    finally:
        call.cancel()  # type: ignore[no-untyped-call]


def _outcome_of(progress: Iterator[Progress], told: Callable[[str], None]) -> Outcome:
    said = ""
    for one in progress:
        if one.outcome is not None:
            return one.outcome
        if one.message and one.message != said:
            said = one.message
            told(said)
    raise AgentAway("the agent ended its answer without an outcome")


def _ref(key: WorkloadKey, uid: str) -> pb.WorkloadRef:
    return pb.WorkloadRef(namespace=key.namespace, name=key.name, pod_uid=uid)


def _progress(message: pb.Progress) -> Progress:
    return Progress(
        key=WorkloadKey(message.workload.namespace, message.workload.name),
        uid=PodUid(message.workload.pod_uid),
        state=State(message.state),
        phase=pb.Phase.Name(message.phase).lower(),
        done=message.bytes_done,
        total=message.bytes_total,
        seconds_left=message.seconds_left,
        message=message.message,
        outcome=_outcome(message.outcome) if message.HasField("outcome") else None,
    )


def _outcome(message: pb.Outcome) -> Outcome:
    return Outcome(
        ok=message.ok,
        reason=message.reason,
        message=message.message,
        seconds=message.seconds,
        phases=tuple(
            PhaseTime(name=p.name, seconds=p.seconds, size=p.bytes) for p in message.phases
        ),
        checkpoint=message.checkpoint,
    )


def _view(message: pb.NodeStatus) -> NodeView:
    return NodeView(
        node=message.node,
        cards=tuple(
            CardState(
                index=gpu.index,
                uuid=gpu.uuid,
                product=gpu.product,
                memory=gpu.memory,
                used=gpu.used,
                booked=gpu.booked,
                health=gpu.health,
            )
            for gpu in message.gpus
        ),
        workloads=tuple(_workload(one) for one in message.workloads),
        tiers=tuple(
            TierState(
                tier=tier.tier,
                capacity=tier.capacity,
                used=tier.used,
                bytes_per_second=tier.bytes_per_second,
            )
            for tier in message.tiers
        ),
        policy_revision=message.policy_revision,
    )


def _workload(message: pb.WorkloadStatus) -> WorkloadState:
    return WorkloadState(
        key=WorkloadKey(message.workload.namespace, message.workload.name),
        uid=PodUid(message.workload.pod_uid),
        state=State(message.state),
        seat=message.seat,
        gpus=tuple(message.gpus),
        vram=message.vram,
        tier=message.tier,
        seconds_in_state=message.seconds_in_state,
        why=message.why,
        workload_class=message.workload_class,
        priority=message.priority,
        idle_seconds=None if message.idle_seconds < 0 else message.idle_seconds,
        demand=_demand(message.demand) if message.HasField("demand") else None,
    )


def _demand(message: pb.WorkloadDemand) -> Demand:
    return Demand(
        wanted=message.wanted,
        busy=message.busy,
        in_flight=message.in_flight if message.HasField("in_flight") else None,
        idle_for=message.idle_seconds if message.HasField("idle_seconds") else None,
        why=message.why,
    )
