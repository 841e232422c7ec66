"""The device's refusals, in our two families, and where gRPC's errors turn into them."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from kybernate.clients.errors import Refused, Retry


class OutOfMemory(Refused):
    """The card has no room for it now; nothing changed."""


class ContextGone(Refused):
    """No such context, segment or card: its process ended, or the device was started anew."""


class NotNow(Refused):
    """It is open where it must be locked, the other way round, or the request makes no sense."""


class DeviceAway(Retry):
    """The device is not there, the card is sick, or it took too long."""


class Disconnected(Retry):
    """The workload was told to let go of the device, and may come back later."""


_KINDS: dict[grpc.StatusCode, type[Refused] | type[Retry]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: OutOfMemory,
    grpc.StatusCode.NOT_FOUND: ContextGone,
    grpc.StatusCode.FAILED_PRECONDITION: NotNow,
    grpc.StatusCode.INVALID_ARGUMENT: NotNow,
    grpc.StatusCode.ABORTED: Disconnected,
}


@contextmanager
def translated() -> Iterator[None]:
    """gRPC's errors become ours."""
    try:
        yield
    except grpc.RpcError as error:
        raise _of(error) from error


def _of(error: grpc.RpcError) -> Exception:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    return _KINDS.get(code, DeviceAway)(text or code.name)
