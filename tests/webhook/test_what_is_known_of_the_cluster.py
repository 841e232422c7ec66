"""What admission reads from its watches: checkpoints, Deployments, namespaces, seats."""

from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.api import gpuworkloads
from kybernate.api.goldimages import Seated
from kybernate.clients.resources import DEPLOYMENTS, NAMESPACES
from kybernate.testing.builders import SEAT_1X, SEAT_2X, a_workload
from kybernate.testing.fakekube import FakeKube
from webhook.view import ClusterView


def a_checkpoint(name: str, made: str, *, ready: bool = True, **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "reason": "Sealed"}
    return {
        "kind": "GpuCheckpoint",
        "metadata": {"namespace": "models", "name": name, "creationTimestamp": made},
        "spec": {"workload": "deployment.chat", **spec},
        "status": {"sizeBytes": 1, "conditions": [condition]},
    }


def a_policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "CheckpointPolicy",
        "metadata": {"namespace": "models", "name": name},
        "spec": {"selector": {"matchLabels": {"app": "chat"}}, **spec},
    }


def a_restore(
    name: str, deployment: str, checkpoint: str, state: str = "Pending"
) -> dict[str, Any]:
    return {
        "kind": "RestoreRequest",
        "metadata": {"namespace": "models", "name": name},
        "spec": {"checkpoint": checkpoint, "owner": {"kind": "Deployment", "name": deployment}},
        "status": {"state": state},
    }


@pytest.fixture
def view() -> Iterator[ClusterView]:
    kube = FakeKube(
        a_checkpoint("older", "2026-01-01T00:00:00Z"),
        a_checkpoint("newest", "2026-01-03T00:00:00Z"),
        a_checkpoint("middle", "2026-01-02T00:00:00Z"),
        a_checkpoint("unsealed", "2026-01-04T00:00:00Z", ready=False),
        a_checkpoint("gold", "2026-01-04T00:00:00Z", gold=True),
        a_checkpoint("foreign", "2026-01-04T00:00:00Z", workload="deployment.other"),
        a_checkpoint("unreadable", "2026-01-04T00:00:00Z", workload=7),
        gpuworkloads.new_object(a_workload("a", namespace="models")),
        gpuworkloads.new_object(a_workload("b", namespace="models")),
        gpuworkloads.new_object(a_workload("c", namespace="models", resource=SEAT_2X)),
        gpuworkloads.new_object(a_workload("d", namespace="others")),
        {
            **gpuworkloads.new_object(a_workload("ended", namespace="models")),
            "status": {"conditions": [gpuworkloads.finished_condition(1.0)]},
        },
        a_checkpoint("chat-0123456789", "2026-01-04T00:00:00Z", gold=True),
        a_checkpoint("chat-1111111111", "2026-01-04T00:00:00Z", gold=True, ready=False),
        a_checkpoint("chat-2222222222", "2026-01-04T00:00:00Z", workload="pod-x"),
        a_policy("gold", gold="chat"),
        a_policy("plain"),
        a_restore("one", "chat", "middle"),
        a_restore("two", "chat", "older", state="Running"),
        a_restore("three", "chat", "newest", state="Succeeded"),
        a_restore("four", "other", "foreign"),
    )
    kube.create(NAMESPACES, {"metadata": {"name": "models", "labels": {"team": "a"}}})
    for name, replicas in (("one", 1), ("many", 3), ("unsaid", None)):
        spec = {} if replicas is None else {"replicas": replicas}
        metadata = {"namespace": "models", "name": name}
        kube.create(DEPLOYMENTS, {"metadata": metadata, "spec": spec})
    watching = ClusterView(kube)
    watching.start()
    assert watching.wait_synced(10)
    yield watching
    watching.stop()


def test_only_ready_checkpoints_of_that_workload_are_named_newest_first(view: ClusterView) -> None:
    assert view.checkpoints("models", "deployment.chat") == ("newest", "middle", "older")
    assert view.checkpoints("others", "deployment.chat") == ()


def test_a_gold_image_of_a_policy_is_named_to_pods_of_its_version_once_it_is_ready(
    view: ClusterView,
) -> None:
    ours, others = {"app": "chat"}, {"app": "other"}
    assert view.gold("models", Seated(ours, "0123456789")) == ("chat-0123456789",)
    assert view.gold("models", Seated(others, "0123456789")) == ()
    assert view.gold("others", Seated(ours, "0123456789")) == ()
    for version in ("1111111111", "2222222222", "3333333333"):
        assert view.gold("models", Seated(ours, version)) == ()


def test_what_was_asked_for_an_owner_is_known_until_it_is_done(view: ClusterView) -> None:
    assert view.asked("models", "Deployment", "chat") == ("middle", "older")
    assert view.asked("models", "StatefulSet", "chat") == ()
    assert view.asked("others", "Deployment", "chat") == ()


def test_a_deployment_says_how_many_it_wants(view: ClusterView) -> None:
    found = [view.replicas("models", name) for name in ("one", "many", "unsaid", "absent")]
    assert found == [1, 3, 1, None]


def test_seats_of_living_pods_are_counted_by_namespace_and_size(view: ClusterView) -> None:
    assert view.seats_used("models") == {SEAT_1X: 2, SEAT_2X: 1}
    assert view.seats_used("nobody") == {}


def test_labels_of_a_namespace_are_known(view: ClusterView) -> None:
    assert view.namespace_labels("models") == {"team": "a"}
    assert view.namespace_labels("unknown") == {}


def test_before_the_first_list_nothing_is_known_and_nothing_waits() -> None:
    blank = ClusterView(FakeKube())
    assert not blank.synced
    assert blank.seats_used("models") is None
    assert blank.replicas("models", "one") is None
    assert blank.checkpoints("models", "deployment.chat") == ()
