"""
The Agent service: activate, park, who is here, what changes, which seats are preferred.

A request that waits keeps a thread of its server; deadlines are the client's, and a client that
goes away takes nothing back: what it asked for stays wanted.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

import grpc

from kybernate.clients.clock import Clock
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.decisions import seating
from kybernate.decisions.seating import Offer
from kybernate.model.gpu import Seat
from kybernate.model.ids import NodeName, PodUid, WorkloadKey
from kybernate.model.tier import Room, Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import State, Wishes
from kybernate.runtime.logs import get_logger
from nodeagent.api import wire
from nodeagent.api.tickets import KeyReused, Ticket, Tickets, Verb
from nodeagent.demand.told import Told, TooManyReporters
from nodeagent.lives.feed import Ended, Feed, Listener
from nodeagent.stories.bandwidth import Bandwidths
from nodeagent.turns.coordinator import Coordinator
from nodeagent.waking.sealings import Sealings, Wish

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object

# Of the threads a server has (`servers.THREADS`), streams leave some to calls that are answered at
# once: the kubelet waits for a preferred seat.
STREAMS = 96
# A checkpoint without a deadline, seconds: hundreds of GiB to a fast disk.
_SEALING_S = 600.0
Request = pb.ActivateRequest | pb.ParkRequest | pb.CheckpointRequest
# How often a silent stream looks whether its client is still there, and why it still waits.
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the service serves from."""

    node: NodeName
    coordinator: Coordinator
    feed: Feed
    tickets: Tickets
    rooms: Callable[[], Mapping[Tier, Room]]
    bandwidths: Bandwidths
    sealings: Sealings
    clock: Clock
    told: Told
    unseated: Callable[[str], tuple[Wishes, ...]]  # of pods bound here without a seat, by resource


class AgentService(rpc.AgentServicer):
    """As agent.proto says."""

    def __init__(self, serving: Serving) -> None:
        self._s = serving
        self._streams = threading.BoundedSemaphore(STREAMS)

    def Activate(  # noqa: N802
        self, request: pb.ActivateRequest, context: Context
    ) -> Iterator[pb.Progress]:
        """Wanted from now on."""
        yield from self._follow(request, context, Verb.ACTIVATE)

    def Park(self, request: pb.ParkRequest, context: Context) -> Iterator[pb.Progress]:  # noqa: N802
        """Parked until somebody asks for it."""
        yield from self._follow(request, context, Verb.PARK)

    def Checkpoint(  # noqa: N802
        self, request: pb.CheckpointRequest, context: Context
    ) -> Iterator[pb.Progress]:
        """Sealed, whatever it does now."""
        wish = Wish(
            key=WorkloadKey(request.workload.namespace or "default", request.workload.name),
            uid=PodUid(request.workload.pod_uid) or None,
            name=request.name,
            leave_parked=request.leave_parked,
            gold=request.gold,
            within=min(context.time_remaining() or _SEALING_S, _SEALING_S),
        )
        begin = partial(self._seal, wish)
        yield from self._follow(request, context, Verb.CHECKPOINT, begin)

    def State(self, request: pb.StateRequest, context: Context) -> pb.NodeStatus:  # noqa: N802, ARG002
        """Cards, workloads, tiers."""
        s = self._s
        books = s.coordinator.books
        whys = {key: self._why(key) for key in books.tenancies}
        status = wire.node_status(s.node, books, s.coordinator.picture, whys, s.clock.now())
        status.policy_revision = s.coordinator.revision
        status.tiers.extend(wire.tiers(s.rooms(), s.bandwidths.all()))
        return status

    def Watch(self, request: pb.WatchRequest, context: Context) -> Iterator[pb.Progress]:  # noqa: N802, ARG002
        """How things are, then every change."""
        with self._streaming(context), self._s.feed.listening() as listener:
            for key, tenancy in sorted(self._s.coordinator.books.tenancies.items()):
                yield wire.standing(tenancy, self._why(key))
            while context.is_active() and not listener.closed:
                update = listener.next(_LOOK_S)
                if update is not None:
                    yield wire.progress(update)

    def ReportDemand(  # noqa: N802
        self, request: pb.ReportDemandRequest, context: Context
    ) -> pb.ReportDemandReply:
        """Instead of that reporter's last report."""
        try:
            reporter, counts = wire.demand_report(request)
            self._s.told.report(reporter, counts, request.valid_seconds)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooManyReporters as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        here = self._s.coordinator.books.tenancies
        away = [one.workload for one in request.requests if wire.key_of(one.workload) not in here]
        return pb.ReportDemandReply(unknown=away)

    def PreferSeats(  # noqa: N802
        self, request: pb.PreferSeatsRequest, context: Context
    ) -> pb.PreferSeatsReply:
        """The best of the seats the kubelet has."""
        try:
            offer = Offer(
                available=tuple(Seat.parse(text) for text in request.available),
                must_include=tuple(Seat.parse(text) for text in request.must_include),
                size=request.size,
            )
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        wishes = self._s.unseated(request.resource)
        seats = seating.prefer(self._s.coordinator.books, offer, wishes)
        return pb.PreferSeatsReply(seats=[seat.id for seat in seats])

    def _follow(
        self,
        request: Request,
        context: Context,
        verb: Verb,
        begin: Callable[[Ticket], None] | None = None,
    ) -> Iterator[pb.Progress]:
        try:
            key = wire.key_of(request.workload)
            ticket = self._s.tickets.take(request.idempotency_key, verb, key)
        except (ValueError, KeyReused) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        with self._streaming(context), self._s.feed.listening() as listener:
            if begin is None:
                self._ask(ticket, request.workload.pod_uid)
            elif self._s.tickets.begin(ticket):
                Thread(target=begin, args=(ticket,), name="sealing", daemon=True).start()
            yield from self._until_ended(ticket, listener, context)
        if ticket.ended is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the agent stops; it stays wanted")
        else:
            yield self._last_word(ticket, ticket.ended)

    @contextmanager
    def _streaming(self, context: Context) -> Iterator[None]:
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS} callers wait already")
        try:
            yield
        finally:
            self._streams.release()

    def _seal(self, wish: Wish, ticket: Ticket) -> None:
        """To the end, also when who asked has gone away."""
        try:
            made = self._s.sealings.seal(wish)
        except Exception as fault:  # ours: who asked must not wait for ever
            get_logger(workload=str(wish.key)).exception("a sealing ended in an error")
            self._s.tickets.end(ticket, Ended(ok=False, message=f"fault in the agent: {fault}"))
            return
        if made.sealed is None:
            refusal = made.refusal or Refusal(reason=Reason.NOT_SEALABLE)
            self._s.tickets.end(ticket, wire.refused(refusal))
            return
        name = made.sealed.manifest.name
        ended = Ended(ok=True, message=f"checkpoint {name}", phases=made.phases, checkpoint=name)
        self._s.tickets.end(ticket, ended)

    def _ask(self, ticket: Ticket, uid: str) -> None:
        """Have it wanted, or parked; what is done already ends at once."""
        if ticket.ended is not None:
            return
        coordinator, tickets = self._s.coordinator, self._s.tickets
        there = coordinator.books.tenancies.get(ticket.workload)
        if there is not None and uid and there.uid != uid:
            detail = f"{ticket.workload} is another pod now"
            refusal: Refusal | None = Refusal(reason=Reason.UNKNOWN_WORKLOAD, detail=detail)
        else:
            ask = coordinator.want if ticket.verb is Verb.ACTIVATE else coordinator.park
            refusal = ask(ticket.workload)
        if refusal is not None:
            tickets.end(ticket, wire.refused(refusal))
            return
        there = coordinator.books.tenancies.get(ticket.workload)
        if there is not None and there.state.value == ticket.verb.value:
            tickets.end(ticket, Ended(ok=True, message=f"it is {there.state} already"))
            if ticket.verb is Verb.ACTIVATE:
                tickets.overtaken(ticket.workload)

    def _until_ended(
        self, ticket: Ticket, listener: Listener, context: Context
    ) -> Iterator[pb.Progress]:
        said = None
        while ticket.ended is None and context.is_active() and not listener.closed:
            tenancy = self._s.coordinator.books.tenancies.get(ticket.workload)
            why = self._why(ticket.workload)
            if tenancy is not None and said != (tenancy.state, why):
                said = (tenancy.state, why)
                yield wire.standing(tenancy, why)
            update = listener.next(_LOOK_S)
            if update is not None and update.ended is None and update.key == ticket.workload:
                yield wire.progress(update)

    def _last_word(self, ticket: Ticket, ended: Ended) -> pb.Progress:
        tenancy = self._s.coordinator.books.tenancies.get(ticket.workload)
        return pb.Progress(
            workload=pb.WorkloadRef(
                namespace=ticket.workload.namespace,
                name=ticket.workload.name,
                pod_uid=tenancy.uid if tenancy else "",
            ),
            state=(tenancy.state if tenancy else State.ABSENT).value,
            phase=pb.DONE,
            message=ended.message,
            outcome=wire.outcome(ended, ticket.seconds, ticket.phases()),
        )

    def _why(self, key: WorkloadKey) -> str:
        refusal = self._s.coordinator.why(key)
        return str(refusal) if refusal else ""
