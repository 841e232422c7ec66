"""A decision is told twice: as an event, and in the status of its GpuWorkload."""

from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.api import gpuworkloads
from kybernate.clients.decisions import DecisionRecorder
from kybernate.clients.errors import Conflict
from kybernate.clients.events import EventRecorder
from kybernate.clients.resources import EVENTS, GPUWORKLOADS
from kybernate.model.verdict import Decision, EventReason
from kybernate.testing.builders import a_workload
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

WORKLOAD = a_workload("llama-a")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(gpuworkloads.new_object(WORKLOAD))


@pytest.fixture
def decisions(kube: FakeKube, clock: FakeClock) -> Iterator[DecisionRecorder]:
    events = EventRecorder(kube, "kyb.ai/agent", "node-a", clock)
    recorder = DecisionRecorder(kube, events, clock)
    yield recorder
    recorder.stop()
    events.stop()


def a_decision(message: str = "4.1 s = park llama-b 1.2", seconds: float = 4.1) -> Decision:
    return Decision(
        time="2026-01-31T12:00:00Z",
        reason=EventReason.PLACED,
        message=message,
        revision="sha256:0123456789ab",
        seconds=seconds,
    )


def kept(kube: FakeKube) -> list[str]:
    obj = kube.get(GPUWORKLOADS, "llama-a", "default")
    return [decision.message for decision in gpuworkloads.read_decisions(obj)]


def test_it_is_an_event_on_the_pod_and_an_entry_in_the_status(
    kube: FakeKube, decisions: DecisionRecorder
) -> None:
    decisions.record(WORKLOAD, a_decision(), "Scheduling", related=a_workload("llama-b"))
    assert decisions.flush(10)
    (event,) = kube.list(EVENTS, "default")
    assert (event["reason"], event["action"]) == ("Placed", "Scheduling")
    assert event["note"] == "4.1 s = park llama-b 1.2"
    assert event["regarding"]["uid"] == "uid-llama-a"
    assert event["related"]["name"] == "llama-b"
    status = kube.get(GPUWORKLOADS, "llama-a", "default")["status"]
    assert status["decisions"] == [
        {
            "time": "2026-01-31T12:00:00Z",
            "reason": "Placed",
            "message": "4.1 s = park llama-b 1.2",
            "revision": "sha256:0123456789ab",
            "seconds": 4.1,
        }
    ]


def test_the_rest_of_the_status_is_left_alone(kube: FakeKube, decisions: DecisionRecorder) -> None:
    state = {"status": {"state": "Active", "why": "its turn"}}
    kube.patch(GPUWORKLOADS, "llama-a", state, "default", subresource="status")
    decisions.record(WORKLOAD, a_decision(), "Scheduling")
    assert decisions.flush(10)
    status = kube.get(GPUWORKLOADS, "llama-a", "default")["status"]
    assert (status["state"], status["why"]) == ("Active", "its turn")


def test_the_last_ten_are_kept_oldest_first(kube: FakeKube, decisions: DecisionRecorder) -> None:
    for index in range(13):
        decisions.record(WORKLOAD, a_decision(f"decision {index}"), "Scheduling")
    assert decisions.flush(10)
    assert kept(kube) == [f"decision {index}" for index in range(3, 13)]


def test_a_writer_that_came_between_loses_nothing(
    kube: FakeKube, decisions: DecisionRecorder, clock: FakeClock, until: Any
) -> None:
    kube.fail("PATCH", "gpuworkloads", Conflict(409, "Conflict", "changed"), times=2)
    decisions.record(WORKLOAD, a_decision("mine"), "Scheduling")
    until(lambda: clock.advance(1.0) or decisions.flush(0.01))
    assert kept(kube) == ["mine"]


def test_a_workload_that_is_not_there_yet_is_waited_for_and_holds_up_nobody(
    kube: FakeKube, decisions: DecisionRecorder, clock: FakeClock, until: Any
) -> None:
    late = a_workload("late")
    decisions.record(late, a_decision("first"), "Scheduling")
    decisions.record(late, a_decision("second"), "Scheduling")
    decisions.record(WORKLOAD, a_decision("at once"), "Scheduling")
    until(lambda: kept(kube) == ["at once"])
    kube.seed(gpuworkloads.new_object(late))
    until(lambda: clock.advance(1.0) or decisions.flush(0.01))
    obj = kube.get(GPUWORKLOADS, "late", "default")
    assert [one.message for one in gpuworkloads.read_decisions(obj)] == ["first", "second"]


def test_a_workload_that_never_comes_is_given_up_and_counted(
    kube: FakeKube, decisions: DecisionRecorder, clock: FakeClock, until: Any
) -> None:
    never = a_workload("never")
    decisions.record(never, a_decision(), "Scheduling")
    until(lambda: clock.advance(5.0) or decisions.dropped == 1)
    kube.seed(gpuworkloads.new_object(never))
    decisions.record(never, a_decision("after all"), "Scheduling")
    assert decisions.flush(10)
    obj = kube.get(GPUWORKLOADS, "never", "default")
    assert [one.message for one in gpuworkloads.read_decisions(obj)] == ["after all"]


def test_a_decision_about_an_earlier_life_of_the_name_is_not_written(
    kube: FakeKube, decisions: DecisionRecorder
) -> None:
    decisions.record(a_workload("llama-a", uid="uid-before"), a_decision(), "Scheduling")
    assert decisions.flush(10)
    assert kept(kube) == []


def test_decisions_made_in_an_outage_are_written_after_it_in_order(
    kube: FakeKube, decisions: DecisionRecorder, clock: FakeClock, until: Any
) -> None:
    kube.outage()
    for index in range(3):
        decisions.record((WORKLOAD.key, WORKLOAD.uid), a_decision(f"decision {index}"), "Parking")
    kube.recover()
    until(lambda: clock.advance(1.0) or decisions.flush(0.01))
    assert kept(kube) == ["decision 0", "decision 1", "decision 2"]


def test_the_same_decision_again_only_moves_its_time() -> None:
    first, again = a_decision(), a_decision(seconds=5.0)
    assert gpuworkloads.append((first,), again) == (again,)
