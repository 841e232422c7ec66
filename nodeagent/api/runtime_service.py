"""
The Runtime service: what makes containers tells of them, and asks whether they live.

On the unix socket only, which nobody but root (or, in the testbed, its owner) can open: gRPC does
not show a peer's credentials to Python, so the socket's mode is what keeps others out.
"""

from pathlib import Path

import grpc

from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State
from nodeagent import processes
from nodeagent.announcements import Created
from nodeagent.api import wire
from nodeagent.containers import Containers
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
            created = _created(key, request)
            if created is not None:
                self._containers.created(created)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OSError as error:  # not written down, so not heard: say it again later
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
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


def _created(key: WorkloadKey, request: pb.ContainerCreatedRequest) -> Created | None:
    """None for a process that is gone already. Raises ValueError."""
    if not request.container_id or request.pid == 0 or not request.exec_fifo:
        raise ValueError("container_id, pid and exec_fifo are needed")
    started = processes.started(request.pid)
    if started is None:
        return None
    return Created(
        key=key,
        uid=PodUid(request.workload.pod_uid) if request.workload.pod_uid else None,
        container=request.container,
        container_id=request.container_id,
        pid=request.pid,
        pid_started=started,
        exec_fifo=Path(request.exec_fifo),
    )
