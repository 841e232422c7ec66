"""An agent's refusals, in our two families, and where gRPC's errors turn into them."""

from contextlib import AbstractContextManager

from kybernate.clients import grpc_errors
from kybernate.clients.errors import Refused, Retry


class AgentAway(Retry):
    """Nobody answers, or not in time. What was asked for may still happen."""


class AgentRefused(Refused):
    """The agent cannot make sense of the request, or does not know us."""


def translated() -> AbstractContextManager[None]:
    """gRPC's errors become ours."""
    return grpc_errors.translated(AgentAway, AgentRefused)
