"""
RestoreRequests carried out on an API server in memory; a test speaks for kubelet, agent and owners.

Faked: the API server. Real: watches, queue, threads, clock.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller import restore_plan as plans
from controller.restoring import Restoring
from kybernate.api import gpuworkloads, names, pods, restorerequests, timestamps
from kybernate.clients.errors import Forbidden, NotFound
from kybernate.clients.resources import (
    DEPLOYMENTS,
    GPUCHECKPOINTS,
    PODS,
    RESTOREREQUESTS,
)
from kybernate.model.workload import State, Workload
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
READY = {"type": "Ready", "status": "True", "reason": "Sealed"}
TEMPLATE = {"metadata": {"labels": {"app": "llama"}}, "spec": a_pod()["spec"]}


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(
        {
            "apiVersion": names.API_VERSION,
            "kind": "GpuCheckpoint",
            "metadata": {"name": "llama-1"},
            "spec": {"workload": "deployment.chat"},
            "status": {"sizeBytes": 7, "conditions": [READY]},
        },
        clock=SystemClock(),
    )


@pytest.fixture
def part(kube: FakeKube, running: Wait) -> Iterator[Restoring]:
    def seat_pods() -> list[Workload]:
        found = map(pods.read_workload, kube.list(PODS))
        return [workload for workload in found if workload is not None]

    with running(Restoring(kube, SystemClock(), seat_pods)) as started:
        yield started


def ask(kube: FakeKube, status: dict[str, Any] | None = None, uid: str = "", **spec: Any) -> None:
    kube.seed(
        {
            "apiVersion": names.API_VERSION,
            "kind": "RestoreRequest",
            "metadata": {
                "name": "one",
                "creationTimestamp": timestamps.rfc3339(SystemClock().now()),
                **({"uid": uid} if uid else {}),
            },
            "spec": {"checkpoint": "llama-1", **spec},
            **({"status": status} if status else {}),
        }
    )


def status_of(kube: FakeKube) -> restorerequests.RestoreStatus:
    return restorerequests.read_request(kube.get(RESTOREREQUESTS, "one", "default")).status


def find(kube: FakeKube, name: str) -> dict[str, Any] | None:
    try:
        return kube.get(PODS, name, "default")
    except NotFound:
        return None


def wake(kube: FakeKube, pod: dict[str, Any], claimed: bool = True) -> None:
    """What the agent of node-b does."""
    metadata = pod["metadata"]
    if claimed:
        claim = {"podUID": metadata["uid"], "node": "node-b", "pod": metadata["name"]}
        patch = {"status": {"claim": claim}}
        kube.patch(GPUCHECKPOINTS, "llama-1", patch, "default", subresource="status")
    workload = pods.read_workload(pod)
    assert workload is not None
    status = gpuworkloads.Status(state=State.PARKED, since=1.0, node="node-b", seat="G0/0")
    made = gpuworkloads.new_object(workload)
    kube.seed({**made, "status": gpuworkloads.write_status(status)})


def ended(kube: FakeKube) -> restorerequests.RestoreStatus | None:
    status = status_of(kube)
    return status if status.is_finished else None


def test_a_pod_is_made_from_the_template_and_woken(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    ask(kube, pod={"template": TEMPLATE, "name": "again"})
    pod = eventually(lambda: find(kube, "again"))
    assert pod["metadata"]["annotations"] == {names.RESTORE_FROM: "llama-1"}
    assert pod["metadata"]["labels"]["app"] == "llama"
    assert status_of(kube).state == "Running"
    wake(kube, pod)
    status = eventually(lambda: ended(kube))
    assert (status.state, status.pod, status.node) == ("Succeeded", "again", "node-b")
    assert status.pod_uid == pod["metadata"]["uid"]


def test_a_pod_that_starts_cold_is_said(kube: FakeKube, part: Restoring, eventually: Wait) -> None:
    ask(kube, pod={"template": TEMPLATE})
    wake(kube, eventually(lambda: find(kube, "one")), claimed=False)
    assert eventually(lambda: ended(kube)).reason == plans.COLD


def test_a_template_that_admission_refuses_fails_with_its_words(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    kube.fail("POST", "pods", Forbidden(403, "Forbidden", "class 'fast' is not accepted"))
    ask(kube, pod={"template": TEMPLATE})
    status = eventually(lambda: ended(kube))
    assert (status.state, status.reason) == ("Failed", plans.POD_REFUSED)
    assert "class 'fast' is not accepted" in status.message


def test_a_deployment_of_none_is_scaled_to_one(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat"},
        "spec": {"replicas": 0},
    }
    kube.seed(deployment)
    ask(kube, owner={"kind": "Deployment", "name": "chat"})
    eventually(lambda: kube.get(DEPLOYMENTS, "chat", "default")["spec"]["replicas"] == 1)
    offered = {names.RESTORE_FROM: "llama-1,older"}
    going = a_pod("chat-7d9f-x1", annotations=offered, deletionTimestamp="2026-01-31T12:00:00Z")
    kube.seed(going)
    wake(kube, going, claimed=False)  # it lives still, and is not what was asked for
    pod = a_pod("chat-7d9f-x2", annotations=offered)
    kube.seed(pod)
    eventually(lambda: status_of(kube).reason == plans.STARTING)
    wake(kube, pod)
    status = eventually(lambda: ended(kube))
    assert (status.state, status.pod) == ("Succeeded", "chat-7d9f-x2")


def test_a_checkpoint_that_is_claimed_is_refused_and_nothing_is_made(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    claim = {"podUID": "u9", "node": "node-a", "pod": "faster"}
    patch = {"status": {"claim": claim}}
    kube.patch(GPUCHECKPOINTS, "llama-1", patch, "default", subresource="status")
    ask(kube, pod={"template": TEMPLATE})
    status = eventually(lambda: ended(kube))
    assert "is claimed by pod faster on node-a" in status.message
    assert find(kube, "one") is None


def test_a_pod_that_was_made_before_the_controller_died_is_taken_over(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    made = a_pod("one", labels={names.RESTORE_REQUEST: "uid-of-the-request"})
    kube.seed(made)
    begun = {"state": "Running", "startedAt": timestamps.rfc3339(SystemClock().now())}
    ask(kube, begun, uid="uid-of-the-request", pod={"template": TEMPLATE})
    status = eventually(lambda: (found := status_of(kube)).pod_uid and found)
    assert status.pod_uid == made["metadata"]["uid"]


def test_a_request_is_removed_after_its_time(
    kube: FakeKube, part: Restoring, eventually: Wait
) -> None:
    ask(kube, pod={"template": {"spec": {"containers": []}}}, forgetAfter="1s")
    eventually(lambda: not kube.list(RESTOREREQUESTS))
