"""What a probe comes to, by where its workload stands."""

import pytest

from kybernate.decisions.probing import RESUME_GRACE_S, Course, Standing, at_once, judged
from kybernate.model.ids import WorkloadKey
from kybernate.model.probing import PROBES, Asked, Kind, Outcome, TcpSocket
from kybernate.model.workload import State

KEY = WorkloadKey("default", "one")
NOW = 1000.0
FAILED = Outcome(passed=False, say="refused")
WITHOUT = [s for s in State if s not in (State.ACTIVE, State.ABSENT)]


def standing(state=State.ACTIVE, **more):
    return Standing(**{"key": KEY, "state": state, "active_since": 900.0, **more})


def probe(kind=Kind.LIVENESS, **more):
    return Asked(kind=kind, action=TcpSocket(port=80), **more)


def came(asked, *, before=None, after=None, course=None, outcome=FAILED):
    before = before or standing()
    return judged(asked, outcome, before, after or before, course or Course(ran=1e6), NOW)


@pytest.mark.parametrize("state", WITHOUT)
@pytest.mark.parametrize("kind", [Kind.LIVENESS, Kind.STARTUP])
def test_one_without_its_gpu_is_alive(state, kind):
    answer = at_once(kind, standing(state))
    assert answer.passed
    assert answer.say == f"alive: default/one is {state}: it does not have its GPU now"


@pytest.mark.parametrize(
    ("state", "more", "ready"),
    [
        pytest.param(State.PARKED, {}, True, id="parked"),
        pytest.param(State.PARKING, {}, True, id="parking"),
        pytest.param(State.SEALING, {}, True, id="sealing"),
        pytest.param(State.ACTIVATING, {}, True, id="resuming"),
        pytest.param(State.ACTIVATING, {"begun": False}, False, id="starting"),
        pytest.param(State.WAITING, {"begun": False}, False, id="waiting"),
        pytest.param(State.WAKING, {}, False, id="waking"),
        pytest.param(State.QUARANTINED, {}, False, id="quarantined"),
        pytest.param(State.PARKED, {"ready_only_active": True}, False, id="only-active"),
    ],
)
def test_one_without_its_gpu_is_ready_when_who_connects_will_be_answered(state, more, ready):
    assert at_once(Kind.READINESS, standing(state, **more)).passed is ready


@pytest.mark.parametrize("state", [State.ACTIVE, State.ABSENT])
@pytest.mark.parametrize("kind", PROBES)
def test_one_with_its_gpu_is_asked(state, kind):
    assert at_once(kind, standing(state)) is None


@pytest.mark.parametrize("kind", PROBES)
def test_a_failure_of_one_with_its_gpu_counts(kind):
    assert came(probe(kind)) == FAILED
    assert came(probe(kind), outcome=Outcome(passed=True)).passed


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(standing(State.PARKED, active_since=None), id="parked-since"),
        pytest.param(standing(active_since=950.0), id="parked-and-resumed-since"),
    ],
)
def test_a_probe_that_was_caught_by_a_park_has_not_failed(after):
    assert came(probe(), after=after).passed


@pytest.mark.parametrize("kind", PROBES)
def test_a_failure_right_after_a_resume_does_not_count(kind):
    resumed = standing(resumed=True, active_since=NOW - RESUME_GRACE_S + 0.1)
    assert came(probe(kind), before=resumed).passed
    later = standing(resumed=True, active_since=NOW - RESUME_GRACE_S)
    assert came(probe(kind), before=later) == FAILED


def test_one_that_waited_may_load_as_long_as_its_startup_probe_allows_after_its_release():
    asked = probe(startup=60)
    assert came(asked, course=Course(ran=59.0)).passed
    assert "1 s left to load" in came(asked, course=Course(ran=59.0)).say
    assert came(asked, course=Course(ran=60.0)) == FAILED
    assert came(asked, course=Course(ran=59.0, passed=True)) == FAILED


def test_a_probes_initial_delay_counts_from_the_release_too():
    assert came(probe(delay=20), course=Course(ran=19.0, passed=True)).passed
    assert came(probe(delay=20), course=Course(ran=20.0)) == FAILED


def test_one_that_loads_is_not_ready():
    asked = probe(Kind.READINESS, delay=20, startup=60)
    assert came(asked, course=Course(ran=1.0)) == FAILED
