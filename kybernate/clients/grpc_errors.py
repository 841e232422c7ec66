"""gRPC's errors, turned into our two families. Called by: the clients of agents and registry."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from kybernate.clients.errors import Refused, Retry

_REFUSED = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@contextmanager
def translated(away: type[Retry], refused: type[Refused]) -> Iterator[None]:
    """What asking again does not change becomes `refused`, all else `away`."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        text = error.details() if isinstance(error, grpc.Call) else str(error)
        kind = refused if code in _REFUSED else away
        raise kind(f"{code.name}: {text}") from error
