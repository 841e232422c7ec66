"""
A workload's side of the simulated GPU.

Called by: the model servers and trainers of the testbed, tests.
Rule: a context lives as long as its `Attachment`, and ends with the process that holds it, however
that ends. Work on a parked context waits; only `timeout` (seconds) bounds that.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc

from kybernate.clients.pb import simgpu_pb2 as pb
from kybernate.clients.pb import simgpu_pb2_grpc as rpc
from kybernate.clients.simgpu.channel import open_channel
from kybernate.clients.simgpu.errors import translated

_MICROSECONDS = 1e6


class Attachment:
    """A context on some cards, by UUID. A context manager; thread safe."""

    def __init__(self, address: str | Path, pid: int, cards: Sequence[str]) -> None:
        """Attach. Raises ContextGone for an unknown card, DeviceAway when nobody is there."""
        self._channel = open_channel(address)
        self._device = rpc.DeviceStub(self._channel)
        try:
            with translated():
                self._life = self._device.Attach(pb.AttachRequest(pid=pid, cards=cards))
                self.context = next(iter(self._life)).context
        except BaseException:
            self._channel.close()
            raise

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """The context ends and its memory is free."""
        self._life.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def wait_lost(self) -> None:
        """Returns when the context has ended, whoever ended it."""
        with suppress(grpc.RpcError):
            for _ in self._life:
                pass  # nothing more is ever said; the stream just ends

    def allocate(self, card: str, size: int, timeout: float | None = None) -> str:
        """A segment of `size` pretended bytes; its name. Raises OutOfMemory."""
        request = pb.AllocateRequest(context=self.context, card=card, bytes=size)
        with translated():
            return self._device.Allocate(request, timeout=timeout).segment

    def free(self, segment: str, timeout: float | None = None) -> None:
        """Give a segment back."""
        with translated():
            self._device.Free(pb.FreeRequest(segment=self._ref(segment)), timeout=timeout)

    def fill(self, segment: str, seed: int, timeout: float | None = None) -> None:
        """Write the pattern of `seed`; the counter begins at 0."""
        self._submit(pb.SubmitRequest(segment=self._ref(segment), fill=seed), timeout)

    def increment(self, segment: str, by: int = 1, timeout: float | None = None) -> int:
        """Add to the counter; its new value. `by=0` reads it."""
        request = pb.SubmitRequest(segment=self._ref(segment), increment=by)
        return self._submit(request, timeout).counter

    def checksum(self, segment: str, timeout: float | None = None) -> str:
        """BLAKE2b of everything after the counter."""
        request = pb.SubmitRequest(segment=self._ref(segment), checksum=True)
        return self._submit(request, timeout).checksum

    def busy(self, segment: str, seconds: float, timeout: float | None = None) -> int:
        """Keep the card busy; the counter's value after it."""
        microseconds = round(seconds * _MICROSECONDS)
        request = pb.SubmitRequest(segment=self._ref(segment), busy_microseconds=microseconds)
        return self._submit(request, timeout).counter

    def _submit(self, request: pb.SubmitRequest, timeout: float | None) -> pb.SubmitReply:
        with translated():
            return self._device.Submit(request, timeout=timeout)

    def _ref(self, segment: str) -> pb.SegmentRef:
        return pb.SegmentRef(context=self.context, segment=segment)
