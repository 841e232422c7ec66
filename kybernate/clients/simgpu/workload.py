"""
A workload's side of the simulated GPU.

Called by: the model servers and trainers of the testbed, tests.
Rule: a context lives as long as its `Attachment`, and ends with the process that holds it, however
that ends. Work on a parked context waits; only `timeout` (seconds) bounds that.
Rule: told to go (its process image is to be taken), it closes its connection and looks at the gate,
a file, until it may come back, here or on another machine; whoever waits for work does not notice.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from kybernate.api import names
from kybernate.clients.errors import Refused, Retry
from kybernate.clients.pb import simgpu_pb2 as pb
from kybernate.clients.pb import simgpu_pb2_grpc as rpc
from kybernate.clients.simgpu.errors import ContextGone, DeviceAway, Disconnected
from kybernate.clients.simgpu.line import Line

T = TypeVar("T")
_MICROSECONDS = 1e6
_LOOK_S = 0.05  # at the closed gate
_AGAIN_S = 0.2  # after a call in vain: we were moved, and are not known here yet


class Attachment:
    """A context on some cards, by UUID. A context manager; thread safe."""

    def __init__(self, address: str | Path, pid: int, cards: Sequence[str]) -> None:
        """Attach. Raises ContextGone for an unknown card, DeviceAway when nobody is there."""
        self._address, self._pid = address, pid
        request = pb.AttachRequest(pid=pid, cards=cards, pid_namespace=_namespace())
        line = Line(address, request)
        self._identity = line.identity
        self._line: Line | None = line
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._lost = False
        threading.Thread(target=self._keep, args=(line,), name="gpu", daemon=True).start()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def context(self) -> str:
        """What the device calls it. Raises DeviceAway while it is disconnected."""
        return self._present(None, time.monotonic()).context

    def close(self) -> None:
        """The context ends and its memory is free."""
        self._closing.set()
        with self._changed:
            line = self._line
        if line is not None:
            line.close()

    def wait_lost(self) -> None:
        """Returns when the context has ended, whoever ended it."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost)

    def allocate(self, card: str, size: int, timeout: float | None = None) -> str:
        """A segment of `size` pretended bytes; its name. Raises OutOfMemory."""

        def ask(device: rpc.DeviceStub, context: str, left: float | None) -> str:
            request = pb.AllocateRequest(context=context, card=card, bytes=size)
            return device.Allocate(request, timeout=left).segment

        return self._call(ask, timeout)

    def free(self, segment: str, timeout: float | None = None) -> None:
        """Give a segment back."""

        def ask(device: rpc.DeviceStub, context: str, left: float | None) -> None:
            device.Free(pb.FreeRequest(segment=_ref(context, segment)), timeout=left)

        self._call(ask, timeout)

    def fill(self, segment: str, seed: int, timeout: float | None = None) -> None:
        """Write the pattern of `seed`; the counter begins at 0."""
        self._submit(segment, pb.SubmitRequest(fill=seed), timeout)

    def increment(self, segment: str, by: int = 1, timeout: float | None = None) -> int:
        """Add to the counter; its new value. `by=0` reads it."""
        return self._submit(segment, pb.SubmitRequest(increment=by), timeout).counter

    def checksum(self, segment: str, timeout: float | None = None) -> str:
        """BLAKE2b of everything after the counter."""
        return self._submit(segment, pb.SubmitRequest(checksum=True), timeout).checksum

    def busy(self, segment: str, seconds: float, timeout: float | None = None) -> int:
        """Keep the card busy; the counter's value after it."""
        microseconds = round(seconds * _MICROSECONDS)
        request = pb.SubmitRequest(busy_microseconds=microseconds)
        return self._submit(segment, request, timeout).counter

    def _submit(
        self, segment: str, request: pb.SubmitRequest, timeout: float | None
    ) -> pb.SubmitReply:
        def ask(device: rpc.DeviceStub, context: str, left: float | None) -> pb.SubmitReply:
            request.segment.CopyFrom(_ref(context, segment))
            return device.Submit(request, timeout=left)

        return self._call(ask, timeout)

    def _call(
        self, ask: Callable[[rpc.DeviceStub, str, float | None], T], timeout: float | None
    ) -> T:
        """Ask, again on the next connection where this one was taken away: it had not begun."""
        until = None if timeout is None else time.monotonic() + timeout
        line: Line | None = None
        while True:
            line = self._present(line, until)
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                return line.call(lambda device, context: ask(device, context, left))  # noqa: B023
            except Disconnected:
                continue

    def _present(self, before: Line | None, until: float | None) -> Line:
        """The connection, another one than `before`. Raises DeviceAway when the time is over."""

        def there() -> bool:
            return self._lost or (self._line is not None and self._line is not before)

        with self._changed:
            self._changed.wait_for(there, None if until is None else until - time.monotonic())
            if self._lost:
                raise ContextGone("the context ended")
            if self._line is None or self._line is before:
                raise DeviceAway("disconnected for too long")
            return self._line

    # going and coming back

    def _keep(self, line: Line | None) -> None:
        while line is not None and line.await_end() and not self._closing.is_set():
            self._now(None)
            line.close()
            line = self._come_back()
            self._now(line)
        if line is not None:
            line.close()
        self._now(None, lost=True)

    def _now(self, line: Line | None, *, lost: bool = False) -> None:
        with self._changed:
            self._line, self._lost = line, lost
            self._changed.notify_all()

    def _come_back(self) -> Line | None:
        pause = _LOOK_S
        while not self._closing.wait(pause):
            pause = _LOOK_S
            namespace = _namespace()  # another one, where we were moved
            if self._gate(namespace).exists():
                continue
            request = pb.AttachRequest(
                pid=self._pid, pid_namespace=namespace, identity=self._identity
            )
            try:
                return Line(self._address, request)
            except (Refused, Retry):
                pause = _AGAIN_S
        return None

    def _gate(self, namespace: int) -> Path:
        """`testbed.gpu.gates` puts it there."""
        closed = names.closed_gates(str(self._address).removeprefix("unix://"))
        return Path(closed) / f"{self._identity}.{namespace}"


def _namespace() -> int:
    """The number of the namespace our own process number is of."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _ref(context: str, segment: str) -> pb.SegmentRef:
    return pb.SegmentRef(context=context, segment=segment)
