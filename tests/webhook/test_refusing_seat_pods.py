"""What keeps a seat pod out, and how its author is told."""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.api import names
from webhook import validation

SEAT = "kyb.ai/gpu-1x-seat"
SCHEDULERS = frozenset({"default-scheduler", "kybernate"})
Make = Callable[..., Any]


def test_a_complete_pod_has_no_faults(a_complete_pod: Make) -> None:
    assert validation.faults(a_complete_pod(vram="40Gi"), SCHEDULERS) == ()


def test_a_pod_without_a_seat_is_never_looked_at(a_pod: Make, a_container: Make) -> None:
    pod = a_pod(a_container(), nodeName="n1", schedulerName="x", annotations={names.SEAT: "G0/0"})
    assert validation.faults(pod, SCHEDULERS) == ()


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        pytest.param({"nodeName": "n1"}, "spec.nodeName", id="preset-node"),
        pytest.param({"schedulerName": "volcano"}, "spec.schedulerName", id="foreign-scheduler"),
        pytest.param({"runtimeClassName": "runc"}, "spec.runtimeClassName", id="other-runtime"),
        pytest.param({"runtimeClassName": None}, "spec.runtimeClassName", id="no-runtime-class"),
    ],
)
def test_a_spec_that_slips_past_us_is_refused(a_pod: Make, spec: dict[str, Any], path: str) -> None:
    pod = a_pod(**({"runtimeClassName": "kybernate"} | spec))
    assert [fault.path for fault in validation.faults(pod, SCHEDULERS)] == [path]


@pytest.mark.parametrize(
    ("resources", "where"),
    [
        pytest.param({"limits": {SEAT: "2"}}, "limits", id="two-seats"),
        pytest.param({"limits": {SEAT: "0"}}, "limits", id="no-seat"),
        pytest.param({"limits": {SEAT: "500m"}}, "limits", id="half-a-seat"),
        pytest.param({"limits": {SEAT: "many"}}, "limits", id="not-a-number"),
        pytest.param({"requests": {SEAT: "1"}}, "requests", id="only-in-requests"),
    ],
)
def test_exactly_one_seat_is_asked_for_in_limits(
    a_pod: Make, a_container: Make, resources: dict[str, Any], where: str
) -> None:
    pod = a_pod(a_container(**resources), runtimeClassName="kybernate")
    (fault,) = validation.faults(pod, SCHEDULERS)
    assert fault.path == f"spec.containers[0].resources.{where}[{SEAT}]"


@pytest.mark.parametrize(
    "resource",
    [pytest.param(SEAT, id="the-same"), pytest.param("kyb.ai/gpu-2x-seat", id="another-size")],
)
def test_a_second_container_with_a_seat_is_refused_and_the_first_is_named(
    a_pod: Make, a_container: Make, resource: str
) -> None:
    first, second = a_container("first", limits={SEAT: "1"}), a_container(limits={resource: "1"})
    (fault,) = validation.faults(a_pod(first, second, runtimeClassName="kybernate"), SCHEDULERS)
    assert fault.path.startswith("spec.containers[1]")
    assert "first" in fault.expected


@pytest.mark.parametrize("among", ["initContainers", "ephemeralContainers"])
def test_only_an_app_container_may_have_the_seat(
    a_pod: Make, a_container: Make, among: str
) -> None:
    seated = [a_container("other", limits={SEAT: "1"})]
    pod = a_pod(a_container(), runtimeClassName="kybernate", **{among: seated})
    (fault,) = validation.faults(pod, SCHEDULERS)
    assert fault.path.startswith(f"spec.{among}[0]")


def test_nobody_but_the_agent_names_a_seat(a_complete_pod: Make) -> None:
    (fault,) = validation.faults(a_complete_pod(seat="G0/1"), SCHEDULERS)
    assert str(fault) == (
        "metadata.annotations[kyb.ai/seat]: 'G0/1' (expected nothing: the node agent writes it)"
    )


@pytest.mark.parametrize("among", ["containers", "initContainers"])
@pytest.mark.parametrize("name", ["KYB_GPU_SEAT", "KYB_GPU_GROUP", "KYB_GPU_INDICES"])
def test_a_pod_does_not_say_itself_which_seat_it_has(
    a_complete_pod: Make, among: str, name: str
) -> None:
    pod = a_complete_pod(vram="40Gi")
    container = {"name": "x", "env": [{"name": "A", "value": "b"}, {"name": name, "value": "7"}]}
    pod["spec"].setdefault(among, []).append(container)
    (fault,) = validation.faults(pod, SCHEDULERS)
    index = len(pod["spec"][among]) - 1
    words = "(expected another name: the device plugin sets it)"
    assert str(fault) == f"spec.{among}[{index}].env[1].name: '{name}' {words}"


@pytest.mark.parametrize("env", ["words", [None], [{}], [{"name": []}], {"name": "KYB_GPU_SEAT"}])
def test_an_environment_that_is_none_is_the_api_servers_to_refuse(
    a_complete_pod: Make, env: object
) -> None:
    pod = a_complete_pod(vram="40Gi")
    pod["spec"]["containers"][0]["env"] = env
    assert not validation.faults(pod, SCHEDULERS)


def test_every_fault_is_named_at_once_with_its_value_and_what_is_accepted(a_pod: Make) -> None:
    annotations = {names.VRAM: "much", names.CLASS: "gaming", "kyb.ai/vrma": "40Gi"}
    pod = a_pod(annotations=annotations, nodeName="n1", schedulerName="volcano")
    text = "; ".join(map(str, validation.faults(pod, SCHEDULERS)))
    for part in (
        "much",
        "40Gi",
        "gaming",
        "inference",
        "kyb.ai/vrma",
        "n1",
        "volcano",
        "kybernate",
    ):
        assert part in text
