"""
What runc's wrapper would tell the node agent: a container exists and is held, a container ended.

Called by: `podlife`, which tells again until it was heard: the agent may be away for a while.
"""

from pathlib import Path

import grpc

from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from testbed.lightnode.podspec import Identity

_CALL_S = 2.0


class AgentAway(Exception):
    """Nobody listens now, or what was told cannot be taken in."""


class Agent:
    """The agent's unix socket; nothing is sent before the first call."""

    def __init__(self, socket: Path) -> None:
        options = (
            ("grpc.default_authority", "localhost"),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        )
        self._channel = grpc.insecure_channel(f"unix://{socket.absolute()}", options=options)
        self._runtime = rpc.RuntimeStub(self._channel)

    def created(
        self, pod: Identity, container: str, container_id: str, held: tuple[int, Path]
    ) -> None:
        """It exists: `held` is its process and where that waits. Raises AgentAway."""
        pid, fifo = held
        request = pb.ContainerCreatedRequest(
            workload=_ref(pod),
            container=container,
            pid=pid,
            exec_fifo=str(fifo.absolute()),
            container_id=container_id,
        )
        try:
            self._runtime.ContainerCreated(request, timeout=_CALL_S)
        except grpc.RpcError as problem:
            raise AgentAway(str(problem)) from problem

    def exited(self, pod: Identity, container_id: str, exit_code: int) -> None:
        """It ended. Raises AgentAway."""
        request = pb.ContainerExitedRequest(
            workload=_ref(pod), container_id=container_id, exit_code=exit_code
        )
        try:
            self._runtime.ContainerExited(request, timeout=_CALL_S)
        except grpc.RpcError as problem:
            raise AgentAway(str(problem)) from problem

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _ref(pod: Identity) -> pb.WorkloadRef:
    return pb.WorkloadRef(namespace=pod.namespace, name=pod.name, pod_uid=pod.uid)
