"""An agent's refusals, in our two families, and where gRPC's errors turn into them."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from kybernate.clients.errors import Refused, Retry


class AgentAway(Retry):
    """Nobody answers, or not in time. What was asked for may still happen."""


class AgentRefused(Refused):
    """The agent cannot make sense of the request, or does not know us."""


_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@contextmanager
def translated() -> Iterator[None]:
    """gRPC's errors become ours."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        text = error.details() if isinstance(error, grpc.Call) else str(error)
        kind = AgentRefused if code in _REFUSED else AgentAway
        raise kind(f"{code.name}: {text}") from error
