"""Many light nodes in one process: there, ready, alive."""

import threading

import pytest

from kybernate.clients.resources import LEASES, NODES
from kybernate.runtime.clock import SystemClock
from testbed.lightnode import addresses
from testbed.lightnode.bulk import Bulk
from testbed.lightnode.nodeobject import NodeFacts

SEAT = "kyb.ai/gpu-1x-seat"


@pytest.mark.controlplane
def test_many_nodes_are_ready_and_stay_alive(admin, node_name, until):
    names = [f"{node_name}-{number}" for number in range(20)]
    facts = [NodeFacts(name=name, labels={"bulk": node_name}) for name in names]
    bulk = Bulk(admin, facts, {SEAT: (8, 8)}, SystemClock(), heartbeat=0.2)
    bulk.register()
    bulk.register()
    try:
        nodes = admin.list(NODES, label_selector=f"bulk={node_name}")
        assert len(nodes) == 20
        assert {node["status"]["allocatable"][SEAT] for node in nodes} == {"8"}
        before = admin.get(LEASES, names[-1], "kube-node-lease")["spec"]["renewTime"]
        stop = threading.Event()
        beating = threading.Thread(target=bulk.run, args=(stop,))
        beating.start()
        until(
            lambda: admin.get(LEASES, names[-1], "kube-node-lease")["spec"]["renewTime"] != before
        )
        stop.set()
        beating.join()
    finally:
        for name in names:
            admin.delete(NODES, name)


def test_nodes_side_by_side_have_other_addresses(tmp_path):
    one, other = addresses.prefix(tmp_path / "a"), addresses.prefix(tmp_path / "b")
    assert one != other
    assert not one.startswith("127.0.")
    assert addresses.pick(tmp_path / "a", {f"{one}1"}) == f"{one}2"


def test_a_node_whose_addresses_are_taken_says_so(tmp_path):
    taken = {f"{addresses.prefix(tmp_path)}{host}" for host in range(256)}
    with pytest.raises(addresses.NoAddress):
        addresses.pick(tmp_path, taken)
