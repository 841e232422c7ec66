"""
Objects that another node's agent keeps, by gRPC over mutual TLS.

Called by: agents, `kyb`; served by `nodeagent/checkpoints/lentstore.py`. Rule: one try; who wants
more puts `retrying` around it. Rule: a peer is not trusted: what comes is at most what was asked
for, and as much as was said; whether it is right, `verified` and whoever opens chunks tell.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import grpc

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.pb import peerstore_pb2 as pb
from kybernate.clients.pb import peerstore_pb2_grpc as rpc
from kybernate.clients.reaching import SERVER
from kybernate.stores import port
from kybernate.stores.errors import Absent, Away, BadKey, Denied, Faulty, NoRoom
from kybernate.stores.pages import taken
from kybernate.stores.port import Listed

MIB = 1024 * 1024
MOST = 80 * MIB  # bytes of an object: the largest of format v1 is a manifest of 64 MiB, and signed
PUT_PIECE = MIB // 2  # bytes: agents take no message above 1 MiB
CODES: dict[type[Exception], grpc.StatusCode] = {
    Absent: grpc.StatusCode.NOT_FOUND,
    BadKey: grpc.StatusCode.INVALID_ARGUMENT,
    NoRoom: grpc.StatusCode.OUT_OF_RANGE,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    Faulty: grpc.StatusCode.DATA_LOSS,
    Away: grpc.StatusCode.ABORTED,
}
"""How the port's errors cross the wire. UNAVAILABLE is the connection's own."""

_MEANT = {
    **{code: kind for kind, code in CODES.items()},
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.UNIMPLEMENTED: Denied,
}
_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_TIMEOUT = 60.0  # seconds for one object of 32 MiB: half a megabyte each second
_LISTING = 300.0
_MOST_LISTED = 1_000_000  # objects; a disk of 30 TB has as many packs
_BUSY_S = 1.0
_OPTIONS = (
    *FOUND_AGAIN,
    ("grpc.max_receive_message_length", 4 * MIB),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
)


class _Line:
    """A channel, and how many calls are on it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel, self.stub = channel, rpc.PeerStoreStub(channel)
        self.calls, self.retired = 0, False


class Peer:
    """See `port.Store`. All calls share one connection; after a loss the next call makes a new one,
    with the certificate as it is then."""

    def __init__(
        self,
        address: str,
        credentials: Callable[[], grpc.ChannelCredentials],
        *,
        server: str = SERVER,
        timeout: float = _TIMEOUT,
    ) -> None:
        """At HOST:PORT; nothing is sent yet. `server` is what its certificate says, `timeout` for
        one object. Every call raises what `credentials` raises."""
        self._address, self._credentials, self._timeout = address, credentials, timeout
        self._options = (*_OPTIONS, ("grpc.ssl_target_name_override", server))
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def put(self, key: str, content: Bytes) -> None:
        """As the port says. Raises NoRoom for more than MOST bytes."""
        port.checked(key)
        view = memoryview(content).cast("B")
        if len(view) > MOST:
            raise NoRoom(f"{key}: {len(view)} bytes (expected at most {MOST})")
        with self._asked(key) as stub:
            stub.Put(_pieces(key, view), timeout=self._timeout)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says. Raises Faulty for more than MOST bytes."""
        port.checked(key)
        request = pb.GetRequest(key=key, offset=max(0, offset))
        if size is not None:
            request.size = max(0, size)
        with self._asked(key) as stub:
            call = stub.Get(request, timeout=self._timeout)
            try:
                return _received(key, call, MOST if size is None else request.size, into)
            finally:
                call.cancel()  # type: ignore[no-untyped-call]  # of gRPC's

    def stat(self, key: str) -> Listed:
        """As the port says."""
        port.checked(key)
        with self._asked(key) as stub:
            found = stub.Stat(pb.StatRequest(key=key), timeout=self._timeout)
        return Listed(key=key, size=found.size, put_at=found.put_at)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says: all of it is here before the first is given, so that whoever looks at
        it for long holds up nobody there."""
        below = port.checked_prefix(prefix)
        found: list[Listed] = []
        with self._asked(below) as stub:
            call = stub.List(pb.ListRequest(prefix=below), timeout=_LISTING)
            try:
                for piece in call:
                    found += (_listed(one, below) for one in piece.objects)
                    if len(found) > _MOST_LISTED:
                        raise Faulty(f"{self._address} lists more than {_MOST_LISTED} objects")
            finally:
                call.cancel()  # type: ignore[no-untyped-call]  # of gRPC's
        yield from found

    def delete(self, key: str) -> bool:
        """As the port says."""
        port.checked(key)
        with self._asked(key) as stub:
            return stub.Delete(pb.DeleteRequest(key=key), timeout=self._timeout).was_there

    def close(self) -> None:
        """End the connection when its calls have ended. A call after that makes a new one."""
        with self._lock:
            self._retire(self._line)

    @contextmanager
    def _asked(self, what: str) -> Iterator[rpc.PeerStoreStub]:
        """gRPC's errors in our words."""
        with self._lock:
            line = self._line = self._line or _Line(
                grpc.secure_channel(self._address, self._credentials(), options=self._options)
            )
            line.calls += 1
        lost = False
        try:
            yield line.stub
        except grpc.RpcError as error:
            lost = _code(error) in _LOST
            raise _meant(what or self._address, error) from None
        finally:
            with self._lock:
                line.calls -= 1
                if lost or line.retired:
                    self._retire(line)

    def _retire(self, line: _Line | None) -> None:
        """Nobody calls on it any more; whoever does has it to the end."""
        if line is None:
            return
        line.retired = True
        if line is self._line:
            self._line = None
        if not line.calls:
            line.channel.close()


def _received(key: str, call: Any, most: int, into: memoryview | None) -> memoryview:
    """What a Get brings: exactly what its first piece says, and no more than `most` bytes."""
    first = next(call, None)
    if first is None:
        raise Away(f"{key}: the peer ended its answer before it began")
    if first.size > min(most, MOST):
        raise Faulty(f"{key}: the peer has {first.size} bytes (expected at most {most})")
    room = into[: first.size] if into is not None and len(into) >= first.size else None
    room = taken(first.size) if room is None else room
    done = 0
    for piece in chain((first,), call):
        end = done + len(piece.content)
        if end > len(room):
            raise Faulty(f"{key}: the peer sent more than the {len(room)} bytes it spoke of")
        room[done:end] = piece.content
        done = end
    if done < len(room):
        raise Away(f"{key}: {done} bytes of {len(room)}")
    return room


def _pieces(key: str, content: memoryview) -> Iterator[pb.PutPiece]:
    yield pb.PutPiece(key=key, size=len(content), content=bytes(content[:PUT_PIECE]))
    for at in range(PUT_PIECE, len(content), PUT_PIECE):
        yield pb.PutPiece(content=bytes(content[at : at + PUT_PIECE]))


def _listed(one: pb.Listed, below: str) -> Listed:
    try:
        port.checked(one.key)
    except BadKey as problem:
        raise Faulty(f"the peer lists {problem}") from None
    if not port.is_below(one.key, below):
        raise Faulty(f"the peer lists {one.key} below {below}")
    return Listed(key=one.key, size=one.size, put_at=one.put_at)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def _meant(what: str, error: grpc.RpcError) -> Exception:
    code = _code(error)
    text = str(error.details() if isinstance(error, grpc.Call) else error)[:300]
    kind = _MEANT.get(code, Away)
    if kind is Absent:
        return Absent(what)
    meant: Exception = kind(f"{what}: {text if code in CODES.values() else f'{code.name}: {text}'}")
    if isinstance(meant, Away) and code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        meant.after = _BUSY_S
    return meant
