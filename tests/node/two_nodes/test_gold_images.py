"""
A model is sealed as a gold image, and replicas of two namespaces wake from it on both nodes.

Real and faked: as `conftest.py` says; agents ask policy, whose word here is a set of pairs.
Observed: the pods' answers and identities, the agents' word, the API server.
"""

import pytest

from kybernate.clients.copies import Copies
from kybernate.model.ids import WorkloadKey
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

MIB = 2**20
PORT = 8443


def copies_of(node) -> Copies:
    """The agent's Copies service."""
    credentials = TlsFiles(node.shared / "client").grpc_channel_credentials()
    address = f"{node.real.state.address}:{PORT}"
    return Copies.in_cluster(address, credentials, "kyb-nodeagent.kyb-system.svc")


@pytest.fixture
def gold(pair):
    """Of a model that has counted to two, on the first node; its answer."""
    one, _ = pair.nodes
    pair.run("original", one)
    pair.predict("original")
    answer = pair.predict("original")
    assert pair.seal("original", one, "llama", leave_parked=True, gold=True).ok
    pair.delete("original")
    return answer


def test_replicas_go_on_from_it_and_the_second_on_a_node_fetches_nothing(pair, gold):
    one, other = pair.nodes
    assert pair.checkpoint("llama")["spec"]["gold"] is True
    pair.run("home", one, **{"restore-from": "llama"})
    pair.run("first", other, **{"restore-from": "llama"})
    size = pair.checkpoint("llama")["status"]["sizeBytes"]
    answers = {name: pair.predict(name) for name in ("home", "first")}
    nodes = {c["node"] for c in pair.checkpoint("llama")["status"]["copies"]}
    assert nodes == {one.name, other.name}
    with other.agent() as agent:
        assert agent.park(WorkloadKey("default", "first"), within=60.0).ok
    one.kill_agent()  # nobody else could give it
    try:
        pair.run("second", other, **{"restore-from": "llama"})
        answers["second"] = pair.predict("second")
    finally:
        one.restart_agent()
    for name, answer in answers.items():
        assert (answer["counter"], answer["intact"]) == (gold["counter"] + 1, True), pair.told(name)
    assert "claim" not in pair.checkpoint("llama")["status"]
    print(f"{size / MIB:.0f} MiB, three replicas on two nodes")
    addresses = {pair.pod(name)["status"]["podIP"] for name in answers}
    assert len(addresses) == 3


def test_another_namespace_wakes_from_it_where_policy_shares_it(pair, gold):
    one, _ = pair.nodes
    pair.opa.shared.add(("default", "team"))
    pair.plane.kubectl("create", "namespace", "team")
    try:
        pair.run("theirs", one, namespace="team", **{"restore-from": "default/llama"})
        answer = pair.predict("theirs")
        assert (answer["counter"], answer["intact"]) == (gold["counter"] + 1, True)
        pair.opa.shared.clear()
        pair.run("denied", one, namespace="team", **{"restore-from": "default/llama"})
        wait_for(lambda: "does not share" in pair.told("denied"), "people are told why", 60.0)
    finally:
        pair.opa.shared.clear()
        pair.plane.kubectl("delete", "namespace", "team", "--wait=false")


def test_in_the_bucket_it_has_a_domain_of_its_own_which_is_collected_when_it_is_gone(pair, gold):
    one, other = pair.nodes
    signature = pair.checkpoint("llama")["status"]["signature"]
    domain = "gold.default.llama"
    with copies_of(one) as copies:
        copies.demote("default", "llama", signature)
        there = {found.domain: found for found in copies.collect(3600.0, dry_run=True)}
        assert there[domain].named > 0
        copies.withdraw("default", "llama", signature)
    with copies_of(other) as copies:
        for _ in range(2):  # seen unnamed, then gone
            done = {found.domain: found for found in copies.collect(0.0)}
        assert (done[domain].named, done[domain].alone) == (0, "")
        left = {found.domain: found for found in copies.collect(0.0)}
        assert left[domain].gone == left[domain].named == left[domain].waiting == 0
