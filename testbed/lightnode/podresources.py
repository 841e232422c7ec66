# ruff: noqa: N802, ARG002 (gRPC names the methods and their arguments)
"""
PodResources v1: which active pod has which devices, on the socket's usual protocol.

Called by: the node agent. `active` is asked for (namespace, name, uid) of every active pod.
"""

from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path

import grpc

from kybernate.clients.pb import podresources_pb2 as pb
from kybernate.clients.pb import podresources_pb2_grpc as rpc
from testbed.lightnode.book import Grant
from testbed.lightnode.plugins import Plugins

ActivePod = tuple[str, str, str]
_THREADS = 4


class PodResources(rpc.PodResourcesListerServicer):
    """The lister."""

    def __init__(self, plugins: Plugins, active: Callable[[], Iterable[ActivePod]]) -> None:
        self._plugins = plugins
        self._active = active

    def List(
        self, request: pb.ListPodResourcesRequest, call: grpc.ServicerContext
    ) -> pb.ListPodResourcesResponse:
        """Active pods, as since 1.34."""
        return pb.ListPodResourcesResponse(pod_resources=[self._of(pod) for pod in self._active()])

    def Get(
        self, request: pb.GetPodResourcesRequest, call: grpc.ServicerContext
    ) -> pb.GetPodResourcesResponse:
        """One pod, by name."""
        for pod in self._active():
            if pod[:2] == (request.pod_namespace, request.pod_name):
                return pb.GetPodResourcesResponse(pod_resources=self._of(pod))
        call.abort(grpc.StatusCode.NOT_FOUND, f"no pod {request.pod_namespace}/{request.pod_name}")
        raise AssertionError("abort returns never")

    def _of(self, pod: ActivePod) -> pb.PodResources:
        namespace, name, uid = pod
        by_container: dict[str, list[Grant]] = {}
        for grant in self._plugins.granted(uid):
            by_container.setdefault(grant.container, []).append(grant)
        return pb.PodResources(
            namespace=namespace,
            name=name,
            containers=[
                pb.ContainerResources(name=container, devices=[_devices(g) for g in grants])
                for container, grants in by_container.items()
            ],
        )


def _devices(grant: Grant) -> pb.ContainerDevices:
    return pb.ContainerDevices(resource_name=grant.resource, device_ids=grant.ids)


def serve(lister: PodResources, socket: Path) -> grpc.Server:
    """A started server; a socket left by a dead one is replaced."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="podresources"))
    rpc.add_PodResourcesListerServicer_to_server(lister, server)
    server.add_insecure_port(f"unix://{socket.absolute()}")
    server.start()
    return server
