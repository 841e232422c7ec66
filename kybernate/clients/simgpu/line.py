"""
One connection of a workload to the device: a channel, and the stream its context lives on.

Called by: `workload`. Rule: when it is closed nothing of it is left in the process, which can then
be taken an image of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from kybernate.clients.pb import simgpu_pb2 as pb
from kybernate.clients.pb import simgpu_pb2_grpc as rpc
from kybernate.clients.simgpu.channel import open_channel
from kybernate.clients.simgpu.errors import Disconnected, translated

T = TypeVar("T")


class Line:
    """Thread safe. `context` and `identity` are what the device calls us."""

    def __init__(self, address: str | Path, request: pb.AttachRequest) -> None:
        """Attach. Raises ContextGone for what is not there, DeviceAway when nobody is."""
        self._channel = open_channel(address)
        self._device = rpc.DeviceStub(self._channel)
        self._closed = False
        try:
            with translated():
                self._life = self._device.Attach(request)
                first = next(iter(self._life))
        except BaseException:
            self._channel.close()
            raise
        self.context, self.identity = first.context, first.identity

    def call(self, do: Callable[[rpc.DeviceStub, str], T]) -> T:
        """Ask the device something about our context. Raises Disconnected once we are to go."""
        try:
            with translated():
                return do(self._device, self.context)
        except Exception as error:
            if self._closed:  # under the call's feet: what it raises then says nothing
                raise Disconnected("the connection was closed") from error
            raise

    def await_end(self) -> bool:
        """Until the stream has ended; whether we were told to go and may come back."""
        try:
            for _ in self._life:
                pass  # nothing more is ever said
        except grpc.RpcError as error:
            return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.ABORTED
        return False

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        self._closed = True
        self._life.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()
