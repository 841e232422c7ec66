"""
The Runtime service: what makes containers tells of them, and asks whether they live.

On the unix socket only, which nobody but root (or, in the testbed, its owner) can open: gRPC does
not show a peer's credentials to Python, so the socket's mode is what keeps others out.
"""

from pathlib import Path

import grpc

from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.ids import PodUid
from kybernate.model.workload import State
from nodeagent.api import wire
from nodeagent.containers import Containers, Created
from nodeagent.coordinator import Coordinator


class RuntimeService(rpc.RuntimeServicer):
    """As agent.proto says."""

    def __init__(self, containers: Containers, coordinator: Coordinator) -> None:
        self._containers = containers
        self._coordinator = coordinator

    def ContainerCreated(  # noqa: N802
        self, request: pb.ContainerCreatedRequest, context: grpc.ServicerContext
    ) -> pb.ContainerCreatedReply:
        """Remember it and return: whoever makes containers must not wait for a GPU."""
        try:
            key = wire.key_of(request.workload)
            if not request.container_id or request.pid == 0 or not request.exec_fifo:
                raise ValueError("container_id, pid and exec_fifo are needed")
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._containers.created(
            Created(
                key=key,
                uid=PodUid(request.workload.pod_uid) if request.workload.pod_uid else None,
                container=request.container,
                container_id=request.container_id,
                pid=request.pid,
                exec_fifo=Path(request.exec_fifo),
            )
        )
        return pb.ContainerCreatedReply()

    def ContainerExited(  # noqa: N802
        self, request: pb.ContainerExitedRequest, context: grpc.ServicerContext
    ) -> pb.ContainerExitedReply:
        """Its turn is over."""
        try:
            key = wire.key_of(request.workload)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._containers.exited(key, request.container_id)
        return pb.ContainerExitedReply()

    def Probe(self, request: pb.ProbeRequest, context: grpc.ServicerContext) -> pb.ProbeReply:  # noqa: N802
        """Alive without being asked while it is anything but active."""
        try:
            key = wire.key_of(request.workload)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        tenancy = self._coordinator.books.tenancies.get(key)
        state = tenancy.state if tenancy else State.ABSENT
        return pb.ProbeReply(held=state not in (State.ACTIVE, State.ABSENT), state=state.value)
