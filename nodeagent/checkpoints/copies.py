"""
The Copies service: what is on this node, and having copies come and go.

Called by: gRPC, for the controller, `kyb registry rebuild` and other agents. Rule: a copy goes only
after another node's agent has compared every byte of its own, and after the cluster was told by
compare-and-swap that ours is none any more; so of two that go at once one stays. What the object
store holds counts as another's, once every byte of it was compared. Rule: what was begun is
finished, also when who asked has gone away; only what is demoted ends then, and goes on later.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import grpc

from kybernate.artifacts.faults import Unusable
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.copies import Collected
from kybernate.clients.errors import ApiError, Refused, Retry, Unavailable
from kybernate.clients.pb import copies_pb2 as pb
from kybernate.clients.pb import copies_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Inventory
from kybernate.model.checkpoint import Flaw
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from nodeagent.checkpoints.faults import Cancelled, PeerAway
from nodeagent.checkpoints.fetching import Fetched, Tell, Wanted
from nodeagent.checkpoints.objects import NoStore, Objects
from nodeagent.checkpoints.peers import Peers
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
    objects: Objects


@dataclass(slots=True)
class _Coming:
    """A copy on its way, in a thread of its own: how far it is, and how it ended."""

    progress: Fetched | None = None
    outcome: pb.BringProgress = field(default_factory=pb.BringProgress)
    trouble: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class Copies(rpc.CopiesServicer):
    """As copies.proto says."""

    def __init__(self, means: Means) -> None:
        self._m = means
        self._seats = threading.BoundedSemaphore(AT_ONCE)
        self._demoting = threading.BoundedSemaphore(1)
        self._collecting = threading.BoundedSemaphore(1)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Call off what goes on from where it was."""
        self._stopping.set()

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
        yield from self._followed(lambda told: self._come(request, told), self._seats, context)

    def Demote(  # noqa: N802
        self, request: pb.CopyRef, context: Context
    ) -> Iterator[pb.BringProgress]:
        """Sealed into the store, then told. It ends with the call; another one goes on."""
        if not self._demoting.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "another copy is being demoted now")
        ended = threading.Event()
        context.add_callback(ended.set)
        yield from self._followed(
            lambda told: self._demoted(request, told, ended), self._demoting, context
        )

    def _followed(
        self,
        work: Callable[[Tell], pb.BringProgress],
        seat: threading.Semaphore,
        context: Context,
    ) -> Iterator[pb.BringProgress]:
        """Done in a thread of its own, which frees the seat, and told of meanwhile."""
        coming = _Coming()

        def told(progress: Fetched) -> None:
            coming.progress = progress

        def run() -> None:
            try:
                coming.outcome = work(told)
            except Exception as trouble:  # told to who asked
                coming.trouble = trouble
            finally:
                seat.release()
                coming.ended.set()

        threading.Thread(target=run, name="coming", daemon=True).start()
        while not coming.ended.wait(_LOOK_S):
            if coming.progress is not None:
                yield _progress(coming.progress)
        with _answering(context):
            if coming.trouble is not None:
                raise coming.trouble
            yield coming.outcome

    def Remove(self, request: pb.CopyRef, context: Context) -> pb.RemoveReply:  # noqa: N802
        """Told to the cluster, then deleted."""
        with _answering(context):
            sealed = self._here(request)
            if sealed is None:
                self._m.publisher.withdraw(request.namespace, request.name)
                return pb.RemoveReply()
            self._see_another(request)
            self._m.claims.leave(request.namespace, request.name, request.signature)
            freed = self._m.store.freed_by_deleting(request.namespace, request.name)
            self._m.store.delete(request.namespace, request.name)
            return pb.RemoveReply(bytes=freed)

    def Withdraw(self, request: pb.CopyRef, context: Context) -> pb.RemoveReply:  # noqa: N802
        """Told to the cluster, then deleted from the store."""
        with _answering(context):
            self._see_one(request)
            self._m.claims.unstored(request.namespace, request.name, request.signature)
            gone = self._m.objects.remove(_wanted(request))
            return pb.RemoveReply(bytes=gone.size if gone else 0)

    def Collect(  # noqa: N802
        self, request: pb.CollectRequest, context: Context
    ) -> Iterator[pb.CollectedDomain]:
        """The object store, domain by domain. It ends with the call."""
        if not self._collecting.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "it is being collected now")
        ended = threading.Event()
        context.add_callback(ended.set)
        try:
            with _answering(context):
                grace = max(0.0, request.grace_seconds)
                for done in self._m.objects.collect(grace, ended, dry_run=request.dry_run):
                    yield _collected(done.told)
        finally:
            self._collecting.release()

    def Verify(self, request: pb.CopyRef, context: Context) -> pb.VerifyReply:  # noqa: N802
        """Every byte of it."""
        with _answering(context):
            try:
                self._m.store.open(request.namespace, request.name, signature=request.signature)
            except Unusable as problem:
                return pb.VerifyReply(flaw=str(problem))
            return pb.VerifyReply()

    def _come(self, request: pb.BringRequest, told: Tell) -> pb.BringProgress:
        was_here = self._here(request.copy) is not None
        sealed, source = self._fetched(request, told)
        self._m.publisher.publish(sealed)
        return _done(sealed.size, source="" if was_here else source)

    def _fetched(self, request: pb.BringRequest, told: Tell) -> tuple[Sealed, str]:
        """From the first that can give it: a node, then the store."""
        wanted, said = _wanted(request.copy), list[str]()
        for node in request.sources:
            try:
                return self._m.peers.fetch(wanted, NodeName(node), told), node
            except (PeerAway, Unusable) as problem:
                said.append(f"{node}: {problem}")
        if request.from_store:
            try:
                return self._m.objects.fetch(wanted, told, self._stopping), Tier.OBJECT
            except (NoStore, PeerAway, Unusable) as problem:
                said.append(f"object storage: {problem}")
        raise Refusal(f"nobody could give it: {'; '.join(said) or 'no source is named'}")

    def _demoted(self, ref: pb.CopyRef, told: Tell, ended: threading.Event) -> pb.BringProgress:
        if self._here(ref) is None:
            raise Refusal("there is no copy here that could be demoted")
        done = self._m.objects.demote(_wanted(ref), told, ended)
        if not self._m.claims.stored(ref.namespace, ref.name, ref.signature):
            self._m.objects.remove(_wanted(ref))
            raise Refusal("its GpuCheckpoint is not there any more")
        return _done(done.size, moved=done.written)

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

    def _see_one(self, ref: pb.CopyRef) -> None:
        """Raises Refusal where neither the copy here nor another node's is found good."""
        try:
            self._m.store.open(ref.namespace, ref.name, signature=ref.signature)
        except Unusable as problem:
            self._see_another(ref, [f"here: {problem}"], store=False)

    def _see_another(
        self, ref: pb.CopyRef, before: Sequence[str] = (), *, store: bool = True
    ) -> None:
        """Raises Refusal where neither another node's agent finds its copy good, nor we the one in
        the object store."""
        said = list(before)
        for node in self._m.claims.others(ref.namespace, ref.name):
            try:
                flaw = self._m.verify(node, ref)
            except (AgentAway, AgentRefused) as away:
                flaw = str(away)
            if not flaw:
                return
            said.append(f"{node}: {flaw}")
        if store and self._m.claims.in_store(ref.namespace, ref.name):
            flaw = self._m.objects.flaw(_wanted(ref), self._stopping)
            if not flaw:
                return
            said.append(f"object storage: {flaw}")
        raise Refusal(f"no other copy is known to be good: {'; '.join(said) or 'there is none'}")


def _collected(one: Collected) -> pb.CollectedDomain:
    return pb.CollectedDomain(
        domain=one.domain,
        named=one.named,
        waiting=one.waiting,
        next_seconds=one.next_seconds,
        gone=one.gone,
        bytes=one.size,
        alone=one.alone,
    )


def _wanted(ref: pb.CopyRef) -> Wanted:
    return Wanted(namespace=ref.namespace, name=ref.name, signature=ref.signature)


def _done(size: int, source: str = "", moved: int = 0) -> pb.BringProgress:
    return pb.BringProgress(
        bytes_done=size, bytes_total=size, done=True, source=source, bytes_moved=moved
    )


def _progress(fetched: Fetched) -> pb.BringProgress:
    return pb.BringProgress(
        bytes_done=fetched.done, bytes_total=fetched.total, seconds_left=fetched.seconds_left
    )


@contextmanager
def _answering(context: Context) -> Iterator[None]:
    try:
        yield
    except Unavailable as away:
        _refuse(context, grpc.StatusCode.UNAVAILABLE, away)
    except Cancelled as ended:
        _refuse(context, grpc.StatusCode.UNAVAILABLE, ended)
    except (Refusal, Retry, Refused, ApiError) as no:
        _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, no)


def _refuse(context: Context, code: grpc.StatusCode, why: Exception) -> NoReturn:
    context.abort(code, str(why)[:1000])
    raise AssertionError  # abort has raised
