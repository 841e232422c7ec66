"""
The driver's side of the simulated GPU.

Called by: the node agent's `simulated` mechanism, `kybernate.clients.gpus.simulated`, tests.
Rule: sizes are pretended bytes; `content` is what really travels, 1/scale of it. All errors are
those of `kybernate.clients.simgpu.errors`. Timeouts are seconds; None waits for ever.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kybernate.clients.pb import simgpu_pb2 as pb
from kybernate.clients.pb import simgpu_pb2_grpc as rpc
from kybernate.clients.simgpu.channel import open_channel
from kybernate.clients.simgpu.contents import Contents
from kybernate.clients.simgpu.errors import NotNow, translated
from kybernate.clients.simgpu.numbers import Numbers
from kybernate.model.gpu import Gpu, Health
from kybernate.model.ids import GpuUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A context of a process on one card. A stranger's has pid 0 and no context.

    `pid` is as the caller of the driver numbers processes, and 0 for one it cannot see; `own_pid`
    is as the process itself does. `identity` is the context's, wherever its process is moved.
    """

    pid: int
    context: str
    uuid: GpuUuid
    used: int
    locked: bool
    idle_seconds: float
    submitted: int
    waiting: int  # pieces of work held at the closed gate
    own_pid: int
    identity: str
    known_uuid: GpuUuid  # what the process calls the card: another name, after it was moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One allocation. `digest` is BLAKE2b-256 of its contents; empty when not `backed`."""

    name: str
    uuid: GpuUuid
    size: int
    content: int
    backed: bool
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A context as it is to be on another card. `cards` maps the UUIDs its process knows to those
    it is on now; its segments name the former."""

    identity: str
    own_pid: int
    cards: Mapping[GpuUuid, GpuUuid]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """Everything the device shows, as of one moment."""

    gpus: tuple[Gpu, ...]
    used: dict[GpuUuid, int]
    processes: tuple[Process, ...]
    scale: int
    driver: str
    bus_bytes_per_second: dict[GpuUuid, float]

    def context_of(self, pid: int) -> str | None:
        """The context of this process, where it has one."""
        return next((p.context for p in self.processes if p.pid == pid and p.context), None)


class Driver:
    """Thread safe. Nothing is sent before the first call."""

    def __init__(self, address: str | Path) -> None:
        self._channel = open_channel(address)
        self._device = rpc.DeviceStub(self._channel)
        self._numbers = Numbers()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up every call and the connection."""
        self._channel.close()

    def showing(self, timeout: float | None = 5.0) -> Showing:
        """Cards, memory used, processes, in one picture."""
        with translated():
            reply = self._device.Inventory(pb.InventoryRequest(), timeout=timeout)
        return _showing(reply, self._numbers)

    def lock(self, context: str, timeout: float | None = None) -> None:
        """Drain running work and hold new work. Idempotent; after DeviceAway it is not locked."""
        with translated():
            self._device.Lock(pb.ContextRef(context=context), timeout=timeout)

    def unlock(self, context: str, timeout: float | None = None) -> None:
        """Let work go on. Idempotent. NotNow while a segment's contents are not in VRAM."""
        with translated():
            self._device.Unlock(pb.ContextRef(context=context), timeout=timeout)

    def disconnect(self, context: str, timeout: float | None = None) -> None:
        """Have the workload close its connection until the gate opens. Idempotent. NotNow while it
        is not locked."""
        with translated():
            self._device.Disconnect(pb.ContextRef(context=context), timeout=timeout)

    def adopt(self, pid: int, moved: Moved, timeout: float | None = None) -> None:
        """The context of a process that came here: locked, and without VRAM. Idempotent.

        `pid` is any process of its namespace, by our numbers. ContextGone for an unknown card.
        """
        request = pb.AdoptRequest(
            identity=moved.identity,
            pid=moved.own_pid,
            pid_namespace=self._numbers.namespace(pid),
            cards={str(was): str(now) for was, now in moved.cards.items()},
            segments=[
                pb.Segment(segment=s.name, card=s.uuid, bytes=s.size, content=s.content)
                for s in moved.segments
            ],
        )
        with translated():
            self._device.Adopt(request, timeout=timeout)

    def forget(self, context: str, timeout: float | None = None) -> None:
        """Its process is gone: end the context, attached or not. Idempotent."""
        with translated():
            self._device.Forget(pb.ContextRef(context=context), timeout=timeout)

    def segments(self, context: str, timeout: float | None = None) -> tuple[Segment, ...]:
        """The context's allocations, oldest first, with digests of what is in VRAM."""
        with translated():
            reply = self._device.Segments(pb.ContextRef(context=context), timeout=timeout)
        return tuple(_segment(one) for one in reply.segments)

    def copy_out(self, context: str, segment: str) -> Iterator[bytes]:
        """The contents in order, at the bus's rate. Closing the iterator ends the copy."""
        call = self._device.CopyOut(pb.SegmentRef(context=context, segment=segment))
        try:
            with translated():
                for chunk in call:
                    yield chunk.content
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def release(self, context: str, segment: str, timeout: float | None = None) -> None:
        """Free the segment's VRAM; its handle stays. Idempotent."""
        with translated():
            self._device.Release(pb.SegmentRef(context=context, segment=segment), timeout=timeout)

    def copy_in(
        self, context: str, segment: str, chunks: Iterable[bytes | bytearray | memoryview]
    ) -> str:
        """Put contents in place, whole or not at all; their digest. OutOfMemory when no room.

        Raises what `chunks` raises, and then nothing changed. gRPC reads ahead of what is in place;
        nothing is read any more when this returns.
        """
        contents = Contents(chunks)
        ref = pb.SegmentRef(context=context, segment=segment)
        try:
            with translated():
                return self._device.CopyIn(contents.messages(ref)).digest
        except NotNow as refused:
            if contents.failed:
                raise contents.failed from refused
            raise
        finally:
            contents.close()

    def inject(
        self,
        uuid: str = "",
        *,
        healthy: bool | None = None,
        bus_bytes_per_second: float | None = None,
        foreign_bytes: int | None = None,
    ) -> None:
        """For tests: change a card, or every card. OutOfMemory when strangers want too much."""
        with translated():
            self._device.Inject(
                pb.InjectRequest(
                    card=uuid,
                    healthy=healthy,
                    bus_bytes_per_second=bus_bytes_per_second,
                    foreign_bytes=foreign_bytes,
                )
            )

    def fail_next(self, method: str, times: int = 1, after_bytes: int = 0) -> None:
        """For tests: the next calls of `Lock`, `CopyIn`, ... fail with DeviceAway.

        Copies fail when `after_bytes` pretended bytes went over the bus.
        """
        with translated():
            self._device.Inject(
                pb.InjectRequest(fail_method=method, fail_times=times, fail_after_bytes=after_bytes)
            )


def _showing(reply: pb.InventoryReply, numbers: Numbers) -> Showing:
    return Showing(
        gpus=tuple(_gpu(card) for card in reply.cards),
        used={GpuUuid(card.uuid): card.used for card in reply.cards},
        processes=tuple(_process(one, numbers) for one in reply.processes),
        scale=reply.scale,
        driver=reply.driver,
        bus_bytes_per_second={
            GpuUuid(card.uuid): card.bus_bytes_per_second for card in reply.cards
        },
    )


def _gpu(card: pb.Card) -> Gpu:
    return Gpu(
        index=card.index,
        uuid=GpuUuid(card.uuid),
        product=card.product,
        memory=card.memory,
        numa=None if card.numa < 0 else card.numa,
        health=Health.HEALTHY if card.healthy else Health.UNHEALTHY,
        links=dict(card.links),
    )


def _process(one: pb.Process, numbers: Numbers) -> Process:
    return Process(
        pid=numbers.ours(one.pid, one.pid_namespace) if one.pid else 0,
        context=one.context,
        uuid=GpuUuid(one.card),
        used=one.used,
        locked=one.locked,
        idle_seconds=one.idle_seconds,
        submitted=one.submitted,
        waiting=one.waiting,
        own_pid=one.pid,
        identity=one.identity,
        known_uuid=GpuUuid(one.known_card or one.card),
    )


def _segment(one: pb.Segment) -> Segment:
    return Segment(
        name=one.segment,
        uuid=GpuUuid(one.card),
        size=one.bytes,
        content=one.content,
        backed=one.backed,
        digest=one.digest,
    )
