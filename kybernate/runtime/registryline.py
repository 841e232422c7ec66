"""
A connection to the registry whose certificate follows its files.

Called by: agents. gRPC cannot change a channel's certificate, so a new one makes a new channel.
"""

import threading
from collections.abc import Sequence

from kybernate.api import names
from kybernate.clients.registry import Registry
from kybernate.runtime.tls import TlsFiles

SERVER = f"kyb-registry.{names.SYSTEM_NAMESPACE}.svc"


class RegistryLine:
    """Thread safe."""

    def __init__(self, addresses: Sequence[str], tls: TlsFiles) -> None:
        """`addresses` as of `Registry.at`."""
        self._addresses, self._tls = tuple(addresses), tls
        self._lock = threading.Lock()
        self._generation = -1
        self._registry: Registry | None = None

    def __call__(self) -> Registry:
        """The connection; not to be closed."""
        with self._lock:
            generation = self._tls.generation
            if self._registry is None or generation != self._generation:
                self._drop()
                credentials = self._tls.grpc_channel_credentials()
                self._registry = Registry.at(self._addresses, credentials, SERVER)
                self._generation = generation
            return self._registry

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._registry is not None:
            self._registry.close()
            self._registry = None
