"""Old checkpoints go when nobody keeps them any more, and none that somebody needs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from controller.retiring import EVERY, NoPolicy, Retiring
from kybernate.api import goldimages, names, timestamps
from kybernate.api.checkpointpolicies import read_policy
from kybernate.api.errors import Malformed
from kybernate.clients.errors import Conflict
from kybernate.clients.resources import CHECKPOINTPOLICIES, GPUCHECKPOINTS
from kybernate.runtime.clock import SystemClock
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy

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


def retiring(kube: FakeKube, policy: FakePolicy | None = None) -> Retiring:
    return Retiring(kube, SystemClock(), policy or FakePolicy(grace_seconds=0.0))


def kept(kube: FakeKube, name: str) -> dict[str, Any]:
    conditions = kube.get(GPUCHECKPOINTS, name, "default")["status"]["conditions"]
    return next((one for one in conditions if one["type"] == "Kept"), {})


def test_the_old_go_when_a_newer_one_is_sealed(running: Wait, eventually: Wait) -> None:
    kube = FakeKube(policy(2), checkpoint(1), checkpoint(2))
    with running(retiring(kube)):
        kube.seed(checkpoint(3))
        eventually(lambda: left(kube) == ["llama-2", "llama-3"])
    assert kept(kube, "llama-3")["reason"] == "Newest"


def test_they_go_when_a_policy_comes(running: Wait, eventually: Wait) -> None:
    kube = FakeKube(*(checkpoint(number) for number in range(4)))
    with running(retiring(kube)):
        kube.create(CHECKPOINTPOLICIES, policy(1, {"matchLabels": {"kind": "training"}}), "default")
        eventually(lambda: left(kube) == ["llama-3"])


def test_they_stay_for_the_grace_time_and_say_so(running: Wait, eventually: Wait) -> None:
    kube, clock = FakeKube(policy(1), checkpoint(1), checkpoint(2)), FakeClock(1_800_000_000.0)
    part = Retiring(kube, clock, FakePolicy(grace_seconds=600.0))
    with _watched(part):
        assert part.look("default") == EVERY  # sooner than its 600 s are over
        told = eventually(lambda: kept(kube, "llama-1"))
        assert (told["status"], told["reason"]) == ("False", "Replaced")
        assert kept(kube, "llama-2")["status"] == "True"
        clock.advance(599)
        eventually(lambda: _seen(part) is False)
        again = part.look("default")
        assert again is not None
        assert 0 < again <= 2.0
        assert len(left(kube)) == 2
        clock.advance(2)
        part.look("default")
        assert left(kube) == ["llama-2"]


def test_another_leader_goes_on_counting_where_the_first_began(eventually: Wait) -> None:
    kube, clock = FakeKube(policy(1), checkpoint(1), checkpoint(2)), FakeClock(1_800_000_000.0)
    with _watched(Retiring(kube, clock, FakePolicy(grace_seconds=600.0))) as first:
        first.look("default")
    clock.advance(601)
    with _watched(Retiring(kube, clock, FakePolicy(grace_seconds=600.0))) as second:
        second.look("default")
    assert left(kube) == ["llama-2"]


def test_one_that_is_kept_again_begins_anew(eventually: Wait) -> None:
    kube, clock = FakeKube(policy(1), checkpoint(1), checkpoint(2)), FakeClock(1_800_000_000.0)
    asked = FakePolicy(grace_seconds=600.0)
    part = Retiring(kube, clock, asked)
    with _watched(part):
        for advanced, away in ((0, False), (300, True), (600, False)):
            clock.advance(advanced)
            asked.away = away
            part.look("default")
            wanted = "True" if away else "False"
            eventually(lambda wanted=wanted: _seen(part) is (wanted == "True"))  # type: ignore[misc]
    assert len(left(kube)) == 2


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "again",
        "namespace": "default",
        "annotations": {"kyb.ai/restore-from": "llama-9, llama-1"},
    },
    "spec": {},
    "status": {"phase": "Pending"},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "again", "namespace": "default"},
    "spec": {"template": {"metadata": POD["metadata"]}},
}
RESTORE = {
    "apiVersion": names.API_VERSION,
    "kind": "RestoreRequest",
    "metadata": {"name": "again", "namespace": "default"},
    "spec": {"checkpoint": "llama-1", "owner": {"kind": "Deployment", "name": "llama"}},
}


@pytest.mark.parametrize(
    ("obj", "who"),
    [(POD, "pod again"), (DEPLOYMENT, "deployment again"), (RESTORE, "restorerequest again")],
    ids=["pod", "deployment", "restorerequest"],
)
def test_one_that_somebody_names_stays(obj: dict[str, Any], who: str) -> None:
    kube = FakeKube(policy(1), checkpoint(1), checkpoint(2), obj)
    _looked(kube)
    _looked(kube)
    assert len(left(kube)) == 2
    assert (kept(kube, "llama-1")["reason"], kept(kube, "llama-1")["message"]) == (
        "Referenced",
        who,
    )


def test_a_finished_request_and_a_pod_that_ended_name_nothing() -> None:
    ended = {**POD, "status": {"phase": "Succeeded"}}
    finished = {**RESTORE, "status": {"state": "Succeeded"}}
    kube = FakeKube(policy(1), checkpoint(1), checkpoint(2), ended, finished)
    _looked(kube)
    _looked(kube)
    assert left(kube) == ["llama-2"]


def test_without_a_verdict_nothing_goes() -> None:
    kube = FakeKube(policy(1), checkpoint(1), checkpoint(2))
    for asks in (FakePolicy(away=True), NoPolicy()):
        for _ in range(2):
            _looked(kube, asks)
    assert len(left(kube)) == 2
    assert kept(kube, "llama-1")["reason"] == "NoVerdict"


def _seen(part: Retiring) -> bool | None:
    """Whether its watch has the old one as kept."""
    found = part._checkpoints.get(("default", "llama-1"))
    return found[1].holds if found and found[1] else None


@contextmanager
def _watched(part: Retiring) -> Iterator[Retiring]:
    for watch in part.watches:
        watch.start()
        assert watch.wait_synced(60)
    try:
        yield part
    finally:
        for watch in part.watches:
            watch.stop()


def _looked(kube: FakeKube, policy: Any = None) -> None:
    with _watched(retiring(kube, policy)) as part:
        part.look("default")


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
    for _ in range(2):
        _looked(kube)
    assert len(left(kube)) == 3


def test_one_that_is_claimed_between_reading_and_deleting_stays() -> None:
    kube = FakeKube(policy(1), checkpoint(1), checkpoint(2))
    _looked(kube)
    kube.fail("DELETE", "gpucheckpoints", Conflict(409, "Conflict", "it was claimed"))
    with pytest.raises(Conflict):
        _looked(kube)
    assert left(kube) == ["llama-1", "llama-2"]
    asked = [one for one in kube.server.requests if one.method == "DELETE"]
    assert b"resourceVersion" in (asked[0].body or b"")


def test_a_claimed_one_stays() -> None:
    claim = {"podUID": "u", "node": "a", "pod": "p"}
    kube = FakeKube(policy(1), checkpoint(1, claim=claim), checkpoint(2))
    for _ in range(2):
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


def image(version: str, at: int, ready: bool = True) -> dict[str, Any]:
    made = checkpoint(at, conditions=[{**READY, "status": str(ready)}])
    metadata = {"name": f"llama-{version}", "namespace": "default"}
    return {**made, "metadata": metadata, "spec": {"workload": f"pod-{at}", "gold": True}}


def replica(name: str, image: str, namespace: str = "default", restore: str = "") -> dict[str, Any]:
    container = {
        "name": "model", "image": image, "resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}},
    }  # fmt: skip
    annotations = {names.RESTORE_FROM: restore} if restore else {}
    labels = {"app": "llama"}
    metadata = {
        "name": name, "namespace": namespace, "labels": labels, "annotations": annotations
    }  # fmt: skip
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def version(image: str) -> str:
    found = goldimages.seated(replica("any", image))
    assert found is not None
    return found.version


OLD, NEW = version("model:1"), version("model:2")
GOLD = {**policy(1, {"matchLabels": {"app": "llama"}})}
GOLD["spec"] = {**GOLD["spec"], "gold": "llama"}


def test_a_gold_image_that_was_made_anew_goes_when_nobody_runs_it_any_more() -> None:
    kube = FakeKube(GOLD, image(OLD, 1), image(NEW, 2), replica("new", "model:2"))
    for _ in range(2):
        _looked(kube)
    assert left(kube) == [f"llama-{NEW}"]
    assert kept(kube, f"llama-{NEW}")["reason"] == "Gold"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([replica("old", "model:1")], id="a-pod-is-of-its-version"),
        pytest.param(
            [replica("theirs", "model:2", "team", f"default/llama-{OLD}")],
            id="another-namespace-names-it",
        ),
    ],
)
def test_until_then_it_stays(more: list[dict[str, Any]]) -> None:
    kube = FakeKube(GOLD, image(OLD, 1), image(NEW, 2), replica("new", "model:2"), *more)
    for _ in range(2):
        _looked(kube)
    assert len(left(kube)) == 2


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([GOLD, image(NEW, 2, ready=False)], id="the-new-one-is-not-ready"),
        pytest.param([GOLD], id="there-is-no-new-one"),
        pytest.param([image(NEW, 2)], id="no-policy-asks-for-gold"),
        pytest.param([GOLD, image("handmade", 2)], id="the-other-is-not-the-policys"),
    ],
)
def test_a_gold_image_that_is_not_replaced_stays(others: list[dict[str, Any]]) -> None:
    kube = FakeKube(image(OLD, 1), *others)
    for _ in range(2):
        _looked(kube)
    assert f"llama-{OLD}" in left(kube)
