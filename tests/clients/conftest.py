"""
Clients against three servers that must not differ: in memory, the same over HTTP, and the real one.

Real (marker controlplane): etcd and kube-apiserver. Faked: elsewhere the API server. Observed: only
what clients are told. Rule: every test works in a namespace of its own.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kybernate.clients.kube import Kube
from kybernate.clients.resources import NAMESPACES, SERVICEACCOUNTS
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from testbed.controlplane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "manifests"
REAL = pytest.param("plane", marks=pytest.mark.controlplane)
_PATIENCE_S = 30.0
_numbers = itertools.count(1)


@pytest.fixture(params=["memory", "http", REAL])
def kube(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kube]:
    """A client of each kind of server, as its administrator."""
    if request.param == "plane":
        client = Kube.from_kubeconfig(request.getfixturevalue("plane_with_kinds").admin_kubeconfig)
        yield client
        client.close()
    elif request.param == "http":
        with FakeHttp(FakeKube()) as served:
            client = Kube.from_kubeconfig(served.kubeconfig(tmp_path / "kubeconfig"))
            yield client
            client.close()
    else:
        yield FakeKube()


@pytest.fixture(scope="session")
def plane_with_kinds(plane: ControlPlane) -> ControlPlane:
    """The real control plane, knowing our custom resources."""
    plane.kubectl("apply", "-k", str(MANIFESTS / "components/crd"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return plane


@pytest.fixture
def namespace(request: pytest.FixtureRequest, kube: Kube) -> str:
    """A namespace of the test's own in which pods can be created."""
    name = f"clients-{next(_numbers)}-{time.time_ns():x}"
    kube.create(NAMESPACES, {"metadata": {"name": name}})
    # The real one refuses pods until its controller has made the account; the fakes do not ask.
    if request.node.callspec.params["kube"] == "plane":
        until(lambda: any(kube.list(SERVICEACCOUNTS, name)))
    return name


def until(holds: Callable[[], bool], seconds: float = _PATIENCE_S) -> None:
    """Look again until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"does not hold within {seconds} s"
        time.sleep(0.002)
