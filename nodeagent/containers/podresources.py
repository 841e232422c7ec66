"""
Which seat the kubelet gave to which container. Its ids are the truth (design section 8).

A port and its adapter to the kubelet's PodResources v1 on its unix socket.
"""

from pathlib import Path
from typing import Protocol

import grpc

from kybernate.api import names
from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.errors import Retry
from kybernate.clients.pb import podresources_pb2 as pb
from kybernate.clients.pb import podresources_pb2_grpc as rpc
from kybernate.model.gpu import Seat
from kybernate.model.ids import WorkloadKey

_TIMEOUT_S = 5.0


class KubeletAway(Retry):
    """The kubelet does not answer now."""


class Seats(Protocol):
    """The port. Raises KubeletAway."""

    def seats(self) -> dict[WorkloadKey, Seat]:
        """The seat of every pod that was given one."""


class KubeletSeats:
    """`Seats` from the kubelet."""

    def __init__(self, socket: Path) -> None:
        # An authority of our own: gRPC would send the socket's path, which the kubelet refuses.
        options = (
            ("grpc.default_authority", "localhost"),
            *FOUND_AGAIN,
        )
        self._channel = grpc.insecure_channel(f"unix://{socket.absolute()}", options=options)
        self._lister = rpc.PodResourcesListerStub(self._channel)

    def seats(self) -> dict[WorkloadKey, Seat]:
        """As the port says. Pods are named without a uid here, and one removed by force may still
        be listed beside its successor: while both are, nothing is said of either."""
        try:
            reply = self._lister.List(pb.ListPodResourcesRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            raise KubeletAway(str(error)) from error
        found: dict[WorkloadKey, set[Seat]] = {}
        for pod in reply.pod_resources:
            seat = _seat_of(pod)
            if seat is not None:
                found.setdefault(WorkloadKey(pod.namespace, pod.name), set()).add(seat)
        return {key: seats.pop() for key, seats in found.items() if len(seats) == 1}

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _seat_of(pod: pb.PodResources) -> Seat | None:
    """Admission sees to it that a pod has one; ids that are none of ours are left alone."""
    for container in pod.containers:
        for devices in container.devices:
            if not names.is_seat_resource(devices.resource_name):
                continue
            for text in devices.device_ids:
                try:
                    return Seat.parse(text)
                except ValueError:
                    continue
    return None
