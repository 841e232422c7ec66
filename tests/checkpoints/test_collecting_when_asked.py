"""
The controller has an agent collect the object store.

Real: the agent's service over mutual TLS, format v1 in a store. Faked: the store's clock, the API
server. Observed: what is in the store.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.clients.agents import AgentRefused
from kybernate.clients.copies import Collected
from kybernate.stores.ram import Ram
from kybernate.testing.clock import FakeClock
from nodeagent.checkpoints.sealed import Sealed

NAMESPACE, GRACE = "default", 3600.0
Node = Any


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_790_000_000.0)


@pytest.fixture
def bucket(clock: FakeClock) -> Ram:
    return Ram(2**30, clock.now)


@pytest.fixture
def node(nodes: Callable[[str], Node], sealed: Sealed) -> Node:
    """With a checkpoint in the store whose manifest went."""
    one = nodes("node-a")
    with one.client() as client:
        client.demote(NAMESPACE, sealed.manifest.name, sealed.signature)
    return one


def collected(node: Node, **how: Any) -> list[Collected]:
    with node.client() as client:
        return list(client.collect(GRACE, **how))


def packs(bucket: Ram) -> int:
    return sum("/packs/" in listed.key for listed in bucket.list("domains"))


def forget(bucket: Ram, sealed: Sealed) -> None:
    bucket.delete(f"manifests/{NAMESPACE}/{sealed.manifest.name}")


def test_what_nothing_names_goes_after_the_grace_time(
    node: Node, sealed: Sealed, bucket: Ram, clock: FakeClock
) -> None:
    (there,) = collected(node)
    assert (there.domain, there.named, there.gone) == (NAMESPACE, packs(bucket), 0)
    forget(bucket, sealed)
    (waits,) = collected(node)
    assert (waits.named, waits.waiting, waits.gone, packs(bucket)) == (0, 1, 0, 1)
    assert 0 < waits.next_seconds <= GRACE
    clock.advance(GRACE + 1)
    (gone,) = collected(node)
    assert (gone.gone, gone.alone, packs(bucket)) == (1, "", 0)
    assert gone.size > sealed.size / 2


def test_a_dry_run_changes_nothing(node: Node, sealed: Sealed, bucket: Ram) -> None:
    forget(bucket, sealed)
    before = sorted(listed.key for listed in bucket.list("domains"))
    (said,) = collected(node, dry_run=True)
    assert (said.waiting, said.gone) == (1, 0)
    assert sorted(listed.key for listed in bucket.list("domains")) == before


def test_a_domain_that_cannot_be_judged_is_left_alone_and_said(
    node: Node, sealed: Sealed, bucket: Ram
) -> None:
    bucket.put(f"manifests/{NAMESPACE}/foreign", b"kybernate-checkpoint 1 nothing\n{}")
    (said,) = collected(node)
    assert "manifests/default/foreign" in said.alone
    assert packs(bucket) == 1


def test_an_agent_without_a_store_refuses(nodes: Callable[[str], Node]) -> None:
    one = nodes("node-b")
    one.objects._store = None
    with pytest.raises(AgentRefused, match="no store"):
        collected(one)
