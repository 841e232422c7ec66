"""
The node agent's preference: it knows which pods are bound here and what they wish for.

Called by: `server`, while the kubelet waits. Rule: a preference is a hint, so whatever goes wrong
here means "no preference", is logged, and never keeps a pod from starting.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import grpc

from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.runtime.logs import get_logger

_PATIENCE_S = 2.0  # the kubelet admits one pod at a time, so the others wait too


class Agent:
    """The agent's unix socket. Nothing is sent before the first question."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix://{socket.absolute()}",
            options=(
                ("grpc.default_authority", "localhost"),
                *FOUND_AGAIN,
            ),
        )
        self._agent = rpc.AgentStub(self._channel)

    def prefer(
        self, resource: str, available: Collection[str], must_include: Sequence[str], size: int
    ) -> tuple[str, ...] | None:
        """Its choice, or None where it has none that can be had."""
        request = pb.PreferSeatsRequest(
            resource=resource, available=available, must_include=must_include, size=size
        )
        try:
            chosen = tuple(self._agent.PreferSeats(request, timeout=_PATIENCE_S).seats)
        except grpc.RpcError as problem:
            get_logger().info("agent has no preference", resource=resource, why=str(problem.code()))
            return None
        sound = set(must_include) <= set(chosen) <= set(available) | set(must_include)
        if len(set(chosen)) != size or len(chosen) != size or not sound:
            get_logger().warning("agent prefers what cannot be had", seats=chosen, size=size)
            return None
        return chosen

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
