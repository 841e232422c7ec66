"""
A model that goes on is sealed again and again: each time its difference is added, and any of the
checkpoints wakes with what the model had then.

Real and faked: as `conftest.py` says; the object store is a real S3 server (SeaweedFS). The
controller is not there: what its clock would ask for is asked here. Observed: the pods' answers,
the agents' word, the API server, the node's disk.
"""

import pytest

from kybernate.clients.copies import Copies
from kybernate.model.workload import State
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PORT, MIB = 8443, 2**20
COUNT = 4


def used(node) -> int:
    """Bytes of the checkpoints on its disk, by the disk."""
    folder = str(node.folder / "state/checkpoints")
    return int(node.real.run("du", "-sB1", folder).split()[0])


def put_into_the_store(pair, node, name) -> int:
    """Bytes that had to be put for it."""
    credentials = TlsFiles(node.shared / "client").grpc_channel_credentials()
    server = "kyb-nodeagent.kyb-system.svc"
    with Copies.in_cluster(f"{node.real.state.address}:{PORT}", credentials, server) as copies:
        signature = pair.checkpoint(name)["status"]["signature"]
        return copies.demote("default", name, signature, lambda *_: None).put


def test_each_snapshot_adds_its_difference_and_any_of_them_wakes(pair):
    one, _ = pair.nodes
    pair.run("model", one)
    disk = []
    for number in range(1, COUNT + 1):
        assert pair.predict("model")["counter"] == number
        assert pair.seal("model", one, f"s{number}").ok
        one.await_state("model", State.ACTIVE)  # and goes on
        disk.append(used(one))
    said = [
        wait_for(lambda n=n: paused(pair, n), "the pause is told", 30.0)
        for n in range(1, COUNT + 1)
    ]
    for number, status in enumerate(said):
        pause = status["pause"]
        print(
            f"s{number + 1}: {status['sizeBytes'] / MIB:.1f} MiB, written "
            f"{status['writtenBytes'] / MIB:.1f}, added {status['addedBytes'] / MIB:.1f}, disk "
            f"{disk[number] / MIB:.1f}, pause {pause['seconds']:.2f} s: "
            + ", ".join(f"{p['name']} {p['seconds']:.2f}" for p in pause["phases"])
        )
        assert pause["seconds"] > 0
        assert {"copy out", "dump", "contents", "copy in"} <= {p["name"] for p in pause["phases"]}
    first, others = said[0], said[1:]
    assert first["addedBytes"] < 1.01 * first["sizeBytes"]
    for before, after, status in zip(disk, disk[1:], others, strict=False):
        assert status["addedBytes"] < first["addedBytes"] / 2
        assert after - before < status["addedBytes"] + 2 * MIB

    puts = [put_into_the_store(pair, one, f"s{number}") for number in range(1, COUNT + 1)]
    print(f"put into the store: {[round(put / MIB, 1) for put in puts]} MiB")
    assert max(puts[1:]) < puts[0]

    assert pair.predict("model")["counter"] == COUNT + 1
    pair.delete("model")
    for number in (2, 1, COUNT):
        pair.run(f"again-{number}", one, **{"restore-from": f"s{number}"})
        answer = pair.predict(f"again-{number}")
        assert (answer["counter"], answer["intact"]) == (number + 1, True), pair.told(
            f"again-{number}"
        )
        pair.delete(f"again-{number}")


def paused(pair, number):
    """Its status, once it says how long its workload stood still."""
    status = pair.checkpoint(f"s{number}").get("status") or {}
    return status if "pause" in status else None
