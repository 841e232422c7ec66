"""Which seat the kubelet gave to whom. Faked: the kubelet, on a real socket; a real one is asked in
tests/node."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kybernate.clients.pb import podresources_pb2 as pb
from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName, WorkloadKey
from kybernate.testing.agentnode import wait_for
from kybernate.testing.fakekubelet import FakeKubelet
from nodeagent.containers.podresources import KubeletAway, KubeletSeats

KEY = WorkloadKey("default", "a")
RESOURCE = "kyb.ai/gpu-1x-seat"


@pytest.fixture
def socket() -> Iterator[Path]:
    """A short path: a unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder:
        yield Path(folder) / "podres.sock"


@pytest.fixture
def seats(socket: Path) -> Iterator[KubeletSeats]:
    asked = KubeletSeats(socket)
    yield asked
    asked.close()


def test_every_pods_seat_is_told(socket: Path, seats: KubeletSeats) -> None:
    with FakeKubelet(socket) as kubelet:
        kubelet.seats[KEY] = (RESOURCE, "G0/1")
        kubelet.seats[WorkloadKey("default", "b")] = ("nvidia.com/gpu", "GPU-1")
        assert seats.seats() == {KEY: Seat(GroupName("G0"), 1)}


def test_of_two_pods_with_one_name_neither_is_told(socket: Path, seats: KubeletSeats) -> None:
    class Twice(FakeKubelet):
        """The former pod, removed by force, is still listed beside its successor."""

        def List(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
            listed = super().List(request, context).pod_resources
            before = pb.PodResources.FromString(listed[0].SerializeToString())
            before.containers[0].devices[0].device_ids[:] = ["G0/3"]
            return pb.ListPodResourcesResponse(pod_resources=[before, *listed])

    with Twice(socket) as kubelet:
        kubelet.seats[KEY] = (RESOURCE, "G0/1")
        assert seats.seats() == {}


def test_a_kubelet_that_began_anew_is_asked_as_before(socket: Path, seats: KubeletSeats) -> None:
    with FakeKubelet(socket) as kubelet:
        kubelet.seats[KEY] = (RESOURCE, "G0/1")
        assert KEY in seats.seats()
    socket.unlink(missing_ok=True)
    with pytest.raises(KubeletAway):
        seats.seats()

    def known() -> bool:
        try:
            return KEY in seats.seats()
        except KubeletAway:
            return False

    with FakeKubelet(socket) as kubelet:
        kubelet.seats[KEY] = (RESOURCE, "G0/1")
        wait_for(known, "it answers")
