"""GpuWorkloads follow their pods; what people wish stays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from controller import workloads
from controller.workloads import Plan, Present, SeatPod, Workloads
from kybernate.api import gpuworkloads
from kybernate.clients.errors import NotFound
from kybernate.clients.resources import GPUWORKLOADS, PODS
from kybernate.model.ids import PodUid, ResourceName
from kybernate.model.workload import Desired, Wishes, WorkloadClass
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod, a_workload
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
POD = SeatPod(a_workload(), finished=False)
SPEC = gpuworkloads.read_spec(gpuworkloads.new_object(POD.workload))


def present(**changes: Any) -> Present:
    return Present("gw-uid", dataclasses.replace(SPEC, **changes))


@pytest.mark.parametrize(
    ("pod", "found", "expected"),
    [
        pytest.param(POD, None, Plan.CREATE, id="a-new-pod"),
        pytest.param(POD, present(), Plan.NOTHING, id="all-is-well"),
        pytest.param(None, present(), Plan.NOTHING, id="a-gone-pod-is-the-garbage-collectors"),
        pytest.param(dataclasses.replace(POD, finished=True), None, Plan.NOTHING, id="finished"),
        pytest.param(POD, present(pod_uid=PodUid("before")), Plan.REPLACE, id="an-earlier-pod"),
        pytest.param(
            POD, present(resource=ResourceName("kyb.ai/gpu-2x-seat")), Plan.REPLACE, id="other-seat"
        ),
        pytest.param(POD, present(priority=7), Plan.AMEND, id="another-priority"),
        pytest.param(POD, present(vram=1), Plan.AMEND, id="another-size"),
        pytest.param(
            POD, present(workload_class=WorkloadClass.BATCH), Plan.AMEND, id="another-class"
        ),
        pytest.param(
            dataclasses.replace(POD, finished=True), present(), Plan.FINISH, id="the-pod-ended"
        ),
        pytest.param(
            dataclasses.replace(POD, finished=True),
            dataclasses.replace(present(), finished=True),
            Plan.NOTHING,
            id="the-pod-ended-and-that-is-said",
        ),
        pytest.param(POD, present(desired=Desired.PARKED), Plan.NOTHING, id="a-persons-wish"),
    ],
)
def test_what_is_done_for_a_pod(pod: SeatPod | None, found: Present | None, expected: Plan) -> None:
    assert workloads.plan(pod, found) is expected


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def the_gpuworkload(kube: FakeKube, name: str = "llama-a") -> dict[str, Any] | None:
    try:
        return kube.get(GPUWORKLOADS, name, "default")
    except NotFound:
        return None


def test_pods_that_are_there_and_pods_that_come_get_theirs(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    kube.seed(a_pod("llama-a", annotations={"kyb.ai/vram": "40Gi"}), a_pod("web", resource=None))
    with running(Workloads(kube, SystemClock())):
        made = eventually(lambda: the_gpuworkload(kube))
        kube.seed(a_pod("llama-b"))
        eventually(lambda: the_gpuworkload(kube, "llama-b"))
    owner = made["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", "uid-llama-a", True)
    assert made["spec"]["vramBytes"] == 40 * 1024**3
    assert the_gpuworkload(kube, "web") is None


def test_an_earlier_pods_gpuworkload_is_replaced_with_a_fresh_wish(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    old = gpuworkloads.new_object(a_workload(uid=PodUid("before")))
    old["spec"]["desired"] = "Parked"
    kube.seed(old, a_pod("llama-a"))

    def replaced() -> dict[str, Any] | None:
        found = the_gpuworkload(kube)
        return found if found and found["spec"]["podUID"] == "uid-llama-a" else None

    with running(Workloads(kube, SystemClock())):
        assert eventually(replaced)["spec"]["desired"] == "Auto"


def test_a_changed_pod_changes_its_part_and_never_a_persons(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    kube.seed(a_pod("llama-a", annotations={"kyb.ai/vram": "40Gi"}))
    with running(Workloads(kube, SystemClock())):
        eventually(lambda: the_gpuworkload(kube))
        kube.patch(GPUWORKLOADS, "llama-a", {"spec": {"desired": "Parked"}}, "default")
        patch = {"metadata": {"annotations": {"kyb.ai/vram": None, "kyb.ai/class": "batch"}}}
        kube.patch(PODS, "llama-a", patch, "default")
        changed = eventually(
            lambda: (
                (found := the_gpuworkload(kube))
                and found["spec"]["class"] == "batch"
                and found["spec"]
            )
        )
    assert "vramBytes" not in changed
    assert changed["desired"] == "Parked"


def test_one_that_is_deleted_by_hand_comes_back(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    kube.seed(a_pod("llama-a"))
    with running(Workloads(kube, SystemClock())):
        first = eventually(lambda: the_gpuworkload(kube))["metadata"]["uid"]
        kube.delete(GPUWORKLOADS, "llama-a", "default")
        eventually(lambda: (found := the_gpuworkload(kube)) and found["metadata"]["uid"] != first)


def test_work_goes_on_after_an_outage_of_the_api_server(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    with running(Workloads(kube, SystemClock())):
        kube.outage()
        kube.seed(a_pod("llama-a"))
        kube.recover()
        eventually(lambda: the_gpuworkload(kube))


def test_wishes_of_a_workload_stand_in_its_object() -> None:
    wishes = Wishes(vram=None, workload_class=WorkloadClass.TRAINING)
    spec = gpuworkloads.read_spec(gpuworkloads.new_object(a_workload(wishes=wishes, priority=5)))
    assert (spec.workload_class, spec.vram, spec.priority) == (WorkloadClass.TRAINING, None, 5)


def test_a_pod_that_ended_is_said_to_have_freed_its_seat(
    kube: FakeKube, running: Wait, eventually: Wait
) -> None:
    kube.seed(a_pod("llama-a"))
    with running(Workloads(kube, SystemClock())):
        eventually(lambda: the_gpuworkload(kube))
        kube.seed(a_pod("llama-a") | {"status": {"phase": "Succeeded"}})
        found = eventually(lambda: (the_gpuworkload(kube) or {}).get("status"))
    assert found["conditions"][0]["type"] == gpuworkloads.FINISHED
