"""The registry's refusals, in our two families, and where gRPC's errors turn into them."""

from contextlib import AbstractContextManager

from kybernate.clients import grpc_errors
from kybernate.clients.errors import Refused, Retry


class RegistryAway(Retry):
    """Nobody answers, or its database does not. Told again later, it is told once."""


class RegistryRefused(Refused):
    """It cannot make sense of the request, or does not know us."""


def translated() -> AbstractContextManager[None]:
    """gRPC's errors become ours."""
    return grpc_errors.translated(RegistryAway, RegistryRefused)
