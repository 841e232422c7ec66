"""
A workload is sealed on one node and demoted into object storage; that node is lost, and the
workload goes on on another one from there.

Real and faked: as `conftest.py` says; the object store is a real S3 server (SeaweedFS). The
controller is not there: what it would ask of agents for a TierPlacement is asked here. Observed:
the pods' answers, the agents' word, the API server.
"""

import time

import pytest

from kybernate.clients.copies import Copies
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PORT = 8443

MIB = 2**20


def copies_of(node) -> Copies:
    """The agent's Copies service."""
    credentials = TlsFiles(node.shared / "client").grpc_channel_credentials()
    return Copies.in_cluster(
        f"{node.real.state.address}:{PORT}", credentials, "kyb-nodeagent.kyb-system.svc"
    )


def demote(pair, node, name, told=lambda *_: None):
    signature = pair.checkpoint(name)["status"]["signature"]
    with copies_of(node) as copies:
        return copies.demote("default", name, signature, told)


def where(pair, name):
    found = pair.checkpoint(name)["status"]["copies"]
    return sorted(one.get("node") or one["tier"] for one in found)


def lost(node):
    """The node's disk: its agent is dead, and so is every checkpoint on it."""
    node.kill_agent()
    node.real.run("rm", "-rf", str(node.folder / "state/checkpoints/sealed/default"))


@pytest.fixture
def sealed(pair):
    """A model that has counted to two, sealed on the first node, and deleted; its answer."""
    one, _ = pair.nodes
    pair.run("before", one)
    pair.predict("before")
    answer = pair.predict("before")
    assert answer["counter"] == 2
    assert pair.seal("before", one, "in-the-store", leave_parked=True).ok
    pair.delete("before")
    return answer


def test_the_node_is_lost_and_it_goes_on_on_the_other_from_object_storage(pair, sealed):
    one, other = pair.nodes
    steps: list[tuple[int, int, float]] = []
    moved = demote(pair, one, "in-the-store", lambda *step: steps.append(step))
    size = pair.checkpoint("in-the-store")["status"]["sizeBytes"]
    print(f"demoted {size / MIB:.0f} MiB in {moved.seconds:.2f} s, {moved.put / MIB:.0f} MiB put")
    assert moved.size == size
    assert 0 < moved.put <= size * 1.05
    assert where(pair, "in-the-store") == ["object", one.name]
    assert demote(pair, one, "in-the-store").put == 0

    lost(one)
    began = time.monotonic()
    pair.run("after", other, **{"restore-from": "in-the-store"})
    answer = pair.predict("after")
    seconds = time.monotonic() - began
    status = wait_for(lambda: pair.switch("after"), "the switch is written", 60.0)
    phases = {phase["name"]: phase["seconds"] for phase in status["phases"]}
    print(f"create to the next number {seconds:.2f} s, of it {phases}")
    assert (answer["counter"], answer["intact"]) == (3, True), pair.told("after")
    assert set(where(pair, "in-the-store")) >= {"object", other.name}
