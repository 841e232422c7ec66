"""GpuWorkload: made by the controller, written by the agent, read by people."""

from typing import Any

import pytest

from kybernate.api import gpuworkloads
from kybernate.api.errors import Malformed
from kybernate.api.gpuworkloads import Phase, Status
from kybernate.model.ids import WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import Desired, State, Wishes, WorkloadClass
from kybernate.testing.builders import GIB, a_workload

STATUS = Status(
    state=State.PARKED,
    since=1_700_000_000.0,
    node="node-a",
    group="G0",
    seat="G0/1",
    tier=Tier.RAM,
    mechanism="simulated",
    why="llama-b has the GPU for 12 s more",
    seconds_in={State.ACTIVE: 12.345, State.PARKED: 3.0},
    last_switch=(
        Phase(name="park", seconds=1.2, size=40 * GIB),
        Phase(name="verify", seconds=0.004),
    ),
    last_switch_seconds=1.25,
)


def test_the_object_is_named_after_its_pod_and_goes_with_it() -> None:
    obj = gpuworkloads.new_object(a_workload("llama-a", priority=7))
    assert obj["apiVersion"] == "kyb.ai/v1alpha1"
    assert (obj["metadata"]["namespace"], obj["metadata"]["name"]) == ("default", "llama-a")
    (owner,) = obj["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "llama-a", "uid-llama-a")
    assert obj["spec"] == {
        "desired": "Auto",
        "podUID": "uid-llama-a",
        "resource": "kyb.ai/gpu-1x-seat",
        "class": "inference",
        "priority": 7,
        "vramBytes": 40 * GIB,
    }


def test_a_workload_that_names_no_vram_leaves_it_out() -> None:
    obj = gpuworkloads.new_object(a_workload(wishes=Wishes()))
    assert "vramBytes" not in obj["spec"]
    assert gpuworkloads.read_spec(obj).vram is None


def test_the_spec_is_read_with_what_people_changed() -> None:
    obj = gpuworkloads.new_object(a_workload("llama-a"))
    obj["spec"] |= {"desired": "Parked", "class": "batch"}
    spec = gpuworkloads.read_spec(obj)
    assert spec.key == WorkloadKey("default", "llama-a")
    assert (spec.desired, spec.workload_class) == (Desired.PARKED, WorkloadClass.BATCH)
    assert spec.vram == 40 * GIB


def test_what_the_agent_writes_is_read_back_the_same() -> None:
    assert gpuworkloads.read_status({"status": gpuworkloads.write_status(STATUS)}) == STATUS


def test_a_state_without_a_switch_is_read_back_too() -> None:
    plain = Status(state=State.WAITING, since=1.0)
    written = gpuworkloads.write_status(plain)
    assert gpuworkloads.read_status({"status": written}) == plain
    assert written["tier"] is None, "a merge patch removes what is no longer so"


def test_before_the_agents_first_report_there_is_no_status() -> None:
    obj: dict[str, Any] = gpuworkloads.new_object(a_workload())
    assert gpuworkloads.read_status(obj) is None
    assert gpuworkloads.read_decisions(obj) == ()
    obj["status"] = {"decisions": []}
    assert gpuworkloads.read_status(obj) is None


def test_decisions_are_read_back_the_same() -> None:
    decisions = (
        Decision(time="t", reason=EventReason.PLACED, message="4.1 s", seconds=4.1, revision="r"),
        Decision(time="t", reason=EventReason.PARKED, message=""),
    )
    obj = {"status": {"decisions": gpuworkloads.write_decisions(decisions)}}
    assert gpuworkloads.read_decisions(obj) == decisions


def test_every_fault_is_told_at_once() -> None:
    obj = {"metadata": {"name": "x"}, "spec": {"desired": "Soon", "class": "x", "vramBytes": "1"}}
    with pytest.raises(Malformed) as caught:
        gpuworkloads.read_spec(obj)
    assert [fault.path for fault in caught.value.faults] == [
        "spec.podUID",
        "spec.resource",
        "spec.desired",
        "spec.class",
        "spec.vramBytes",
    ]


def test_an_unreadable_status_is_refused_with_its_paths() -> None:
    status = {"state": "Dancing", "secondsIn": {"Active": -1}, "lastSwitch": {"phases": [{}]}}
    with pytest.raises(Malformed) as caught:
        gpuworkloads.read_status({"status": status})
    assert [fault.path for fault in caught.value.faults] == [
        "status.state",
        "status.secondsIn.Active",
        "status.lastSwitch.phases[0].name",
        "status.lastSwitch.phases[0].seconds",
    ]


def test_a_workload_no_agent_knows_has_no_status_though_its_column_is_not_empty() -> None:
    made = gpuworkloads.new_object(a_workload())
    assert gpuworkloads.read_status(made) is None
    assert gpuworkloads.read_status({**made, "status": {"state": "Absent"}}) is None
    ended = {"state": "Absent", "node": "node-a", "since": "2026-01-31T12:00:00Z"}
    status = gpuworkloads.read_status({**made, "status": ended})
    assert status is not None
    assert (status.state, status.node) == (State.ABSENT, "node-a")
