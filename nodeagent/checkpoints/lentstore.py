"""
The PeerStore service: lends the objects of a store on this node to other agents, over mTLS.

Called by: gRPC; the other side is `kybernate/stores/peer.py`. Rule: only whoever shows the agents'
own client certificate is served, and for so long as it said. Rule: what is lent is what a store of
checkpoints has; whatever else lies in its folder (keys) is not there. Rule: peers read; only where
the store is lent to be written do they put and delete. What is lent is not verified here: the
borrower does.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import grpc

from kybernate.api import names as kyb
from kybernate.artifacts import names
from kybernate.clients.pb import peerstore_pb2 as pb
from kybernate.clients.pb import peerstore_pb2_grpc as rpc
from kybernate.runtime.callers import names_of
from kybernate.stores import peer, port
from kybernate.stores.errors import Absent, BadKey, Denied, Faulty, NoRoom
from kybernate.stores.port import Store

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object

AT_ONCE = 4  # objects that move, each whole in memory: more would only make all of them slower
CALLERS = 32  # at once, those who wait for their object to move too; each keeps a thread
LONGEST_S = 600.0  # what a caller may take: who vanished lets go of what it holds after that
_WAIT_S = 20.0  # for others' objects
_PIECE = 1024 * 1024  # bytes of a message
_LISTED = 1000  # objects of a message


class LentStore(rpc.PeerStoreServicer):
    """As peerstore.proto says."""

    def __init__(
        self,
        store: Store | None,
        *,
        writable: bool = False,
        below: tuple[str, ...] = (names.MANIFESTS, names.DOMAINS),
    ) -> None:
        """`store`: None where this node has none, which is told. `writable`: peers may put and
        delete, too. `below`: the prefixes that are lent; an empty one is all."""
        self._store, self._writable, self._below = store, writable, below
        self._moving = threading.BoundedSemaphore(AT_ONCE)
        self._callers = threading.BoundedSemaphore(CALLERS)

    def Get(self, request: pb.GetRequest, context: Context) -> Iterator[pb.GetPiece]:  # noqa: N802
        """The object as it is at one moment, in pieces."""
        with self._asked(context, request.key) as store, self._seat(context):
            asked = request.size if request.HasField("size") else peer.MOST + 1
            found = store.get(request.key, request.offset, min(asked, peer.MOST + 1))
            if len(found) > peer.MOST:
                raise Faulty(f"{request.key} is larger than {peer.MOST} bytes, the most to be lent")
            yield pb.GetPiece(size=len(found), content=bytes(found[:_PIECE]))
            for at in range(_PIECE, len(found), _PIECE):
                yield pb.GetPiece(content=bytes(found[at : at + _PIECE]))

    def Stat(self, request: pb.StatRequest, context: Context) -> pb.Listed:  # noqa: N802
        """Of one."""
        with self._asked(context, request.key) as store:
            return _told(store.stat(request.key))

    def List(self, request: pb.ListRequest, context: Context) -> Iterator[pb.ListPiece]:  # noqa: N802
        """Of all."""
        with self._asked(context) as store:
            listed = self._listed(store, port.checked_prefix(request.prefix))
            found = (one for one in listed if _is_key(one.key))
            while several := [_told(one) for one in islice(found, _LISTED)]:
                yield pb.ListPiece(objects=several)

    def Put(self, request_iterator: Iterator[pb.PutPiece], context: Context) -> pb.PutReply:  # noqa: N802
        """Whole, or nothing of it."""
        with self._asked(context, writes=True) as store, self._seat(context):
            key, content = _received(request_iterator)
            self._check(key)
            store.put(key, content)
        return pb.PutReply()

    def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteReply:  # noqa: N802
        """Durably."""
        with self._asked(context, request.key, writes=True) as store:
            return pb.DeleteReply(was_there=store.delete(request.key))

    @contextmanager
    def _asked(
        self, context: Context, key: str | None = None, *, writes: bool = False
    ) -> Iterator[Store]:
        """The store, for who may, and about this object; its errors in gRPC's words."""
        if not self._callers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{CALLERS} others are served now")
        try:
            store = self._allowed(context, writes)
            if key is not None:
                self._check(key)
            yield store
        except tuple(peer.CODES) as problem:
            code = next(code for kind, code in peer.CODES.items() if isinstance(problem, kind))
            context.abort(code, str(problem))
        finally:
            self._callers.release()

    def _check(self, key: str) -> None:
        """Raises BadKey, Absent for what is not lent."""
        port.checked(key)
        if not any(port.is_below(key, one) for one in self._below):
            raise Absent(key)

    def _listed(self, store: Store, prefix: str) -> Iterator[port.Listed]:
        """What is both below the prefix and lent."""
        for one in self._below:
            if not prefix or port.is_below(one, prefix):
                yield from store.list(one)
            elif prefix == one or port.is_below(prefix, one):
                yield from store.list(prefix)

    def _allowed(self, context: Context, writes: bool) -> Store:
        if kyb.AGENT_CLIENT.encode() not in names_of(context):
            raise Denied("only agents may use another agent's store")
        if self._store is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this agent has no store to lend")
            raise AssertionError  # abort has raised
        if writes and not self._writable:
            raise Denied("this agent lends its store to be read")
        left = context.time_remaining()
        if left is None or left > LONGEST_S:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"expected a deadline of at most {LONGEST_S} s"
            )
        return self._store

    @contextmanager
    def _seat(self, context: Context) -> Iterator[None]:
        if not self._moving.acquire(timeout=_WAIT_S):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{AT_ONCE} objects are moving now")
        try:
            yield
        finally:
            self._moving.release()


def _received(pieces: Iterator[pb.PutPiece]) -> tuple[str, bytearray]:
    """Key and content. Raises BadKey, NoRoom, Faulty."""
    first = next(pieces, None)
    if first is None:
        raise BadKey("'' (expected a key, a size and the content)")
    key, content = port.checked(first.key), bytearray()
    if first.size > peer.MOST:
        raise NoRoom(f"{key}: {first.size} bytes (expected at most {peer.MOST})")
    content += first.content
    for piece in pieces:
        content += piece.content
        if len(content) > first.size:
            break
    if len(content) != first.size:
        raise Faulty(f"{key}: {len(content)} bytes came (expected {first.size})")
    return key, content


def _is_key(key: str) -> bool:
    """Nobody can ask for another, and one of them would spoil the whole listing to its reader."""
    try:
        port.checked(key)
    except BadKey:
        return False
    return True


def _told(one: port.Listed) -> pb.Listed:
    return pb.Listed(key=one.key, size=one.size, put_at=one.put_at)
