"""
The shortest way through all that a node does: the first to run on a machine of another kind.

What is real: see conftest. Other files have each of its steps in full, with what can go wrong.
"""

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

HOLDER = WorkloadKey("default", "holder")
SERVE = ("serve", "--vram=60Gi", "--address=0.0.0.0")
LONG_S = 90.0


def test_a_pod_parks_for_one_that_waits_resumes_is_sealed_and_goes_on_in_another(seats):
    seats.serve("holder")
    seats.await_state("holder", "Active")
    assert seats.predict("holder")["counter"] == 1
    waits = seats.run_job("waits", "train", "--vram=60Gi", "--steps=3", "--step-seconds=0.05")
    seats.await_state(waits, "Waiting")

    with seats.agent() as agent:
        assert agent.park(HOLDER, within=LONG_S).ok
        wait_for(lambda: seats.phase(waits) == "Succeeded", "it completes", LONG_S)
        assert seats.runc_state("holder") == "paused"
        assert agent.activate(HOLDER, within=LONG_S).ok
    assert seats.runc_state("holder") == "running"
    answer = seats.predict("holder")
    assert (answer["counter"], answer["intact"]) == (2, True)

    with seats.agent() as agent:
        made = agent.checkpoint(HOLDER, name="in-short", leave_parked=True, within=LONG_S)
    assert made.ok, made
    seats.seconds_until_gone("holder")
    woken = seats.body("woken", *SERVE)
    woken["metadata"]["annotations"]["kyb.ai/restore-from"] = "in-short"
    seats.create(woken)
    answer = seats.predict("woken")
    assert (answer["counter"], answer["intact"]) == (3, True)
    assert (seats.restarts("woken"), seats.restarts(waits)) == (0, 0)
