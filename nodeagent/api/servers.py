"""The servers: two unix sockets for the node, TCP with mTLS for the cluster."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from kybernate.clients import runtimecalls
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.clients.pb import copies_pb2_grpc, peerstore_pb2_grpc
from kybernate.runtime import addresses
from kybernate.runtime.callers import Callers
from kybernate.runtime.tls import TlsFiles
from nodeagent.api import callers
from nodeagent.api.agent_service import AgentService
from nodeagent.api.runtime_socket import RuntimeSocket
from nodeagent.checkpoints.copies import Copies
from nodeagent.checkpoints.lentstore import LentStore

# A request that waits for its turn keeps a thread. A node has at most tens of seats, each asked for
# by a few clients; beyond that callers are told to come again.
THREADS = 128
_OPTIONS = (
    ("grpc.max_receive_message_length", 1024 * 1024),  # the largest request is a list of seats
    ("grpc.so_reuseport", 0),  # a second agent must fail, not share
    ("grpc.keepalive_time_ms", 30_000),  # a node that lost its power must not borrow for ever
    ("grpc.keepalive_timeout_ms", 20_000),
)
_STOP_GRACE_S = 2.0


class Servers:
    """All of them. `start` returns when they can be called; the address is real then."""

    def __init__(
        self, agent: AgentService, runtime: RuntimeSocket, lent: LentStore, copies: Copies
    ) -> None:
        """`lent` and `copies` are for the cluster only: there it is known who calls."""
        self._agent, self._runtime = agent, runtime
        self._lent, self._copies = lent, copies
        self._running: list[grpc.Server] = []
        self.port = 0

    def start(self, socket: Path, listen: str | None, tls: TlsFiles | None) -> None:
        """Serve. Raises OSError where an address cannot be had."""
        self._serve_node(socket)
        self._runtime.start(runtimecalls.beside(socket))
        if listen and tls:
            self._serve_cluster(listen, tls)

    def stop(self) -> None:
        """End; requests that wait are told so."""
        endings = [server.stop(_STOP_GRACE_S) for server in self._running]
        for ending in endings:
            ending.wait()
        self._runtime.stop()

    def _serve_node(self, socket: Path) -> None:
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)  # of an agent before us
        server = _server()
        rpc.add_AgentServicer_to_server(self._agent, server)
        _bound(server.add_insecure_port(f"unix://{socket.absolute()}"), str(socket))
        server.start()
        socket.chmod(0o600)  # gRPC makes it for everybody
        self._running.append(server)

    def _serve_cluster(self, listen: str, tls: TlsFiles) -> None:
        host, port = addresses.parse_listen(listen)
        server = _server(callers.door())
        rpc.add_AgentServicer_to_server(self._agent, server)
        peerstore_pb2_grpc.add_PeerStoreServicer_to_server(self._lent, server)
        copies_pb2_grpc.add_CopiesServicer_to_server(self._copies, server)
        address = f"{host or '[::]'}:{port}"
        credentials = tls.grpc_server_credentials(require_client=True)
        self.port = _bound(server.add_secure_port(address, credentials), address)
        server.start()
        self._running.append(server)


def _server(*doors: Callers) -> grpc.Server:
    threads = ThreadPoolExecutor(THREADS, "grpc")
    return grpc.server(
        threads, interceptors=list(doors), options=_OPTIONS, maximum_concurrent_rpcs=THREADS
    )


def _bound(port: int, address: str) -> int:
    if port == 0:
        raise OSError(f"{address} is in use or not ours to serve on")
    return port
