# ruff: noqa: N802, ARG002 (gRPC names the methods and their arguments)
"""
One plugin server per resource: answers the kubelet on a socket of its own.

Called by: the kubelet, through gRPC; `registration` starts and stops it.
Rule: a refusal is a gRPC error whose text ends up in the pod's status, so it is a sentence.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc

from deviceplugin import wire
from deviceplugin.agent import Agent
from deviceplugin.offer import Extras, NotHandedOut
from deviceplugin.watching import Seats
from kybernate.clients.pb import deviceplugin_pb2 as pb
from kybernate.clients.pb import deviceplugin_pb2_grpc as rpc
from kybernate.model.ids import ResourceName
from kybernate.runtime.logs import get_logger

# The kubelet holds one ListAndWatch and makes one call at a time; a restarted one adds its own.
_THREADS = 8
_GRACE_S = 1.0

Counted = Callable[[str, str], None]
"""Told the resource and `given` or `refused`, for each container."""


class Plugin(rpc.DevicePluginServicer):
    """The protocol for one resource."""

    def __init__(
        self,
        resource: ResourceName,
        seats: Seats,
        agent: Agent,
        extras: Callable[[], Extras],
        counted: Counted,
    ) -> None:
        self._resource = resource
        self._seats = seats
        self._agent = agent
        self._extras = extras
        self._counted = counted

    def GetDevicePluginOptions(
        self, request: pb.Empty, call: grpc.ServicerContext
    ) -> pb.DevicePluginOptions:
        """What we can do."""
        return wire.options()

    def ListAndWatch(
        self, request: pb.Empty, call: grpc.ServicerContext
    ) -> Iterator[pb.ListAndWatchResponse]:
        """All seats, now and whenever one changes."""
        call.add_callback(self._seats.nudge)
        seen = self._seats.next(None, call.is_active)
        while seen is not None:
            yield wire.device_list(self._seats.offer(self._resource).devices())
            seen = self._seats.next(seen, call.is_active)

    def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, call: grpc.ServicerContext
    ) -> pb.PreferredAllocationResponse:
        """The agent's choice, else ours."""
        answers = [self._preferred(one) for one in request.container_requests]
        return pb.PreferredAllocationResponse(container_responses=answers)

    def Allocate(
        self, request: pb.AllocateRequest, call: grpc.ServicerContext
    ) -> pb.AllocateResponse:
        """The environment, devices and mounts of each container; all of them or none."""
        offer, extras = self._seats.offer(self._resource), self._extras()
        answers = []
        for one in request.container_requests:
            try:
                answers.append(wire.allocation(offer.allocate(one.devices_ids, extras)))
            except NotHandedOut as refused:
                self._counted(self._resource, "refused")
                get_logger().warning("seat refused", seats=list(one.devices_ids), why=str(refused))
                call.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))
            self._counted(self._resource, "given")
            get_logger().info("seat given", seats=list(one.devices_ids))
        return pb.AllocateResponse(container_responses=answers)

    def PreStartContainer(
        self, request: pb.PreStartContainerRequest, call: grpc.ServicerContext
    ) -> pb.PreStartContainerResponse:
        """Nothing to do, and not asked for; answered all the same."""
        return pb.PreStartContainerResponse()

    def _preferred(
        self, wish: pb.ContainerPreferredAllocationRequest
    ) -> pb.ContainerPreferredAllocationResponse:
        available, must = list(wish.available_deviceIDs), list(wish.must_include_deviceIDs)
        chosen = self._agent.prefer(self._resource, available, must, wish.allocation_size)
        if chosen is None:
            offer = self._seats.offer(self._resource)
            chosen = offer.prefer(available, must, wish.allocation_size)
        return pb.ContainerPreferredAllocationResponse(deviceIDs=chosen)


class PluginServer:
    """A plugin on its socket; can be started again after it was stopped."""

    def __init__(self, plugin: Plugin, socket: Path) -> None:
        self._plugin = plugin
        self.socket = socket
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen. Raises OSError when the socket cannot be made."""
        self.stop()
        server = grpc.server(futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="plugin"))
        rpc.add_DevicePluginServicer_to_server(self._plugin, server)
        self.socket.unlink(missing_ok=True)
        try:
            server.add_insecure_port(f"unix://{self.socket.absolute()}")
        except RuntimeError as problem:
            raise OSError(f"cannot listen on {self.socket}: {problem}") from problem
        server.start()
        self._server = server

    def stop(self) -> None:
        """End every call, close, and take the socket away. Idempotent."""
        if self._server is not None:
            self._server.stop(_GRACE_S).wait()
            self._server = None
        self.socket.unlink(missing_ok=True)

    @property
    def reachable(self) -> bool:
        """Whether it listens and its socket is still there (a starting kubelet removes it)."""
        return self._server is not None and self.socket.exists()
