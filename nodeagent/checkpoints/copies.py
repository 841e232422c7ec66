"""
The Copies service: what is on this node, and having copies come and go.

Called by: gRPC, for the controller, `kyb registry rebuild` and other agents. Rule: a copy goes only
after another node's agent has compared every byte of its own, and after the cluster was told by
compare-and-swap that ours is none any more; so of two that go at once one stays. Rule: what was
begun is finished, also when who asked has gone away.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import grpc

from kybernate.artifacts.faults import Unusable
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.errors import ApiError, Unavailable
from kybernate.clients.pb import copies_pb2 as pb
from kybernate.clients.pb import copies_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Inventory
from kybernate.model.checkpoint import Flaw
from kybernate.model.ids import NodeName
from nodeagent.checkpoints.faults import NoRoom, NotSealed, PeerAway
from nodeagent.checkpoints.peers import Fetched, Peers, Wanted
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object

AT_ONCE = 2  # copies that come at once; more would only make all of them slower
_LOOK_S = 0.5  # between two words of progress

Verify = Callable[[NodeName, pb.CopyRef], str]
"""Have another node's agent compare its copy: what is wrong. Raises AgentAway, AgentRefused."""


class Refusal(Exception):
    """No, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What it takes."""

    inventories: Callable[[], Iterator[Inventory]]
    store: Store
    peers: Peers
    claims: Checkpoints
    publisher: Publisher
    verify: Verify


@dataclass(slots=True)
class _Coming:
    """A copy on its way, in a thread of its own."""

    progress: Fetched | None = None
    sealed: Sealed | None = None
    source: str = ""
    trouble: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class Copies(rpc.CopiesServicer):
    """As copies.proto says."""

    def __init__(self, means: Means) -> None:
        self._m = means
        self._seats = threading.BoundedSemaphore(AT_ONCE)

    def List(  # noqa: N802
        self,
        request: pb.ListCopiesRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> Iterator[pb.CopiesHere]:
        """As the disk has them now."""
        for inventory in self._m.inventories():
            yield from messages.write_inventory(inventory)

    def Bring(  # noqa: N802
        self, request: pb.BringRequest, context: Context
    ) -> Iterator[pb.BringProgress]:
        """Fetched, verified and published."""
        if not self._seats.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{AT_ONCE} others come now")
        coming = _Coming()
        threading.Thread(
            target=self._come, args=(request, coming), name="coming", daemon=True
        ).start()
        while not coming.ended.wait(_LOOK_S):
            if coming.progress is not None:
                yield _progress(coming.progress)
        with _answering(context):
            if coming.trouble is not None:
                raise coming.trouble
            size = coming.sealed.size if coming.sealed else 0
            yield pb.BringProgress(
                bytes_done=size, bytes_total=size, done=True, source=coming.source
            )

    def Remove(self, request: pb.CopyRef, context: Context) -> pb.RemoveReply:  # noqa: N802
        """Told to the cluster, then deleted."""
        with _answering(context):
            sealed = self._here(request)
            if sealed is None:
                self._m.publisher.withdraw(request.namespace, request.name)
                return pb.RemoveReply()
            self._see_another(request)
            self._m.claims.leave(request.namespace, request.name, request.signature)
            self._m.store.delete(request.namespace, request.name)
            return pb.RemoveReply(bytes=sealed.size)

    def Verify(self, request: pb.CopyRef, context: Context) -> pb.VerifyReply:  # noqa: N802
        """Every byte of it."""
        with _answering(context):
            try:
                self._m.store.open(request.namespace, request.name, signature=request.signature)
            except Unusable as problem:
                return pb.VerifyReply(flaw=str(problem))
            return pb.VerifyReply()

    def _come(self, request: pb.BringRequest, coming: _Coming) -> None:
        def told(progress: Fetched) -> None:
            coming.progress = progress

        try:
            coming.sealed = self._fetched(request, coming, told)
            self._m.publisher.publish(coming.sealed)
        except Exception as trouble:  # told to who asked
            coming.trouble = trouble
        finally:
            self._seats.release()
            coming.ended.set()

    def _fetched(
        self, request: pb.BringRequest, coming: _Coming, told: Callable[[Fetched], None]
    ) -> Sealed:
        """From the first node that can give it."""
        ref, said = request.copy, list[str]()
        here = self._here(ref) is not None
        wanted = Wanted(namespace=ref.namespace, name=ref.name, signature=ref.signature)
        for node in request.sources:
            try:
                sealed = self._m.peers.fetch(wanted, NodeName(node), told)
            except (PeerAway, Unusable) as problem:
                said.append(f"{node}: {problem}")
            else:
                coming.source = "" if here else node
                return sealed
        raise Refusal(f"no node could give it: {'; '.join(said) or 'none is named'}")

    def _here(self, ref: pb.CopyRef) -> Sealed | None:
        """Raises Unusable where what has the name is another, or cannot be read."""
        try:
            sealed = self._m.store.peek(ref.namespace, ref.name)
        except Unusable as problem:
            if problem.reason is Flaw.ABSENT:
                return None
            raise
        if sealed.signature != ref.signature:
            raise Unusable(Flaw.NOT_PUBLISHED, f"{ref.namespace}/{ref.name}")
        return sealed

    def _see_another(self, ref: pb.CopyRef) -> None:
        """Raises Refusal where no other node's agent finds its copy good."""
        said = []
        for node in self._m.claims.others(ref.namespace, ref.name):
            try:
                flaw = self._m.verify(node, ref)
            except (AgentAway, AgentRefused) as away:
                flaw = str(away)
            if not flaw:
                return
            said.append(f"{node}: {flaw}")
        raise Refusal(f"no other copy is known to be good: {'; '.join(said) or 'there is none'}")


def _progress(fetched: Fetched) -> pb.BringProgress:
    left = (fetched.total - fetched.done) / fetched.rate if fetched.rate else 0.0
    return pb.BringProgress(bytes_done=fetched.done, bytes_total=fetched.total, seconds_left=left)


@contextmanager
def _answering(context: Context) -> Iterator[None]:
    try:
        yield
    except Unavailable as away:
        _refuse(context, grpc.StatusCode.UNAVAILABLE, away)
    except (Refusal, Unusable, NoRoom, NotSealed, PeerAway, ApiError) as no:
        _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, no)


def _refuse(context: Context, code: grpc.StatusCode, why: Exception) -> NoReturn:
    context.abort(code, str(why)[:1000])
    raise AssertionError  # abort has raised
