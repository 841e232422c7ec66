"""
The Checkpoints service: lends sealed checkpoints to other agents, over mTLS.

Called by: gRPC. Rule: only whoever shows the agents' own client certificate is served; a request's
names are checked before they become paths. What is lent is not verified here: the borrower does.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import grpc

from kybernate.api import names as kyb
from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.callers import names_of
from nodeagent.checkpoints import streams
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object

AT_ONCE = 4  # borrowers; a fifth one would only make all of them slower


class Lending(rpc.CheckpointsServicer):
    """As agent.proto says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seats = threading.BoundedSemaphore(AT_ONCE)

    def Fetch(self, request: pb.FetchRequest, context: Context) -> Iterator[pb.FetchPiece]:  # noqa: N802
        """Artifact, then content."""
        if kyb.AGENT_CLIENT.encode() not in names_of(context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "only agents may fetch checkpoints")
        with self._seat(context):
            sealed = self._found(request, context)
            if request.offset == 0:
                artifact = pb.Artifact(manifest=sealed.content, signature=sealed.signature)
                yield pb.FetchPiece(artifact=artifact)
            try:
                for block in _contents(sealed, request.offset):
                    yield pb.FetchPiece(content=block)
            except (OSError, Unusable) as problem:  # cut short, or deleted while it is lent
                context.abort(grpc.StatusCode.DATA_LOSS, names.shown(str(problem)))

    def _found(self, request: pb.FetchRequest, context: Context) -> Sealed:
        try:
            sealed = self._store.peek(request.namespace, request.name)
            if request.signature and request.signature != sealed.signature:
                raise Unusable(Flaw.NOT_PUBLISHED, f"{request.namespace}/{request.name}")
        except Unusable as problem:
            _refuse(problem, context)
        if request.offset > sealed.size:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, f"it has {sealed.size} bytes")
        return sealed

    @contextmanager
    def _seat(self, context: Context) -> Iterator[None]:
        if not self._seats.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{AT_ONCE} others fetch now")
        try:
            yield
        finally:
            self._seats.release()


def _refuse(problem: Unusable, context: Context) -> NoReturn:
    """The reason by its name, so that the borrower can say the same."""
    absent = problem.reason is Flaw.ABSENT
    code = grpc.StatusCode.NOT_FOUND if absent else grpc.StatusCode.FAILED_PRECONDITION
    context.abort(code, f"{problem.reason.name}: {problem.detail}")
    raise AssertionError  # abort has raised


def _contents(sealed: Sealed, offset: int) -> Iterator[bytes]:
    """Raises Unusable where a file has not its size any more, OSError."""
    for file in sealed.manifest.files:
        if offset >= file.size:
            offset -= file.size
            continue
        left = file.size - offset
        for block in streams.blocks(sealed.folder / file.path, offset):
            yield block[:left]
            left -= min(left, len(block))
        if left:
            raise Unusable(Flaw.FILE_SIZE, file.path)
        offset = 0
