"""
A store that is lent over gRPC and mutual TLS, as agents lend theirs, and what borrows it.

Called by: tests of stores and of `kyb`, benchmarks. The servicer is the caller's: the testbed knows
no process from inside.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from kybernate.api import names
from kybernate.clients.reaching import SERVER
from kybernate.runtime.tls import TlsFiles
from kybernate.stores.peer import Peer
from testbed.pki import Authority

_MIB = 1024 * 1024
_OPTIONS = (  # as an agent's cluster port has them
    ("grpc.max_receive_message_length", _MIB),
    ("grpc.so_reuseport", 0),
)


class Lender:
    """One agent's cluster port. `add` has the services; `address` is HOST:PORT, also after an
    end and a new beginning."""

    def __init__(self, folder: Path, add: Callable[[grpc.Server], None]) -> None:
        self.authority, self._add = Authority(folder / "pki"), add
        self._serving = TlsFiles(self.authority.mounted(SERVER))
        self._server: grpc.Server | None = None
        self._port = 0
        self.begin()

    @property
    def address(self) -> str:
        """Where it is, or was."""
        return f"127.0.0.1:{self._port}"

    def begin(self) -> None:
        """Serve, at the same port as before."""
        server = grpc.server(ThreadPoolExecutor(64), options=_OPTIONS)
        self._add(server)
        credentials = self._serving.grpc_server_credentials()
        self._port = server.add_secure_port(f"127.0.0.1:{self._port}", credentials)
        server.start()
        self._server = server

    def end(self) -> None:
        """Connections break. Twice is fine."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def identity(self, name: str = names.AGENT_CLIENT) -> Path:
        """The folder of a client's certificate."""
        return self.authority.mounted(name)

    def credentials(self, name: str = names.AGENT_CLIENT) -> grpc.ChannelCredentials:
        """Of that client."""
        return TlsFiles(self.identity(name)).grpc_channel_credentials()

    def peer(self, name: str = names.AGENT_CLIENT, *, timeout: float = 60.0) -> Peer:
        """What borrows from it by this name."""
        return Peer(self.address, lambda: self.credentials(name), timeout=timeout)
