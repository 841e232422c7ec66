# ruff: noqa: N802 (gRPC names the methods and their arguments)
"""
The kubelet's side of the device plugin protocol, over real gRPC on the real socket names.

Called by: device plugins (Registration), `podlife` (admit), `nodeobject` (counts), `podresources`.
Rule: as the kubelet does, it removes every socket in the folder when it starts, admits one pod at a
time, asks for a preference, and takes the preference as a hint.
"""

import json
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from pathlib import Path
from typing import NoReturn

import grpc

from kybernate.clients.pb import deviceplugin_pb2 as pb
from kybernate.clients.pb import deviceplugin_pb2_grpc as rpc
from testbed.lightnode.book import Book, Grant, Short

CHECKPOINT = "kubelet_internal_checkpoint"
SOCKET = "kubelet.sock"
VERSION = "v1beta1"
_CALL_S = 10.0
_THREADS = 8


class NotAdmitted(Exception):
    """The pod cannot have what it asks for; the kubelet fails it with this text."""


class _Endpoint:
    """One registered plugin."""

    def __init__(self, socket: Path, request: pb.RegisterRequest) -> None:
        self.resource = request.resource_name
        self.prefers = request.options.get_preferred_allocation_available
        options = (("grpc.default_authority", "localhost"),)
        self._channel = grpc.insecure_channel(f"unix://{socket.absolute()}", options=options)
        self.plugin = rpc.DevicePluginStub(self._channel)

    def close(self) -> None:
        self._channel.close()


class Plugins(rpc.RegistrationServicer):
    """Thread safe. `changed` is called after devices or their health changed."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._changed = changed
        self._lock = threading.RLock()
        self._admitting = threading.Lock()
        self._endpoints: dict[str, _Endpoint] = {}
        self._book = self._load()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Remove old sockets and listen for plugins."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.is_socket():
                path.unlink()
        server = grpc.server(futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="plugins"))
        rpc.add_RegistrationServicer_to_server(self, server)
        server.add_insecure_port(f"unix://{(self._folder / SOCKET).absolute()}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """Let go of plugins; what was given stays given."""
        if self._server:
            self._server.stop(None).wait()
        with self._lock:
            endpoints, self._endpoints = list(self._endpoints.values()), {}
        for endpoint in endpoints:
            endpoint.close()

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Resource -> (capacity, allocatable)."""
        with self._lock:
            return self._book.counts()

    def granted(self, uid: str) -> tuple[Grant, ...]:
        """What a pod was given."""
        with self._lock:
            return self._book.of(uid)

    def environment(self, uid: str) -> Mapping[str, str]:
        """The variables its plugins gave a pod's container."""
        found: dict[str, str] = {}
        for grant in self.granted(uid):
            found |= pb.ContainerAllocateResponse.FromString(grant.response).envs
        return found

    def knows(self, resource: str) -> bool:
        """Whether a plugin of this resource was ever here."""
        with self._lock:
            return resource in self._book.devices

    def admit(self, uid: str, container: str, wanted: Mapping[str, int]) -> None:
        """Give a container its devices; all or none. Raises NotAdmitted. Idempotent."""
        with self._admitting:
            had = {grant.resource for grant in self.granted(uid)}
            made = []
            for resource, count in wanted.items():
                if resource not in had:
                    made.append(self._allocate(uid, container, resource, count))
            with self._lock:
                self._book.grants += made
                self._save()

    def keep_only(self, uids: Collection[str]) -> None:
        """Take back what pods that ended had."""
        with self._lock:
            before = len(self._book.grants)
            self._book.drop(uids)
            if len(self._book.grants) != before:
                self._save()

    def Register(self, request: pb.RegisterRequest, call: grpc.ServicerContext) -> pb.Empty:
        """A plugin says it is there; it must listen already."""
        if request.version != VERSION:
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unsupported version {request.version!r}")
        endpoint = _Endpoint(self._folder / request.endpoint, request)
        try:
            endpoint.plugin.GetDevicePluginOptions(pb.Empty(), timeout=_CALL_S)
        except grpc.RpcError as problem:
            endpoint.close()
            call.abort(
                grpc.StatusCode.UNAVAILABLE, f"{request.endpoint} does not answer: {problem}"
            )
        with self._lock:
            before = self._endpoints.get(endpoint.resource)
            self._endpoints[endpoint.resource] = endpoint
        if before:
            before.close()
        name = f"devices-{endpoint.resource}"
        threading.Thread(target=self._follow, args=(endpoint,), name=name, daemon=True).start()
        return pb.Empty()

    def _follow(self, endpoint: _Endpoint) -> None:
        """Take in the plugin's devices until its stream ends."""
        try:
            for reply in endpoint.plugin.ListAndWatch(pb.Empty()):
                found = {one.ID: one.health == "Healthy" for one in reply.devices}
                self._see(endpoint, found)
        except (grpc.RpcError, ValueError):  # ValueError: the channel was closed meanwhile
            pass
        self._lose(endpoint)

    def _see(self, endpoint: _Endpoint, found: dict[str, bool]) -> None:
        with self._lock:
            if self._endpoints.get(endpoint.resource) is not endpoint:
                return
            self._book.devices[endpoint.resource] = found
            self._save()
        self._changed()

    def _lose(self, endpoint: _Endpoint) -> None:
        with self._lock:
            if self._endpoints.get(endpoint.resource) is not endpoint:
                return
            del self._endpoints[endpoint.resource]
            self._book.lose(endpoint.resource)
        endpoint.close()
        self._changed()

    def _allocate(self, uid: str, container: str, resource: str, count: int) -> Grant:
        with self._lock:
            endpoint = self._endpoints.get(resource)
            free = self._book.free(resource)
        try:
            preferred = self._preferred(endpoint, free, count)
            with self._lock:
                ids = self._book.choose(resource, count, preferred)
            if endpoint is None:
                raise Short(f"no plugin of {resource} is registered")
            request = pb.AllocateRequest(
                container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)]
            )
            reply = endpoint.plugin.Allocate(request, timeout=_CALL_S)
        except Short as short:
            raise NotAdmitted(f"Allocate failed due to {short}, which is unexpected") from short
        except grpc.RpcError as problem:
            _refuse(problem)
        response = reply.container_responses[0].SerializeToString()
        return Grant(uid, container, resource, ids, response)

    def _preferred(
        self, endpoint: _Endpoint | None, free: list[str], count: int
    ) -> Collection[str]:
        # As the real one, which asks with no choice, too (tests/deviceplugin/golden).
        if endpoint is None or not endpoint.prefers or count > len(free):
            return ()
        wish = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=free, allocation_size=count
        )
        request = pb.PreferredAllocationRequest(container_requests=[wish])
        try:
            reply = endpoint.plugin.GetPreferredAllocation(request, timeout=_CALL_S)
        except grpc.RpcError:
            return ()
        return tuple(one for each in reply.container_responses for one in each.deviceIDs)

    def _load(self) -> Book:
        path = self._folder / CHECKPOINT
        return Book.read(json.loads(path.read_text())) if path.exists() else Book()

    def _save(self) -> None:
        draft = self._folder / f".{CHECKPOINT}"
        draft.write_text(json.dumps(self._book.document()))
        draft.replace(self._folder / CHECKPOINT)


def _refuse(problem: grpc.RpcError) -> NoReturn:
    words = str(problem)
    if isinstance(problem, grpc.Call):
        words = f"rpc error: code = {problem.code().name} desc = {problem.details()}"
    raise NotAdmitted(f"Allocate failed due to {words}, which is unexpected") from problem
