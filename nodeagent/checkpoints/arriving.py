"""
Bytes of a checkpoint as they arrive, across lost connections.

Called by: `peers`. A thread of each connection receives ahead, so that hashing and writing need not
wait for the network. Rule: a piece more than was asked for is a fault of the peer, not trusted.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from kybernate.artifacts.faults import Unusable
from kybernate.clients.clock import Clock
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.faults import Cancelled, PeerAway

_AHEAD = 8  # pieces received and not yet written
_LOOK_S = 0.2  # how soon a cancellation is seen
# What another try may mend. Everything else is an answer.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds. A connection without a byte for `silence` is lost; `pause` lies between two tries.

    It is given up when nothing has come for `first` at the beginning (an agent is restarted within
    that), for `again` later (more is at stake), for `busy` where the peer lends to others (a node
    that is drained has everybody ask it at once).
    """

    silence: float = 20.0
    pause: float = 1.0
    first: float = 15.0
    again: float = 60.0
    busy: float = 600.0


PATIENT = Patience()
ELSEWHERE = 4.0  # for `first`, where somebody else is known to have it


class Lost(Exception):
    """The connection; another may take it up."""


class Busy(Lost):
    """The peer lends to as many as it can."""


class Pieces:
    """What one call brings. `next` waits at most so long; `close` ends it from any thread."""

    def __init__(self, call: Any, close: Callable[[], None]) -> None:
        self._call, self._close = call, close
        self._arrived: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="fetching", daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Any:
        """A piece, an error of gRPC's, None at the end. Raises queue.Empty."""
        return self._arrived.get(timeout=seconds)

    def close(self) -> None:
        """Let go of the connection."""
        self._ended.set()
        self._call.cancel()
        self._close()
        self._thread.join(5.0)

    def _receive(self) -> None:
        try:
            for piece in self._call:
                if not self._put(piece):
                    return
            self._put(None)
        except Exception as error:  # gRPC's, and what it raises when its channel is closed
            self._put(error)

    def _put(self, piece: Any) -> bool:
        while not self._ended.is_set():
            try:
                self._arrived.put(piece, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False


Call = Callable[[int, str], Pieces]
"""Connect and ask from an offset on, for the checkpoint of this signature ("": whichever)."""


class Arriving:
    """One fetch."""

    def __init__(
        self, call: Call, clock: Clock, patience: Patience, cancelled: threading.Event
    ) -> None:
        self._call, self._clock = call, clock
        self._patience, self._cancelled = patience, cancelled
        self._pieces: Pieces | None = None
        self._limit = patience.first
        self._came = clock.monotonic()  # the last byte that brought us on

    def artifact(self) -> tuple[bytes, str]:
        """Manifest and signature, not checked. Raises Unusable, PeerAway, Cancelled."""
        while True:
            try:
                piece = self._next(0, "")
            except Lost as problem:
                self._pause(problem)
                continue
            if piece is None or piece.WhichOneof("piece") != "artifact":
                raise Unusable(Flaw.MALFORMED, "the peer sent no manifest")
            self._limit, self._came = self._patience.again, self._clock.monotonic()
            return piece.artifact.manifest, piece.artifact.signature

    def content(self, signature: str, total: int) -> Iterator[memoryview]:
        """All bytes in order. Raises Unusable, PeerAway, Cancelled."""
        done, again = 0, False
        while done < total:
            try:
                piece = self._next(done, signature)
            except Lost as problem:
                self._pause(problem)
                again = done == 0  # asked from the beginning, the peer sends its artifact again
                continue
            if again and piece is not None and piece.WhichOneof("piece") == "artifact":
                again = False
                continue
            if piece is None or not piece.content or done + len(piece.content) > total:
                raise Unusable(Flaw.FILE_SIZE, f"the peer ended after {done} of {total} bytes")
            self._came = self._clock.monotonic()
            done += len(piece.content)
            yield memoryview(piece.content)

    def close(self) -> None:
        """End the call. Twice is fine."""
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None

    def _next(self, offset: int, signature: str) -> Any:
        """Raises Lost, Unusable, PeerAway, Cancelled."""
        if self._pieces is None:
            self._pieces = self._call(offset, signature)
        silence = min(self._patience.silence, self._limit)
        until = self._clock.monotonic() + silence
        while True:
            if self._cancelled.is_set():
                raise Cancelled("the fetch was called off")
            try:
                piece = self._pieces.next(_LOOK_S)
            except queue.Empty:
                if self._clock.monotonic() > until:
                    raise Lost(f"not a byte for {silence:g} s") from None
                continue
            if isinstance(piece, Exception):
                raise _meant(piece)
            return piece

    def _pause(self, problem: Lost) -> None:
        """Before the next try. Raises PeerAway where there were enough."""
        self.close()
        limit = self._patience.busy if isinstance(problem, Busy) else self._limit
        if self._clock.monotonic() - self._came >= limit:
            raise PeerAway(f"{problem}; nothing came for {limit:g} s") from problem
        get_logger().info("connection to a peer was lost", why=str(problem))
        if self._clock.wait(self._cancelled, self._patience.pause):
            raise Cancelled("the fetch was called off")


def _meant(error: Exception) -> Exception:
    """What a broken call says, in our words."""
    if not isinstance(error, grpc.Call):
        return Lost(str(error))
    code, text = error.code(), str(error.details())
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Busy(text)
    if code in _PASSING:
        return Lost(f"{code.name}: {text}")
    if code is grpc.StatusCode.NOT_FOUND:
        return Unusable(Flaw.ABSENT, "the peer has it not")
    if code is grpc.StatusCode.DATA_LOSS:
        return Unusable(Flaw.FILE_SIZE, f"at the peer: {text}")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        name = text.partition(":")[0]
        return Unusable(Flaw[name] if name in Flaw.__members__ else Flaw.MALFORMED, "at the peer")
    return PeerAway(f"{code.name}: {text}")
