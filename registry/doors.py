"""
The gRPC server, and who may call it. Called by: `process`.

Rule: only agents tell what happened. An inventory comes from agents, or from `kyb registry
rebuild`, which had it from them. Asking is for agents, the controller and kyb.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc

from kybernate.api import names
from kybernate.clients.pb import registry_pb2_grpc as rpc
from kybernate.runtime import addresses
from kybernate.runtime.callers import Callers
from kybernate.runtime.tls import TlsFiles
from registry.service import Service

SERVER = "kyb-registry"
THREADS = 48
GRACE_S = 5.0  # for calls under way at a stop
_AGENTS = frozenset({names.AGENT_CLIENT.encode()})
_ASKING = _AGENTS | {names.CLIENT.encode()}
_REFUSED = "this certificate is not one of those who may do this"
_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.so_reuseport", 0),  # a second registry must fail, not share
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def allowed(method: str) -> frozenset[bytes]:
    """Whose certificates may call it."""
    return _AGENTS if method == "Record" else _ASKING


class Server:
    """Serves one service. `port` is real after `start`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self, listen: str, tls: TlsFiles | None) -> None:
        """Serve; in plain text without `tls`. Raises OSError where the address cannot be had."""
        server = grpc.server(
            ThreadPoolExecutor(THREADS, "grpc"),
            interceptors=[Callers(allowed, _REFUSED)] if tls else [],
            options=_OPTIONS,
            maximum_concurrent_rpcs=THREADS,
        )
        rpc.add_RegistryServicer_to_server(self._service, server)
        host, port = addresses.parse_listen(listen)
        address = f"{host or '[::]'}:{port}"
        if tls:
            port = server.add_secure_port(address, tls.grpc_server_credentials())
        else:
            port = server.add_insecure_port(address)
        if port == 0:
            raise OSError(f"{address} is in use or not ours to serve on")
        server.start()
        self._server, self.port = server, port

    def stop(self) -> None:
        """Take no new calls; those under way end."""
        self._service.close()
        if self._server is not None:
            self._server.stop(GRACE_S).wait()
