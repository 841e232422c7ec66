"""
A workload is sealed on one node and demoted into object storage; that node is lost, and the
workload goes on on another one from there. Copies come and go; agents are killed meanwhile, and the
store goes away.

Real and faked: as `conftest.py` says; the object store is a real S3 server (SeaweedFS). The
controller is not there: what it would ask of agents for a TierPlacement is asked here. Observed:
the pods' answers, the agents' word, the API server.
"""

import itertools
import threading
import time

import pytest

from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.copies import Copies
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PATIENCE_S = 90.0  # two busy cores
PORT = 8443

MIB = 2**20
_numbers = itertools.count(1)  # of checkpoints: what has a name in the store keeps it for a while


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
    node.real.run("rm", "-rf", str(node.folder / "state/checkpoints/manifests/default"))


@pytest.fixture
def sealed(pair):
    """The name of a checkpoint: of a model that has counted to two, on the first node, and was
    deleted."""
    name = f"in-the-store-{next(_numbers)}"
    one, _ = pair.nodes
    pair.run("before", one)
    pair.predict("before")
    assert pair.predict("before")["counter"] == 2
    assert pair.seal("before", one, name, leave_parked=True).ok
    pair.delete("before")
    return name


def test_the_node_is_lost_and_it_goes_on_on_the_other_from_object_storage(pair, sealed):
    one, other = pair.nodes
    steps: list[tuple[int, int, float]] = []
    moved = demote(pair, one, sealed, lambda *step: steps.append(step))
    size = pair.checkpoint(sealed)["status"]["sizeBytes"]
    print(f"demoted {size / MIB:.0f} MiB in {moved.seconds:.2f} s, {moved.put / MIB:.0f} MiB put")
    assert moved.size == size
    assert 0 < moved.put <= size * 1.05
    assert where(pair, sealed) == ["object", one.name]
    assert demote(pair, one, sealed).put == 0

    lost(one)
    began = time.monotonic()
    pair.run("after", other, **{"restore-from": sealed})
    answer = pair.predict("after")
    seconds = time.monotonic() - began
    status = wait_for(lambda: pair.switch("after"), "the switch is written", 60.0)
    phases = {phase["name"]: phase["seconds"] for phase in status["phases"]}
    print(f"create to the next number {seconds:.2f} s, of it {phases}")
    assert (answer["counter"], answer["intact"]) == (3, True), pair.told("after")
    assert set(where(pair, sealed)) >= {"object", other.name}


def test_the_nodes_copy_goes_and_comes_back_from_there(pair, sealed):
    """What a TierPlacement with tier object and others: Remove asks for; then one for a node."""
    one, other = pair.nodes
    demote(pair, one, sealed)
    signature = pair.checkpoint(sealed)["status"]["signature"]
    with copies_of(one) as copies:
        assert copies.remove("default", sealed, signature).size > 0
    assert where(pair, sealed) == ["object"]
    with copies_of(other) as copies:
        moved = copies.bring("default", sealed, signature, [], from_store=True)
        with pytest.raises(AgentRefused, match="not the one that was published"):
            copies.bring("default", sealed, "ed25519:other", [], from_store=True)
    assert moved.source == "object"
    wait_for(lambda: where(pair, sealed) == ["object", other.name], "it is told", 60.0)
    with copies_of(other) as copies:
        copies.withdraw("default", sealed, signature)
    assert where(pair, sealed) == [other.name]
    pair.run("after", one, **{"restore-from": sealed})
    assert pair.predict("after")["counter"] == 3


def test_agents_killed_while_they_demote_and_fetch_go_on(pair, sealed):
    """kill -9 in the middle: what is in the store, and on the disk, is not moved again."""
    one, other = pair.nodes
    half = threading.Event()

    def told(done: int, total: int, _: float) -> None:
        if done > total // 3:
            half.set()

    thread = threading.Thread(target=_broken_off, args=(pair, one, sealed, told))
    thread.start()
    half.wait(PATIENCE_S)
    one.restart_agent()
    thread.join(PATIENCE_S)
    moved = demote(pair, one, sealed)
    assert where(pair, sealed) == ["object", one.name]
    print(f"after the kill {moved.put / MIB:.0f} of {moved.size / MIB:.0f} MiB had to be put")
    lost(one)
    pair.run("after", other, wait=False, **{"restore-from": sealed})
    other.restart_agent()
    answer = pair.predict("after")
    assert (answer["counter"], answer["intact"]) == (3, True), pair.told("after")


def _broken_off(pair, node, name, told):
    with pytest.raises((AgentAway, AgentRefused)):
        demote(pair, node, name, told)


def test_a_store_that_is_away_while_a_pod_wakes_comes_back(pair, sealed):
    one, other = pair.nodes
    demote(pair, one, sealed)
    lost(one)
    pair.objects.kill()
    try:
        pair.run("after", other, wait=False, **{"restore-from": sealed})
        wait_for(lambda: other.state("after"), "the agent has it, and asks", PATIENCE_S)
    finally:
        pair.objects.start_again()
    answer = pair.predict("after")
    assert (answer["counter"], answer["intact"]) == (3, True), pair.told("after")
