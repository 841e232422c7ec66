"""GpuCheckpoints are published once and claimed by one pod, on each kind of API server alike."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from controller.claims import UNSYNCED, Claims
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.checkpoints import Checkpoints, Claimed, Taken
from kybernate.clients.errors import Conflict, NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUCHECKPOINTS, PODS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.runtime.clock import SystemClock

NOW = 1_769_860_800.0
A, B = NodeName("node-a"), NodeName("node-b")
NAME = "llama-0-1"


def until(holds: Callable[[], bool]) -> None:
    """Look again until it holds."""
    end = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def _checkpoint(namespace: str, **changes: Any) -> Checkpoint:
    whole = {
        "namespace": namespace,
        "name": NAME,
        "size": 3 * 2**30,
        "ready": True,
        "workload": "statefulset.llama.0",
        "sealed_at": NOW,
        "labels": {"app": "llama"},
        "signature": "ed25519:aa:bb",
    }
    return Checkpoint(**{**whole, **changes})


@pytest.fixture
def publish(kube: Kube, namespace: str) -> Callable[..., Checkpoint]:
    """`publish(gold=True)`: from node-a, as it stands there afterwards."""

    def make(node: NodeName = A, **changes: Any) -> Checkpoint:
        one = _checkpoint(namespace, **changes)
        Checkpoints(kube, node).publish(one, "sha256:aa", Tier.NVME, NOW)
        return read_checkpoint(kube.get(GPUCHECKPOINTS, one.name, namespace))

    return make


@pytest.fixture
def pod(kube: Kube, namespace: str) -> Callable[[str], PodUid]:
    """Makes a pod; its uid."""

    def make(name: str) -> PodUid:
        spec = {"containers": [{"name": "m", "image": "m"}]}
        made = kube.create(PODS, {"metadata": {"name": name}, "spec": spec}, namespace)
        return PodUid(made["metadata"]["uid"])

    return make


@pytest.fixture
def free(kube: Kube, namespace: str) -> Iterator[Callable[[], None]]:
    """What the controller does with a claim; as often as somebody is faster."""
    part = Claims(kube, SystemClock())
    (watch,) = part.watches
    watch.start()

    def look() -> None:
        until(lambda: part.look((namespace, NAME)) != UNSYNCED)

    def patiently() -> None:
        claim = _claimed(kube, namespace)
        until(lambda: claim is None or watch.get((namespace, NAME)) is not None)
        with suppress(Conflict):
            look()

    yield patiently
    watch.stop()


def _claimed(kube: Kube, namespace: str) -> dict[str, str] | None:
    status = kube.get(GPUCHECKPOINTS, NAME, namespace).get("status") or {}
    found: dict[str, str] | None = status.get("claim")
    return found


def test_what_is_published_is_read_as_it_was_sealed(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    found = publish()
    assert found == _checkpoint(namespace, copies={A: Tier.NVME})
    obj = kube.get(GPUCHECKPOINTS, NAME, namespace)
    assert (obj["spec"]["node"], obj["status"]["size"]) == ("node-a", "3.0 GiB")


def test_publishing_again_changes_nothing(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    assert publish() == publish()


def test_a_name_that_is_anothers_is_not_taken_over(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    first = publish()
    with pytest.raises(Taken):
        publish(B, signature="ed25519:cc:dd")
    assert read_checkpoint(kube.get(GPUCHECKPOINTS, NAME, namespace)) == first


def test_copies_come_and_go_by_the_nodes_they_are_on(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish()
    b = Checkpoints(kube, B)
    b.copied(namespace, NAME, Tier.NVME)
    b.copied(namespace, NAME, Tier.NVME)
    copies = read_checkpoint(kube.get(GPUCHECKPOINTS, NAME, namespace)).copies
    assert copies == {A: Tier.NVME, B: Tier.NVME}
    Checkpoints(kube, A).copied(namespace, NAME, None)
    copies = read_checkpoint(kube.get(GPUCHECKPOINTS, NAME, namespace)).copies
    assert copies == {B: Tier.NVME}
    b.copied(namespace, "another", Tier.NVME)


def test_a_pod_claims_it_and_claims_it_again_after_a_restart(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish()
    for _ in range(2):
        claimed = Checkpoints(kube, B).take(namespace, NAME, "llama-0", PodUid("u1"))
        assert isinstance(claimed, Claimed)
        assert claimed.checkpoint.signature == "ed25519:aa:bb"
    assert _claimed(kube, namespace) == {"pod": "llama-0", "podUID": "u1", "node": "node-b"}


@pytest.mark.parametrize(
    ("node", "uid"),
    [
        pytest.param(A, "u2", id="another-pod"),
        pytest.param(B, "u2", id="the-next-life-of-the-pod"),
        pytest.param(A, "u1", id="the-same-uid-on-another-node"),
    ],
)
def test_nobody_else_gets_it_then(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint], node: NodeName, uid: str
) -> None:
    publish()
    Checkpoints(kube, B).take(namespace, NAME, "llama-0", PodUid("u1"))
    refused = Checkpoints(kube, node).take(namespace, NAME, "llama-0", PodUid(uid))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.CHECKPOINT_CLAIMED
    assert "by pod llama-0 on node-b" in refused.detail


def test_a_gold_image_is_everybodys(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish(gold=True)
    for uid in ("u1", "u2"):
        taken = Checkpoints(kube, A).take(namespace, NAME, "llama", PodUid(uid))
        assert isinstance(taken, Claimed)
    assert _claimed(kube, namespace) is None


def test_what_is_not_there_or_not_ready_is_refused(kube: Kube, namespace: str) -> None:
    claims = Checkpoints(kube, A)
    refused = claims.take(namespace, "absent", "llama-0", PodUid("u1"))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.CHECKPOINT_ABSENT
    kube.create(GPUCHECKPOINTS, {"metadata": {"name": NAME}, "spec": {"workload": "w"}}, namespace)
    refused = claims.take(namespace, NAME, "llama-0", PodUid("u1"))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.CHECKPOINT_NOT_READY


def test_a_claim_that_is_given_back_is_free_and_only_the_holder_gives_it_back(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish()
    first = Checkpoints(kube, A).take(namespace, NAME, "llama-0", PodUid("u1"))
    assert isinstance(first, Claimed)
    for _ in range(2):
        Checkpoints(kube, A).give_back(first)
        assert _claimed(kube, namespace) is None
    second = Checkpoints(kube, B).take(namespace, NAME, "llama-1", PodUid("u2"))
    assert isinstance(second, Claimed)
    Checkpoints(kube, A).give_back(first)
    assert (_claimed(kube, namespace) or {})["podUID"] == "u2"


def test_a_claim_is_freed_when_its_pod_is_gone_and_not_before(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint], pod: Callable[[str], PodUid],
    free: Callable[[], None],
) -> None:  # fmt: skip
    publish()
    Checkpoints(kube, A).take(namespace, NAME, "llama-0", pod("llama-0"))
    free()
    assert _claimed(kube, namespace)
    kube.delete(PODS, "llama-0", namespace, grace_seconds=0)
    free()
    assert _claimed(kube, namespace) is None


def test_a_claim_of_a_former_pod_of_the_name_is_freed(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint], pod: Callable[[str], PodUid],
    free: Callable[[], None],
) -> None:  # fmt: skip
    publish()
    pod("llama-0")
    Checkpoints(kube, A).take(namespace, NAME, "llama-0", PodUid("of-the-life-before"))
    free()
    assert _claimed(kube, namespace) is None


def test_of_agents_that_race_for_it_exactly_one_wins(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish()
    rivals = 6
    gate = threading.Barrier(rivals)

    def race(number: int) -> Claimed | Refusal:
        claims = Checkpoints(kube, NodeName(f"node-{number}"))
        gate.wait(60)
        return claims.take(namespace, NAME, f"llama-{number}", PodUid(f"u{number}"))

    with ThreadPoolExecutor(rivals) as threads:
        ended = list(threads.map(race, range(rivals)))
    (winner,) = [one for one in ended if isinstance(one, Claimed)]
    lost = [one.reason for one in ended if isinstance(one, Refusal)]
    assert lost == [Reason.CHECKPOINT_CLAIMED] * (rivals - 1)
    assert (_claimed(kube, namespace) or {})["podUID"] == winner.claim.pod_uid


def test_the_controller_frees_no_claim_that_was_taken_anew_meanwhile(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint], pod: Callable[[str], PodUid],
    free: Callable[[], None],
) -> None:  # fmt: skip
    """Many rounds of freeing and claiming at once: whoever was told that it has it, has it."""
    publish()
    gate = threading.Barrier(2)

    def claim(name: str, uid: PodUid) -> Claimed | Refusal:
        gate.wait(60)
        return Checkpoints(kube, B).take(namespace, NAME, name, uid)

    def end() -> None:
        gate.wait(60)
        free()

    for number in range(5):
        gone, name = f"gone-{number}", f"llama-{number}"
        first = Checkpoints(kube, A).take(namespace, NAME, gone, PodUid(gone))
        assert isinstance(first, Claimed)
        uid = pod(name)
        with ThreadPoolExecutor(2) as threads:
            claiming, freeing = threads.submit(claim, name, uid), threads.submit(end)
        freeing.result()
        outcome, now = claiming.result(), _claimed(kube, namespace)
        if isinstance(outcome, Claimed):
            assert (now or {}).get("podUID") == uid
            Checkpoints(kube, B).give_back(outcome)
        else:
            assert (now or {}).get("podUID") != uid
            free()


def test_publishing_what_was_deleted_meanwhile_is_tried_again_by_the_caller(
    kube: Kube, namespace: str, publish: Callable[..., Checkpoint]
) -> None:
    publish()
    kube.delete(GPUCHECKPOINTS, NAME, namespace)
    with pytest.raises(NotFound):
        kube.get(GPUCHECKPOINTS, NAME, namespace)
    assert publish().ready
