"""
Being known to the kubelet, also to one that began anew.

A kubelet that starts removes every socket in the folder and makes a new `kubelet.sock`. So: where
our own socket is gone we listen again, and whenever `kubelet.sock` is another file than the one we
registered with, we register again. Until then the kubelet fails pods that ask for our seats.

Called by: `process`, in a thread of its own. Rule: the server listens before it is registered.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from deviceplugin import wire
from deviceplugin.server import PluginServer
from kybernate.clients.clock import Clock
from kybernate.clients.pb import deviceplugin_pb2 as pb
from kybernate.clients.pb import deviceplugin_pb2_grpc as rpc
from kybernate.model.ids import ResourceName
from kybernate.runtime.logs import get_logger

KUBELET_SOCKET = "kubelet.sock"
_PATIENCE_S = 10.0  # the kubelet dials back to us within its own 10 s


@dataclass(frozen=True, slots=True)
class KubeletLife:
    """One run of a kubelet, told from the next by the file it made."""

    inode: int
    changed: int  # nanoseconds; inodes are reused


class Registration:
    """Keeps one plugin server listening and registered."""

    def __init__(
        self, resource: ResourceName, server: PluginServer, plugin_dir: Path, clock: Clock
    ) -> None:
        self._resource = resource
        self._server = server
        self._kubelet = plugin_dir / KUBELET_SOCKET
        self._clock = clock
        self._known_to: KubeletLife | None = None
        self._wrong: str | None = "not registered with the kubelet yet"

    def run(self, stop: threading.Event, every: float) -> None:
        """Until stopped; then the socket is gone, and the kubelet takes the seats back."""
        try:
            self.look()
            while not self._clock.wait(stop, every):
                self.look()
        finally:
            self._server.stop()

    def look(self) -> None:
        """Do what is missing; what fails is tried again at the next look."""
        life = self._life()
        if life is not None and life == self._known_to and self._server.reachable:
            return
        try:
            if not self._server.reachable:
                self._server.start()
            if life is None:
                raise FileNotFoundError(f"no kubelet at {self._kubelet}")
            self._register()
        except (OSError, grpc.RpcError) as problem:
            self._fail(_words(problem))
            return
        self._known_to, self._wrong = life, None
        get_logger().info("registered", resource=self._resource)

    def fault(self) -> str | None:
        """For readiness: why we are not registered."""
        return self._wrong

    def _life(self) -> KubeletLife | None:
        try:
            found = self._kubelet.stat()
        except OSError:
            return None
        return KubeletLife(found.st_ino, found.st_ctime_ns)

    def _register(self) -> None:
        address = f"unix://{self._kubelet.absolute()}"
        options = (("grpc.default_authority", "localhost"),)
        with grpc.insecure_channel(address, options=options) as channel:
            rpc.RegistrationStub(channel).Register(
                pb.RegisterRequest(
                    version=wire.API_VERSION,
                    endpoint=self._server.socket.name,
                    resource_name=self._resource,
                    options=wire.options(),
                ),
                timeout=_PATIENCE_S,
            )

    def _fail(self, why: str) -> None:
        if why != self._wrong:
            get_logger().warning("not registered", resource=self._resource, why=why)
        self._known_to, self._wrong = None, why


def _words(problem: Exception) -> str:
    if isinstance(problem, grpc.Call):
        return f"the kubelet answers {problem.code().name}: {problem.details()}"
    return str(problem)
