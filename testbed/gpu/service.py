# ruff: noqa: N802, ARG002 (gRPC names the methods and their arguments)
"""
The device's gRPC face: messages to calls of `Device` and back, errors to statuses.

Called by: gRPC, one thread per call; `__main__` and tests through `serve`.
Rule: a call whose caller goes away ends by itself, so no thread is ever left waiting for nobody.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import grpc

from kybernate.api import names
from kybernate.clients.pb import simgpu_pb2 as pb
from kybernate.clients.pb import simgpu_pb2_grpc as rpc
from kybernate.model.gpu import Gpu
from testbed.gpu import inventory, work
from testbed.gpu.card import DEFAULT_BUS, Card
from testbed.gpu.context import Context
from testbed.gpu.contexts import Owner, Shape
from testbed.gpu.device import Device
from testbed.gpu.errors import (
    Absent,
    DeviceRefused,
    Disconnected,
    GaveUp,
    NoRoom,
    Sick,
    Unfit,
    WrongState,
)
from testbed.gpu.faults import Faults
from testbed.gpu.gates import Gates

# Each attached process and each held submission takes a thread; they are made when needed.
MAX_CALLS = 1024

_STATUS = {
    NoRoom: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Absent: grpc.StatusCode.NOT_FOUND,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    Unfit: grpc.StatusCode.INVALID_ARGUMENT,
    Sick: grpc.StatusCode.UNAVAILABLE,
    GaveUp: grpc.StatusCode.CANCELLED,
    Disconnected: grpc.StatusCode.ABORTED,
}


class RpcCaller:
    """Whoever made the call, until the call ends."""

    def __init__(self, call: grpc.ServicerContext, nudge: Callable[[], None]) -> None:
        self._gone = threading.Event()
        self._nudge = nudge
        if not call.add_callback(self._leave):
            self._gone.set()

    def alive(self) -> bool:
        """Whether the call still stands."""
        return not self._gone.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Pause, for ever where None; True at once when the call ended."""
        return self._gone.wait(seconds)

    def _leave(self) -> None:
        self._gone.set()
        self._nudge()


class Service(rpc.DeviceServicer):
    """See simgpu.proto for what each method promises."""

    def __init__(self, device: Device, driver: str = "sim-1") -> None:
        self._device = device
        self._driver = driver
        self._faults = Faults()

    def Inventory(
        self, request: pb.InventoryRequest, call: grpc.ServicerContext
    ) -> pb.InventoryReply:
        with self._refusing(call, "Inventory"):
            return inventory.take(self._device, self._driver)

    def Attach(
        self, request: pb.AttachRequest, call: grpc.ServicerContext
    ) -> Iterator[pb.Attached]:
        caller = self._caller(call)
        owner = Owner(pid=request.pid, namespace=request.pid_namespace)
        with self._refusing(call, "Attach"):
            if request.identity:
                context = self._device.rejoin(owner, request.identity)
            else:
                context = self._device.attach(owner, request.cards)
            joined = context.joined
        try:
            yield _attached(context)
            with self._refusing(call, "Attach"):
                self._device.stay(context, joined, caller)
        finally:
            self._device.left(context, joined)

    def Disconnect(self, request: pb.ContextRef, call: grpc.ServicerContext) -> pb.DisconnectReply:
        with self._refusing(call, "Disconnect"):
            self._device.disconnect(request.context)
            return pb.DisconnectReply()

    def Adopt(self, request: pb.AdoptRequest, call: grpc.ServicerContext) -> pb.Attached:
        owner = Owner(pid=request.pid, namespace=request.pid_namespace)
        shapes = [
            Shape(name=one.segment, card=one.card, size=one.bytes, length=one.content)
            for one in request.segments
        ]
        with self._refusing(call, "Adopt"):
            context = self._device.adopt(owner, request.identity, request.cards, shapes)
            return _attached(context)

    def Forget(self, request: pb.ContextRef, call: grpc.ServicerContext) -> pb.DisconnectReply:
        with self._refusing(call, "Forget"):
            self._device.detach(request.context)
            return pb.DisconnectReply()

    def Allocate(self, request: pb.AllocateRequest, call: grpc.ServicerContext) -> pb.AllocateReply:
        with self._refusing(call, "Allocate"):
            made = self._device.allocate(
                request.context, request.card, request.bytes, self._caller(call)
            )
            return pb.AllocateReply(segment=made.name, content=made.length)

    def Free(self, request: pb.FreeRequest, call: grpc.ServicerContext) -> pb.FreeReply:
        ref = request.segment
        with self._refusing(call, "Free"):
            self._device.free(ref.context, ref.segment, self._caller(call))
            return pb.FreeReply()

    def Submit(self, request: pb.SubmitRequest, call: grpc.ServicerContext) -> pb.SubmitReply:
        ref, caller = request.segment, self._caller(call)
        kind = request.WhichOneof("work")
        value = int(getattr(request, kind)) if kind else 0
        with (
            self._refusing(call, "Submit"),
            self._device.working(ref.context, ref.segment, caller) as segment,
        ):
            counter, checksum = work.run(segment, kind, value, caller)
            return pb.SubmitReply(counter=counter, checksum=checksum)

    def Lock(self, request: pb.ContextRef, call: grpc.ServicerContext) -> pb.LockReply:
        with self._refusing(call, "Lock"):
            self._device.lock(request.context, self._caller(call))
            return pb.LockReply()

    def Unlock(self, request: pb.ContextRef, call: grpc.ServicerContext) -> pb.LockReply:
        with self._refusing(call, "Unlock"):
            self._device.unlock(request.context, self._caller(call))
            return pb.LockReply()

    def Segments(self, request: pb.ContextRef, call: grpc.ServicerContext) -> pb.SegmentsReply:
        with self._refusing(call, "Segments"):
            found = self._device.segments(request.context)
            return pb.SegmentsReply(segments=[inventory.segment(one) for one in found])

    def CopyOut(self, request: pb.SegmentRef, call: grpc.ServicerContext) -> Iterator[pb.Chunk]:
        with self._refusing(call, "CopyOut") as fail_after:
            for chunk in self._device.copy_out(
                request.context, request.segment, self._caller(call), fail_after
            ):
                yield pb.Chunk(content=chunk)

    def Release(self, request: pb.SegmentRef, call: grpc.ServicerContext) -> pb.ReleaseReply:
        with self._refusing(call, "Release"):
            self._device.release(request.context, request.segment, self._caller(call))
            return pb.ReleaseReply()

    def CopyIn(
        self, request_iterator: Iterator[pb.CopyInRequest], call: grpc.ServicerContext
    ) -> pb.CopyInReply:
        caller = self._caller(call)
        with self._refusing(call, "CopyIn") as fail_after:
            first = next(request_iterator, None)
            if first is None:
                raise Unfit("the first message names the segment")
            chunks = _contents(request_iterator)
            digest = self._device.copy_in(
                first.segment.context, first.segment.segment, chunks, caller, fail_after
            )
            return pb.CopyInReply(digest=digest)

    def Inject(self, request: pb.InjectRequest, call: grpc.ServicerContext) -> pb.InjectReply:
        with self._refusing(call, "Inject"):
            inventory.inject(self._device, request)
            if request.fail_method:
                self._faults.plan(request.fail_method, request.fail_times, request.fail_after_bytes)
            return pb.InjectReply()

    def _caller(self, call: grpc.ServicerContext) -> RpcCaller:
        return RpcCaller(call, self._device.nudge)

    @contextmanager
    def _refusing(self, call: grpc.ServicerContext, method: str) -> Iterator[int | None]:
        try:
            yield self._faults.strike(method)
        except DeviceRefused as refused:
            _abort(call, refused)


def _contents(messages: Iterator[pb.CopyInRequest]) -> Iterator[bytes]:
    for message in messages:
        if message.abandon:
            raise Unfit("the sender gave up")
        yield message.content


def _attached(context: Context) -> pb.Attached:
    return pb.Attached(context=context.name, identity=context.identity)


def _abort(call: grpc.ServicerContext, refused: DeviceRefused) -> NoReturn:
    call.abort(_STATUS[type(refused)], str(refused))
    raise AssertionError("abort returns never")


def gates_of(socket: Path) -> Gates:
    """The folder beside a service's socket: `kybernate.clients.simgpu` looks there."""
    return Gates(Path(names.closed_gates(str(socket))))


# A parked process answers no ping, and gRPC closes a connection a minute after one that was not
# answered, but where keep-alive is off: then it waits for ever. A driver asks for no sign of life.
_FOR_THE_FROZEN = (("grpc.keepalive_time_ms", 2**31 - 1),)


def serve(device: Device, socket: Path, driver: str = "sim-1") -> grpc.Server:
    """A started server on the socket; a socket that a dead one left is replaced."""
    threads = futures.ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="simgpu")
    server = grpc.server(threads, options=_FOR_THE_FROZEN)
    rpc.add_DeviceServicer_to_server(Service(device, driver), server)
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix://{socket.absolute()}")
    server.start()
    return server


@contextmanager
def running(
    gpus: Iterable[Gpu],
    socket: Path,
    *,
    scale: int = 1024,
    bytes_per_second: float = DEFAULT_BUS,
) -> Iterator[Device]:
    """A service in this process, for tests."""
    cards = [Card.of(gpu, bytes_per_second) for gpu in gpus]
    device = Device(cards, scale=scale, gates=gates_of(socket))
    server = serve(device, socket)
    try:
        yield device
    finally:
        server.stop(None).wait()
