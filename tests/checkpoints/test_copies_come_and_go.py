"""The Copies service between agents: a copy comes verified, and only goes where another is good.

Real: two nodes' stores, agents' services over mutual TLS, fetching. Faked: the API server.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.copies import Copies as Client
from kybernate.clients.pb import agent_pb2_grpc, copies_pb2_grpc
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.ids import NodeName
from kybernate.runtime.clock import SystemClock
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.copies import Copies, Means
from nodeagent.checkpoints.lending import Lending
from nodeagent.checkpoints.peers import SERVER
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"


class Node:
    """One node's agent, as far as checkpoints go."""

    def __init__(self, name: str, store: Store, agents: Any, kube: FakeKube) -> None:
        self.name, self.store, self._agents = NodeName(name), store, agents
        claims = Checkpoints(kube, self.name)
        self.publisher = Publisher(store, claims, SystemClock())
        means = Means(
            inventories=lambda: iter(()),
            store=store,
            peers=agents.peers(store),
            claims=claims,
            publisher=self.publisher,
            verify=lambda node, ref: self.client(node).verify(
                ref.namespace, ref.name, ref.signature
            ),
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        copies_pb2_grpc.add_CopiesServicer_to_server(Copies(means), self._server)
        agent_pb2_grpc.add_CheckpointsServicer_to_server(Lending(store), self._server)
        credentials = agents._serving.grpc_server_credentials()
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()
        agents.addresses[name] = f"127.0.0.1:{port}"

    def client(self, node: str = "") -> Client:
        address = self._agents.addresses[node or self.name]
        return Client.in_cluster(address, self._agents.client.grpc_channel_credentials(), SERVER)

    def stop(self) -> None:
        self._server.stop(None).wait()
        self.publisher.stop()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def nodes(
    agents: Any, kube: FakeKube, new_store: Callable[..., Store]
) -> Iterator[Callable[[str], Node]]:
    made: dict[str, Node] = {}

    def node(name: str) -> Node:
        if name not in made:
            made[name] = Node(name, new_store(name), agents, kube)
        return made[name]

    yield node
    for one in made.values():
        one.stop()


@pytest.fixture
def sealed(nodes: Callable[[str], Node], seal: Callable[..., Sealed]) -> Sealed:
    """On node-a, published."""
    one = nodes("node-a")
    made = seal(one.store)
    one.publisher.publish(made)
    assert one.publisher.flush(30)
    return made


def copies(kube: FakeKube) -> list[str]:
    return [one["node"] for one in kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)["status"]["copies"]]


def test_a_copy_comes_is_verified_and_told(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube
) -> None:
    there = nodes("node-b")
    with there.client() as client:
        moved = client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
        again = client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    assert (moved.source, moved.size) == ("node-a", sealed.size)
    assert again.source == ""
    assert there.store.open(NAMESPACE, NAME).signature == sealed.signature
    assert there.publisher.flush(30)
    assert copies(kube) == ["node-a", "node-b"]


def test_a_copy_goes_where_another_is_good(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube
) -> None:
    with nodes("node-b").client() as client:
        client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    assert nodes("node-b").publisher.flush(30)
    with nodes("node-a").client() as client:
        assert client.remove(NAMESPACE, NAME, sealed.signature).size == sealed.size
        assert client.remove(NAMESPACE, NAME, sealed.signature).size == 0
    assert copies(kube) == ["node-b"]
    assert nodes("node-a").store.all() == ()


def test_the_last_copy_stays(nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube) -> None:
    with (
        nodes("node-a").client() as client,
        pytest.raises(AgentRefused, match="no other copy is known to be good: there is none"),
    ):
        client.remove(NAMESPACE, NAME, sealed.signature)
    assert nodes("node-a").store.open(NAMESPACE, NAME)


def test_it_stays_where_the_other_is_damaged_or_away(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube
) -> None:
    other = nodes("node-b")
    with other.client() as client:
        client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    assert other.publisher.flush(30)
    (other.store.folder(NAMESPACE, NAME) / "gpu/0").write_bytes(b"altered")
    with nodes("node-a").client() as client:
        with pytest.raises(AgentRefused, match="node-b: a file has not the size"):
            client.remove(NAMESPACE, NAME, sealed.signature)
        other._server.stop(None).wait()
        with pytest.raises(AgentRefused, match="no other copy is known to be good: node-b"):
            client.remove(NAMESPACE, NAME, sealed.signature)
    assert copies(kube) == ["node-a", "node-b"]
    assert nodes("node-a").store.open(NAMESPACE, NAME)


def test_of_two_that_go_at_once_one_stays(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube
) -> None:
    with nodes("node-b").client() as client:
        client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    assert nodes("node-b").publisher.flush(30)
    begin, gone = threading.Barrier(2), list[str]()

    def go(name: str) -> None:
        with nodes(name).client() as client:
            begin.wait(30)
            try:
                client.remove(NAMESPACE, NAME, sealed.signature)
            except (AgentRefused, AgentAway):
                return
            gone.append(name)

    with futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(go, ("node-a", "node-b")))
    assert len(gone) <= 1
    [left] = {"node-a", "node-b"} - set(gone) if gone else {copies(kube)[0]}
    assert nodes(left).store.open(NAMESPACE, NAME)


def test_what_cannot_come_is_refused_in_words(
    nodes: Callable[[str], Node], sealed: Sealed, new_store: Callable[..., Store]
) -> None:
    with nodes("node-b").client() as client:
        with pytest.raises(AgentRefused, match="none is named"):
            client.bring(NAMESPACE, NAME, sealed.signature, [])
        with pytest.raises(AgentRefused, match="node-a: "):
            client.bring(NAMESPACE, NAME, "ed25519:aa:another", ["node-a"])
        with pytest.raises(AgentRefused, match="a name in it is not allowed"):
            client.bring("default", "../../etc", sealed.signature, ["node-a"])
    assert nodes("node-b").store.all() == ()


def test_verifying_says_what_is_wrong(nodes: Callable[[str], Node], sealed: Sealed) -> None:
    with nodes("node-a").client() as client:
        assert client.verify(NAMESPACE, NAME, sealed.signature) == ""
        (sealed.folder / "gpu/0").write_bytes(b"x")
        assert "a file has not the size" in client.verify(NAMESPACE, NAME, sealed.signature)
        assert "no such checkpoint" in client.verify(NAMESPACE, "other", sealed.signature)


def test_a_crash_between_telling_and_deleting_leaves_a_copy_that_is_told_again(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube, tmp_path: Path
) -> None:
    with nodes("node-b").client() as client:
        client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    one = nodes("node-a")
    assert nodes("node-b").publisher.flush(30)
    Checkpoints(kube, one.name).leave(NAMESPACE, NAME, sealed.signature)  # and then it died
    assert copies(kube) == ["node-b"]
    again = Publisher(one.store, Checkpoints(kube, one.name), SystemClock())
    again.start()
    assert again.flush(30)
    again.stop()
    assert sorted(copies(kube)) == ["node-a", "node-b"]
