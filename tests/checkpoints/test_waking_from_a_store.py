"""A pod names a checkpoint of which no node has a copy any more: its agent has it from the store.

Real: the agents' candidates, claims, peers over mutual TLS, stores on a disk, keys. Faked: the API
server; the object store is in memory. The pod's container: tests/node.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import packs
from kybernate.clients.errors import Refused
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Fingerprint
from kybernate.runtime.clock import SystemClock
from kybernate.stores.ram import Ram
from kybernate.testing.builders import a_workload
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy
from nodeagent.checkpoints.fetching import Fetched
from nodeagent.checkpoints.objects import Given, NoStore, Objects
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.waking.candidates import Candidates

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
Node = Any


def whole(sealed: Sealed) -> None:
    """Take all of it, as a wake does."""
    for file in sealed.manifest.files:
        assert sum(map(len, sealed.read(file.path))) == file.size


@pytest.fixture
def bucket() -> Ram:
    return Ram(2**30, SystemClock().now)


@pytest.fixture
def candidates() -> Callable[[Node], Candidates]:
    """As the agent of that node has them."""
    return lambda node: Candidates(
        node=node.name,
        store=node.store,
        peers=node.peers,
        objects=node.objects,
        claims=node.claims,
        publish=node.publisher.publish,
        policy=FakePolicy(),
    )


def demoted(node: Node, sealed: Sealed) -> None:
    with node.client() as client:
        client.demote(NAMESPACE, NAME, sealed.signature)


def copies(kube: FakeKube) -> list[str]:
    found = kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)["status"]["copies"]
    return sorted(one.get("node") or one["tier"] for one in found)


def test_it_wakes_where_the_node_that_sealed_it_is_lost(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube, here: Fingerprint,
    candidates: Callable[[Node], Candidates],
) -> None:  # fmt: skip
    demoted(nodes("node-a"), sealed)
    nodes("node-a").stop()
    nodes("node-a").store.delete(NAMESPACE, NAME)
    other, seen = nodes("node-b"), list[Fetched]()
    ours = candidates(other)
    claimed = ours.claim(a_workload("llama-0"), NAME)
    found = ours.have(claimed, here, whole, seen.append)
    assert (found.signature, found.opened.blob) == (sealed.signature, sealed.opened.blob)
    assert (seen[-1].done, seen[-1].total) == (sealed.manifest.packed,) * 2
    assert other.publisher.flush(30)
    assert copies(kube) == ["node-a", "node-b", "object"]


def test_a_damaged_copy_is_replaced_by_the_stores(
    nodes: Callable[[str], Node], sealed: Sealed, here: Fingerprint,
    candidates: Callable[[Node], Candidates], rot: Callable[..., None],
) -> None:  # fmt: skip
    one = nodes("node-a")
    demoted(one, sealed)
    rot(sealed)
    ours = candidates(one)
    claimed = ours.claim(a_workload("llama-0"), NAME)
    used: list[str] = []

    def use(found: Sealed) -> None:
        used.append("begun")
        whole(found)  # noticed while it is read
        used.append("ended")

    ours.have(claimed, here, use)
    assert used == ["begun", "begun", "ended"]
    assert one.store.open(NAMESPACE, NAME)


def test_it_is_used_while_it_comes(
    nodes: Callable[[str], Node], facts: Callable[..., Any], here: Fingerprint, bucket: Ram,
    candidates: Callable[[Node], Candidates], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The last pack does not come before the first was read."""
    monkeypatch.setattr(packs, "FULL", 2**20)
    one, other = nodes("node-a"), nodes("node-b")
    with one.store.draft(NAMESPACE, NAME) as draft:
        draft.write("gpu/0", [os.urandom(2**19) for _ in range(8)])
        sealed = draft.seal(facts())
    one.publisher.publish(sealed)
    assert one.publisher.flush(30)
    demoted(one, sealed)
    one.stop()
    first_was_read, get = threading.Event(), bucket.get
    last = sealed.manifest.pack_keys[-1]

    def slow(key: str, *more: Any) -> memoryview:
        if key == last:
            assert first_was_read.wait(30)
        return get(key, *more)

    monkeypatch.setattr(bucket, "get", slow)

    def use(coming: Sealed) -> None:
        assert other.store.all() == ()  # nobody else sees it yet
        for count, _ in enumerate(coming.read("gpu/0")):
            if count == 0:
                first_was_read.set()

    ours = candidates(other)
    found = ours.have(ours.claim(a_workload("llama-0"), NAME), here, use)
    assert other.store.open(NAMESPACE, NAME) == found == sealed


def test_what_is_used_while_it_comes_and_breaks_off_is_had_from_elsewhere(
    nodes: Callable[[str], Node], sealed: Sealed, here: Fingerprint, bucket: Ram,
    candidates: Callable[[Node], Candidates], rot: Callable[..., None],
) -> None:  # fmt: skip
    """The other node's copy is damaged, which is seen when its pack has come."""
    demoted(nodes("node-a"), sealed)
    rot(sealed)
    tries: list[str] = []

    def use(coming: Sealed) -> None:
        tries.append(coming.signature)
        whole(coming)

    ours = candidates(nodes("node-b"))
    ours.have(ours.claim(a_workload("llama-0"), NAME), here, use)
    assert tries == [sealed.signature] * 2
    assert nodes("node-b").store.open(NAMESPACE, NAME)


def test_another_nodes_copy_comes_before_the_stores(
    nodes: Callable[[str], Node], sealed: Sealed, here: Fingerprint, bucket: Ram,
    candidates: Callable[[Node], Candidates],
) -> None:  # fmt: skip
    demoted(nodes("node-a"), sealed)
    for listed in list(bucket.list("domains")):
        bucket.delete(listed.key)
    ours = candidates(nodes("node-b"))
    assert ours.have(ours.claim(a_workload("llama-0"), NAME), here, whole)


def test_what_does_not_fit_there_is_told_before_its_bytes_come(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Ram,
    candidates: Callable[[Node], Candidates], here: Fingerprint,
) -> None:  # fmt: skip
    from dataclasses import replace

    demoted(nodes("node-a"), sealed)
    nodes("node-a").stop()
    ours = candidates(nodes("node-b"))
    claimed = ours.claim(a_workload("llama-0"), NAME)
    with pytest.raises(Refused, match="it was made from another container image"):
        ours.have(claimed, replace(here, image="another"), whole)
    assert nodes("node-b").store.all() == ()


def test_an_agent_that_was_given_no_store_says_so(
    nodes: Callable[[str], Node], sealed: Sealed, here: Fingerprint, wrapping: Path,
    candidates: Callable[[Node], Candidates],
) -> None:  # fmt: skip
    demoted(nodes("node-a"), sealed)
    nodes("node-a").stop()
    other = nodes("node-b")
    other.objects = Objects(Given(), other.store, SystemClock())
    ours = candidates(other)
    with pytest.raises(NoStore, match="--checkpoint-store"):
        ours.have(ours.claim(a_workload("llama-0"), NAME), here, whole)
