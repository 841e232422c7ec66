"""The kubelet's PodResources on a unix socket, answering what a test wrote down."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from kybernate.clients.pb import podresources_pb2 as pb
from kybernate.clients.pb import podresources_pb2_grpc as rpc
from kybernate.model.ids import WorkloadKey


class FakeKubelet(rpc.PodResourcesListerServicer):
    """`seats` maps a pod to (resource, seat id). A context manager."""

    def __init__(self, socket: Path) -> None:
        self.seats: dict[WorkloadKey, tuple[str, str]] = {}
        self._server = grpc.server(ThreadPoolExecutor(4))
        rpc.add_PodResourcesListerServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix://{socket.absolute()}")

    def __enter__(self) -> "FakeKubelet":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def List(  # noqa: N802
        self,
        request: pb.ListPodResourcesRequest,  # noqa: ARG002
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.ListPodResourcesResponse:
        """Every pod with its devices."""
        found = [_pod(key, *given) for key, given in self.seats.items()]
        return pb.ListPodResourcesResponse(pod_resources=found)

    def Get(  # noqa: N802
        self, request: pb.GetPodResourcesRequest, context: grpc.ServicerContext
    ) -> pb.GetPodResourcesResponse:
        """One pod with its devices."""
        key = WorkloadKey(request.pod_namespace, request.pod_name)
        if key not in self.seats:
            context.abort(grpc.StatusCode.NOT_FOUND, str(key))
        return pb.GetPodResourcesResponse(pod_resources=_pod(key, *self.seats[key]))


def _pod(key: WorkloadKey, resource: str, seat: str) -> pb.PodResources:
    devices = pb.ContainerDevices(resource_name=resource, device_ids=[seat])
    container = pb.ContainerResources(name="model", devices=[devices])
    return pb.PodResources(name=key.name, namespace=key.namespace, containers=[container])
