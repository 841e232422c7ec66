"""
An agent's calls, over a channel to it.

Called by: whoever has an `Agent`: see the package.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

import grpc

from kybernate.clients.agents import messages
from kybernate.clients.agents.end import Cancellable, End
from kybernate.clients.agents.errors import AgentAway, translated
from kybernate.clients.agents.values import NodeView, Outcome, Progress, Sealing
from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.ids import WorkloadKey

_SHORT_S = 10.0  # calls that only look


class Agent:
    """Thread safe. Nothing is sent before the first call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._agent = rpc.AgentStub(channel)

    @classmethod
    def on_node(cls, socket: str | Path) -> "Agent":
        """Over the agent's unix socket."""
        path = Path(str(socket).removeprefix("unix://")).absolute()
        options = (("grpc.default_authority", "localhost"), *FOUND_AGAIN)
        return cls(grpc.insecure_channel(f"unix://{path}", options=options))

    @classmethod
    def in_cluster(
        cls, address: str, credentials: grpc.ChannelCredentials, server_name: str = ""
    ) -> "Agent":
        """At `host:port`, by mTLS. `server_name` is what its certificate says, where not that."""
        named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
        return cls(grpc.secure_channel(address, credentials, options=(*named, *FOUND_AGAIN)))

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
        gold: bool = False,
    ) -> Outcome:
        """Have it sealed, and wait for that. As `activate`."""
        asked = Sealing(name=name, leave_parked=leave_parked, gold=gold)
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
            gold=asked.gold,
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
            return messages.view(self._agent.State(pb.StateRequest(), timeout=_SHORT_S))

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


def _followed(call: "grpc.CallIterator[pb.Progress]") -> Iterator[Progress]:
    try:
        with translated():
            for message in call:
                yield messages.progress(message)
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
