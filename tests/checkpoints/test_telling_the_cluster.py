"""The cluster learns of every checkpoint on a node, also of those sealed while it was away."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.errors import NotFound
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Pause
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.runtime.clock import SystemClock
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.following import Following
from nodeagent.checkpoints.objects import Given, Objects
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
A = NodeName("node-a")


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def publisher(kube: FakeKube, store: Store) -> Iterator[Publisher]:
    """Of node-a; not started."""
    made = Publisher(store, Checkpoints(kube, A), SystemClock())
    yield made
    made.stop()


def _known(kube: FakeKube, name: str = NAME) -> Any:
    try:
        found = read_checkpoint(kube.get(GPUCHECKPOINTS, name, NAMESPACE))
    except NotFound:
        return None
    return found if found.ready else None


def test_what_is_sealed_is_told(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed], eventually: Any
) -> None:
    sealed = seal(store)
    publisher.publish(sealed)
    found = eventually(lambda: _known(kube))
    assert (found.signature, found.size) == (sealed.signature, sealed.size)
    assert (found.copies, found.labels) == ({A: Tier.NVME}, {"app": "llama"})
    obj = kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)
    assert obj["status"]["fingerprint"] == sealed.manifest.facts.fingerprint


def test_what_it_cost_is_told_when_it_is_known_also_after_an_outage(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed], eventually: Any
) -> None:
    sealed = seal(store)
    publisher.publish(sealed)
    eventually(lambda: _known(kube))
    status = kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)["status"]
    assert status["addedBytes"] == sealed.manifest.packed
    assert status["writtenBytes"] > status["addedBytes"]  # its image was on the disk before
    assert "pause" not in status
    kube.outage()
    publisher.paused(sealed, Pause(phases=(("copy out", 0.25), ("dump", 0.5), ("copy in", 0.25))))
    kube.recover()
    pause = eventually(lambda: kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)["status"].get("pause"))
    assert (pause["seconds"], pause["text"]) == (1.0, "1.00s")
    assert [phase["name"] for phase in pause["phases"]] == ["copy out", "dump", "copy in"]


def test_what_was_sealed_while_the_cluster_was_away_is_told_afterwards_each_once(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed], eventually: Any
) -> None:
    kube.outage()
    names = [f"llama-{number}" for number in range(5)]
    for name in names:
        sealed = seal(store, name)
        for _ in range(3):
            publisher.publish(sealed)
    assert not publisher.flush(0.1)
    kube.recover()
    eventually(lambda: all(_known(kube, name) for name in names))
    assert publisher.flush(60)
    created = [r for r in kube.server.requests if r.method == "POST" and kube.server.available]
    assert len({r.body for r in created}) == len(names)


def test_an_agent_that_starts_tells_of_all_it_has(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed], eventually: Any
) -> None:
    seal(store, "one")
    seal(store, "two")
    publisher.start()
    eventually(lambda: _known(kube, "one") and _known(kube, "two"))


def test_a_name_that_is_anothers_in_the_cluster_stays_theirs(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed],
    new_store: Callable[..., Store],
) -> None:  # fmt: skip
    theirs = seal(new_store("node-b"), sealed_at=5.0).checkpoint
    Checkpoints(kube, NodeName("node-b")).publish(theirs, "sha256:aa", Tier.NVME, 1.0)
    publisher.publish(seal(store))
    assert publisher.flush(60)
    found = _known(kube)
    assert (found.signature, found.copies) == (theirs.signature, {"node-b": Tier.NVME})


def test_a_copy_that_is_gone_is_told(
    kube: FakeKube, store: Store, publisher: Publisher, seal: Callable[..., Sealed], eventually: Any
) -> None:
    publisher.publish(seal(store))
    eventually(lambda: _known(kube))
    store.delete(NAMESPACE, NAME)
    publisher.withdraw(NAMESPACE, NAME)
    eventually(lambda: not _known(kube).copies)


@pytest.fixture
def following(kube: FakeKube, store: Store) -> Iterator[Following]:
    objects = Objects(Given(), store, SystemClock())
    made = Following(kube, store, objects, SystemClock())
    made.start()
    yield made
    made.stop()


def test_a_checkpoint_whose_object_is_deleted_is_deleted_here(
    kube: FakeKube, store: Store, publisher: Publisher, following: Following,
    seal: Callable[..., Sealed], eventually: Any,
) -> None:  # fmt: skip
    seal(store)
    kept = seal(store, "kept")
    publisher.start()
    eventually(lambda: _known(kube) and _known(kube, "kept"))
    kube.delete(GPUCHECKPOINTS, NAME, NAMESPACE)
    eventually(lambda: store.all() == (kept,))
    assert store.open(NAMESPACE, "kept") == kept


def test_the_object_of_another_checkpoint_of_the_name_takes_nothing_with_it(
    kube: FakeKube, store: Store, following: Following, seal: Callable[..., Sealed],
    new_store: Callable[..., Store], publisher: Publisher, eventually: Any,
) -> None:  # fmt: skip
    ours, gone = seal(store), seal(store, "gone")
    publisher.publish(gone)
    theirs = seal(new_store("node-b"), sealed_at=5.0).checkpoint
    Checkpoints(kube, NodeName("node-b")).publish(theirs, "sha256:aa", Tier.NVME, 1.0)
    eventually(lambda: _known(kube, "gone"))
    kube.delete(GPUCHECKPOINTS, NAME, NAMESPACE)
    kube.delete(GPUCHECKPOINTS, "gone", NAMESPACE)
    eventually(lambda: gone not in store.all())  # changes come in order: the first was seen
    assert ours in store.all()


def test_what_is_not_in_the_cluster_at_the_start_is_told_and_not_deleted(
    kube: FakeKube, store: Store, following: Following, publisher: Publisher,
    seal: Callable[..., Sealed], eventually: Any,
) -> None:  # fmt: skip
    sealed = seal(store)
    publisher.start()
    eventually(lambda: _known(kube))
    assert sealed in store.all()
