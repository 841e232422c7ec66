"""A GpuNode whose agent does not renew its Lease is Unknown, and Ready again when it does."""

from collections.abc import Callable
from typing import Any

import pytest

from controller import readiness
from controller.readiness import AWAY, Pulse, Readiness, Ready
from kybernate.api import gpunodes
from kybernate.clients.leases import LeaseHeartbeat
from kybernate.clients.resources import GPUNODES
from kybernate.testing.clock import START, FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
SYSTEM = "kyb-system"
READY, GONE = Ready("True", "AgentReports"), Ready("Unknown", AWAY)


@pytest.mark.parametrize(
    ("ready", "pulse", "expected"),
    [
        pytest.param(READY, Pulse(at=61, renewed=True), None, id="it-lives"),
        pytest.param(READY, Pulse(at=59), False, id="it-is-silent"),
        pytest.param(Ready("False", "NoGpus"), Pulse(at=59), False, id="unready-and-silent"),
        pytest.param(GONE, Pulse(at=59), None, id="silent-and-marked"),
        pytest.param(GONE, Pulse(at=61, renewed=True), True, id="it-is-back"),
        pytest.param(GONE, Pulse(at=61), None, id="nobody-saw-it-come-back"),
        pytest.param(Ready("Unknown", ""), Pulse(at=61, renewed=True), None, id="not-our-word"),
    ],
)
def test_what_is_written(ready: Ready, pulse: Pulse, expected: bool | None) -> None:
    assert readiness.plan(ready, pulse, now=100.0) is expected


def a_gpunode(name: str, since: float = START) -> dict[str, Any]:
    other = {"type": "Other", "status": "True", "reason": "X", "lastTransitionTime": "t"}
    conditions = [other, gpunodes.ready_condition(True, since)]
    return {**gpunodes.new_object(name), "status": {"conditions": conditions}}  # type: ignore[arg-type]


def ready_of(kube: FakeKube, name: str = "n1") -> tuple[str, str]:
    conditions = kube.get(GPUNODES, name)["status"]["conditions"]
    assert {c["type"] for c in conditions} == {"Ready", "Other"}
    (found,) = (c for c in conditions if c["type"] == "Ready")
    return found["status"], found["reason"]


def test_silence_is_written_once_it_lasts_and_undone_by_the_next_beat(
    running: Wait, eventually: Wait
) -> None:
    clock = FakeClock()
    kube = FakeKube(a_gpunode("n1"), clock=clock, namespace=SYSTEM)
    heart = LeaseHeartbeat(kube, SYSTEM, "kyb-agent-n1", "n1", clock)
    assert heart.beat()
    with running(Readiness(kube, clock, SYSTEM)) as part:
        clock.advance(39)
        part.look("n1")
        assert ready_of(kube) == ("True", "AgentReports")
        clock.advance(2)
        part.look("n1")
        assert ready_of(kube) == ("Unknown", AWAY)
        assert heart.beat()
        eventually(lambda: ready_of(kube) == ("True", "AgentReports"))


def test_a_controller_that_just_started_does_not_call_a_dead_agent_back(running: Wait) -> None:
    clock = FakeClock()
    kube = FakeKube(a_gpunode("n1"), clock=clock, namespace=SYSTEM)
    LeaseHeartbeat(kube, SYSTEM, "kyb-agent-n1", "n1", clock).beat()
    with running(Readiness(kube, clock, SYSTEM)) as part:
        clock.advance(41)
        part.look("n1")
    with running(Readiness(kube, clock, SYSTEM)) as part:
        part.look("n1")
        assert ready_of(kube) == ("Unknown", AWAY)


def test_an_agent_without_a_lease_has_a_while_to_write_its_first(running: Wait) -> None:
    clock = FakeClock()
    kube = FakeKube(a_gpunode("n1"), clock=clock, namespace=SYSTEM)
    with running(Readiness(kube, clock, SYSTEM)) as part:
        assert part.look("n1") == pytest.approx(readiness.NO_LEASE, abs=1)
        clock.advance(readiness.NO_LEASE + 1)
        part.look("n1")
        assert ready_of(kube)[0] == "Unknown"


def test_silence_while_leases_cannot_be_watched_is_nobodys_fault(
    running: Wait, eventually: Wait
) -> None:
    clock = FakeClock()
    kube = FakeKube(a_gpunode("n1"), clock=clock, namespace=SYSTEM)
    heart = LeaseHeartbeat(kube, SYSTEM, "kyb-agent-n1", "n1", clock)
    assert heart.beat()
    with running(Readiness(kube, clock, SYSTEM)) as part:
        part.look("n1")
        kube.outage()
        eventually(lambda: not any(watch.following for watch in part.watches))
        clock.advance(300)
        assert part.look("n1") == readiness.UNSYNCED
        kube.recover()
        eventually(lambda: all(watch.following for watch in part.watches))
        assert part.look("n1") == pytest.approx(readiness.NO_LEASE, abs=1)
        assert ready_of(kube) == ("True", "AgentReports")
