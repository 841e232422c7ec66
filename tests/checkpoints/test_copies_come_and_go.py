"""The Copies service between agents: a copy comes verified, and only goes where another is good.

Real: two nodes' stores, agents' services over mutual TLS, fetching. Faked: the API server.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.runtime.clock import SystemClock
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
Node = Any


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
        freed = nodes("node-a").store.freed_by_deleting(NAMESPACE, NAME)
        assert freed == sealed.manifest.packed
        assert client.remove(NAMESPACE, NAME, sealed.signature).size == freed
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
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube, rot: Callable[..., None]
) -> None:
    other = nodes("node-b")
    with other.client() as client:
        client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"])
    assert other.publisher.flush(30)
    rot(sealed, "node-b")
    with nodes("node-a").client() as client:
        with pytest.raises(AgentRefused, match="node-b: a pack of its contents is not"):
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
        with pytest.raises(AgentRefused, match="no source is named"):
            client.bring(NAMESPACE, NAME, sealed.signature, [])
        with pytest.raises(AgentRefused, match="node-a: "):
            client.bring(NAMESPACE, NAME, "ed25519:aa:another", ["node-a"])
        with pytest.raises(AgentRefused, match="a name in it is not allowed"):
            client.bring("default", "../../etc", sealed.signature, ["node-a"])
    assert nodes("node-b").store.all() == ()


def test_verifying_says_what_is_wrong(
    nodes: Callable[[str], Node], sealed: Sealed, rot: Callable[..., None]
) -> None:
    with nodes("node-a").client() as client:
        assert client.verify(NAMESPACE, NAME, sealed.signature) == ""
        rot(sealed)
        assert "a pack of its contents is not what was sealed" in client.verify(
            NAMESPACE, NAME, sealed.signature
        )
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
