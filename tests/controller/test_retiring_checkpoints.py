"""Old checkpoints are deleted as a CheckpointPolicy says, and none that is claimed meanwhile."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controller.retiring import Retiring
from kybernate.api import names, timestamps
from kybernate.api.checkpointpolicies import read_policy
from kybernate.api.errors import Malformed
from kybernate.clients.errors import Conflict
from kybernate.clients.resources import CHECKPOINTPOLICIES, GPUCHECKPOINTS
from kybernate.runtime.clock import SystemClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
READY = {"type": "Ready", "status": "True", "reason": "Sealed"}


def checkpoint(number: int, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": f"llama-{number}", "labels": {"kind": "training"}},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {
            "sealedAt": timestamps.rfc3339(1_700_000_000 + number),
            "signature": f"ed25519:aa:{number}",
            "conditions": [READY],
            **status,
        },
    }


def policy(keep: int, selector: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CheckpointPolicy",
        "metadata": {"name": "nightly"},
        "spec": {"selector": selector or {}, "keep": keep},
    }


def left(kube: FakeKube) -> list[str]:
    return sorted(one["metadata"]["name"] for one in kube.list(GPUCHECKPOINTS))


def test_the_old_go_when_a_newer_one_is_sealed(running: Wait, eventually: Wait) -> None:
    kube = FakeKube(policy(2), checkpoint(1), checkpoint(2))
    with running(Retiring(kube, SystemClock())):
        kube.seed(checkpoint(3))
        eventually(lambda: left(kube) == ["llama-2", "llama-3"])


def test_they_go_when_a_policy_comes(running: Wait, eventually: Wait) -> None:
    kube = FakeKube(*(checkpoint(number) for number in range(4)))
    with running(Retiring(kube, SystemClock())):
        kube.create(CHECKPOINTPOLICIES, policy(1, {"matchLabels": {"kind": "training"}}), "default")
        eventually(lambda: left(kube) == ["llama-3"])


def _looked(kube: FakeKube) -> None:
    part = Retiring(kube, SystemClock())
    for watch in part.watches:
        watch.start()
        assert watch.wait_synced(60)
    try:
        part.look("default")
    finally:
        for watch in part.watches:
            watch.stop()


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param([], id="no-policy"),
        pytest.param([policy(1, {"matchLabels": {"kind": "other"}})], id="of-other-pods"),
        pytest.param([policy(3)], id="that-keeps-all"),
    ],
)
def test_nothing_goes_that_no_policy_lets_go(policies: list[Any]) -> None:
    kube = FakeKube(*policies, *(checkpoint(number) for number in range(3)))
    _looked(kube)
    assert len(left(kube)) == 3


def test_one_that_is_claimed_between_reading_and_deleting_stays() -> None:
    kube = FakeKube(policy(1), checkpoint(1), checkpoint(2))
    kube.fail("DELETE", "gpucheckpoints", Conflict(409, "Conflict", "it was claimed"))
    with pytest.raises(Conflict):
        _looked(kube)
    assert left(kube) == ["llama-1", "llama-2"]
    asked = [one for one in kube.server.requests if one.method == "DELETE"]
    assert b"resourceVersion" in (asked[0].body or b"")


def test_a_claimed_one_stays() -> None:
    claim = {"podUID": "u", "node": "a", "pod": "p"}
    kube = FakeKube(policy(1), checkpoint(1, claim=claim), checkpoint(2))
    _looked(kube)
    assert left(kube) == ["llama-1", "llama-2"]


@pytest.mark.parametrize(
    ("requirement", "labels", "expected"),
    [
        pytest.param({"key": "a", "operator": "In", "values": ["x"]}, {"a": "x"}, True, id="in"),
        pytest.param({"key": "a", "operator": "In", "values": ["x"]}, {}, False, id="in-absent"),
        pytest.param(
            {"key": "a", "operator": "NotIn", "values": ["x"]}, {"a": "x"}, False, id="notin"
        ),
        pytest.param(
            {"key": "a", "operator": "NotIn", "values": ["x"]}, {}, True, id="notin-absent"
        ),
        pytest.param({"key": "a", "operator": "Exists"}, {"a": ""}, True, id="exists"),
        pytest.param({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False, id="exists-not"),
    ],
)
def test_a_selector_means_what_it_means_to_kubernetes(
    requirement: dict[str, Any], labels: dict[str, str], expected: bool
) -> None:
    read = read_policy(policy(1, {"matchExpressions": [requirement]}))
    assert read.selects(labels) is expected


def test_a_selector_that_cannot_be_read_is_told_with_its_path() -> None:
    bad = {"matchExpressions": [{"key": "a", "operator": "Like"}]}
    with pytest.raises(Malformed, match=r"spec.selector.matchExpressions\[0\].operator"):
        read_policy(policy(1, bad))
