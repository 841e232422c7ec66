"""
Replicas of several namespaces wake from one gold image.

Real: files, keys, gRPC over mutual TLS, format v1 in a store. Faked: the API server, policy, and
who makes checkpoints. Observed: what is claimed, every byte that comes over the network.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.policy import SharingVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.runtime.clock import SystemClock
from kybernate.stores.peer import Peer
from kybernate.stores.ram import Ram
from kybernate.testing.builders import a_workload
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.waking.candidates import Candidates, NotClaimed

OWN, NAME = "default", "llama-gold"
Node = Any


class Counted(Ram):
    """A store that counts bytes that are read."""

    read = 0

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        found = super().get(key, offset, size, into)
        self.read += len(found)
        return found


def whole(sealed: Sealed) -> None:
    """Take all of it, as a wake does."""
    for file in sealed.manifest.files:
        assert sum(map(len, sealed.read(file.path))) == file.size


@pytest.fixture
def bucket() -> Counted:
    return Counted(2**30, SystemClock().now)


@pytest.fixture
def policy() -> FakePolicy:
    return FakePolicy(shared=frozenset({(OWN, "team-a"), (OWN, "team-b")}))


@pytest.fixture
def candidates(policy: FakePolicy) -> Callable[[Node], Candidates]:
    """As the agent of that node has them."""
    return lambda node: Candidates(
        node=node.name, store=node.store, peers=node.peers, objects=node.objects,
        claims=node.claims, publish=node.publisher.publish, policy=policy,
    )  # fmt: skip


@pytest.fixture
def gold(nodes: Callable[[str], Node], seal: Callable[..., Sealed]) -> Sealed:
    """On node-a, published."""
    one = nodes("node-a")
    made: Sealed = seal(one.store, NAME, gold=True)
    one.publisher.publish(made)
    assert one.publisher.flush(30)
    return made


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of everything that came from another agent."""
    found: list[int] = []
    get = Peer.get

    def counted(self: Peer, *asked: Any) -> memoryview:
        content = get(self, *asked)
        found.append(len(content))
        return content

    monkeypatch.setattr(Peer, "get", counted)
    return found


def test_replicas_of_several_namespaces_wake_from_one_and_nobody_claims_it(
    nodes: Callable[[str], Node], gold: Sealed, kube: FakeKube, here: Fingerprint,
    candidates: Callable[[Node], Candidates],
) -> None:  # fmt: skip
    ours = candidates(nodes("node-a"))
    for namespace, named in (("team-a", f"{OWN}/{NAME}"), ("team-b", f"{OWN}/{NAME}"), (OWN, NAME)):
        claimed = ours.claim(a_workload("replica", namespace=namespace), named)
        assert ours.have(claimed, here, whole).signature == gold.signature
        ours.give_back(claimed)
    assert "claim" not in kube.get(GPUCHECKPOINTS, NAME, OWN)["status"]


def test_the_second_replica_on_a_node_reads_nothing_from_the_network(
    nodes: Callable[[str], Node], gold: Sealed, here: Fingerprint, bucket: Counted,
    candidates: Callable[[Node], Candidates], came: list[int],
) -> None:  # fmt: skip
    other = nodes("node-b")
    ours = candidates(other)
    ours.have(ours.claim(a_workload("one", namespace="team-a"), f"{OWN}/{NAME}"), here, whole)
    assert gold.manifest.packed < sum(came) < gold.manifest.packed * 1.1 + 8192
    assert other.publisher.flush(30)
    came.clear()
    ours.have(ours.claim(a_workload("two", namespace="team-b"), f"{OWN}/{NAME}"), here, whole)
    assert (sum(came), bucket.read) == (0, 0)


def test_ten_that_come_at_once_from_the_store_read_it_once(
    nodes: Callable[[str], Node], gold: Sealed, here: Fingerprint, bucket: Counted,
    candidates: Callable[[Node], Candidates], came: list[int],
) -> None:  # fmt: skip
    with nodes("node-a").client() as client:
        client.demote(OWN, NAME, gold.signature)
    nodes("node-a").stop()
    bucket.read = 0
    ours = candidates(nodes("node-b"))

    def wake(number: int) -> str:
        pod = a_workload(f"replica-{number}", namespace="team-a")
        return ours.have(ours.claim(pod, f"{OWN}/{NAME}"), here, whole).signature

    with ThreadPoolExecutor(10) as threads:
        assert set(threads.map(wake, range(10))) == {gold.signature}
    assert 0 < bucket.read < gold.size * 1.2 + 65536
    assert sum(came) == 0


def test_in_the_store_it_has_a_domain_and_a_wrapped_key_of_its_own(
    nodes: Callable[[str], Node], gold: Sealed, seal: Callable[..., Sealed], bucket: Counted
) -> None:
    one = nodes("node-a")
    other = seal(one.store, "ordinary")
    one.publisher.publish(other)
    assert one.publisher.flush(30)
    with one.client() as client:
        client.demote(OWN, NAME, gold.signature)
        client.demote(OWN, "ordinary", other.signature)
    domains = {listed.key.split("/")[1] for listed in bucket.list("domains")}
    assert domains == {f"gold.{OWN}.{NAME}", OWN}
    keys = [listed.key for listed in bucket.list("domains") if "/keys/" in listed.key]
    assert len(keys) == 2
    wanted = Wanted(namespace=OWN, name=NAME, signature=gold.signature)
    assert one.objects.flaw(wanted) == ""


@pytest.mark.parametrize(
    ("says", "why"),
    [
        pytest.param(None, r"does not share default/llama-gold with namespace stranger", id="no"),
        pytest.param(
            Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="OPA is away"),
            "OPA is away",
            id="away",
        ),
    ],
)
def test_what_policy_does_not_share_is_not_woken_from(
    nodes: Callable[[str], Node], gold: Sealed, policy: FakePolicy, came: list[int],
    candidates: Callable[[Node], Candidates], says: Refusal | None, why: str,
) -> None:  # fmt: skip
    policy.say(SharingVerdict, says)
    ours = candidates(nodes("node-b"))
    with pytest.raises(NotClaimed, match=why):
        ours.claim(a_workload("one", namespace="stranger"), f"{OWN}/{NAME}")
    assert (nodes("node-b").store.all(), came) == ((), [])
    assert ours.claim(a_workload("own"), NAME)  # its own namespace asks nobody


def test_what_is_not_gold_is_nothing_to_other_namespaces_whatever_policy_says(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube,
    candidates: Callable[[Node], Candidates],
) -> None:  # fmt: skip
    ours, name = candidates(nodes("node-b")), sealed.manifest.name
    with pytest.raises(NotClaimed, match=r"not shared with this one: default/.* is not gold"):
        ours.claim(a_workload("one", namespace="team-a"), f"{OWN}/{name}")
    assert "claim" not in kube.get(GPUCHECKPOINTS, name, OWN)["status"]


def test_a_gold_image_has_no_labels_of_the_one_pod_it_was_made_of(
    facts: Callable[..., Any],
) -> None:
    labels = {
        "app": "llama", "pod-template-hash": "5d4f", "apps.kubernetes.io/pod-index": "0",
        "batch.kubernetes.io/job-name": "x", "statefulset.kubernetes.io/pod-name": "llama-0",
    }  # fmt: skip
    made = facts(labels=labels).as_gold()
    assert (made.gold, made.labels) == (True, {"app": "llama"})
    assert made.fingerprint == facts().fingerprint
