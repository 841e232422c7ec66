"""Pods on seats of a real node wait, are let go, park and resume. What is real: see conftest."""

import subprocess
from datetime import datetime

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

# What the webhook makes of a user's exec probe; only the last word is the user's.
PROBE = {"exec": {"command": ["kyb-probe", "liveness", "--", "true"]}}
REQUEST_TIMEOUT_S = 10.0  # the node's kubelet gives up on its runtime after this
PROMPT_S = 15.0  # half of the grace period that it would take to wait it out
GONE_S = 3.0


def test_a_job_waits_for_its_gpu_longer_than_the_kubelets_patience_and_completes(seats):
    seats.serve("holder", probe=PROBE)
    seats.await_state("holder", "Active")
    assert seats.predict("holder")["counter"] == 1
    train = ("train", "--vram=60Gi", "--steps=3", "--step-seconds=0.05")
    waits = seats.run_job("waits", *train, probe=PROBE)
    seats.await_state(waits, "Waiting")
    wait_for(lambda: seconds_running(seats, waits) > 1.5 * REQUEST_TIMEOUT_S, "it waited", 60.0)
    assert (seats.phase(waits), seats.restarts(waits)) == ("Running", 0)
    assert seats.plane.kubectl("logs", waits) == ""

    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "holder"), within=60.0).ok
        wait_for(lambda: seats.phase(waits) == "Succeeded", "it completes", 60.0)
        assert agent.activate(WorkloadKey("default", "holder"), within=60.0).ok
    answer = seats.predict("holder")
    assert (answer["counter"], answer["intact"]) == (2, True)
    assert (seats.restarts("holder"), seats.restarts(waits)) == (0, 0)


def test_a_parked_pod_stays_running_and_says_why_nothing_can_be_run_in_it(seats):
    seats.serve("parked", probe=PROBE)
    seats.await_state("parked", "Active")
    assert exec_into(seats, "parked").returncode == 0
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "parked"), within=60.0).ok
    refused = exec_into(seats, "parked")
    assert refused.returncode == 126
    assert "default/parked is Parked: it does not have its GPU now" in refused.stderr
    with_terminal = exec_into(seats, "parked", "--stdin", "--tty")
    assert with_terminal.returncode != 0
    assert "default/parked is Parked" in with_terminal.stderr + with_terminal.stdout
    assert seats.runc_state("parked") == "paused"
    assert seats.phase("parked") == "Running"


@pytest.mark.parametrize("state", ["Waiting", "Parked"])
def test_a_pod_without_its_gpu_is_gone_promptly_when_it_is_deleted(seats, state):
    seats.serve("first")
    seats.await_state("first", "Active")
    if state == "Parked":
        with seats.agent() as agent:
            assert agent.park(WorkloadKey("default", "first"), within=60.0).ok
        leaving = "first"
    else:
        seats.serve("second")
        seats.await_state("second", "Waiting")
        assert seats.runc_state("second") == "created"
        leaving = "second"
    seats.run_plain("plain", seat=False)
    usual, took = (seats.seconds_until_gone(name, within=PROMPT_S) for name in ("plain", leaving))
    print(f"{state}: gone after {took:.1f} s, a plain pod without a grace period after {usual:.1f}")
    assert took < max(GONE_S, 2 * usual)  # the second where the machine is busy
    wait_for(lambda: seats.state(leaving) == "", "the agent knows", PROMPT_S)


def test_containers_are_held_while_the_agent_is_away_and_let_go_when_it_is_back(seats):
    seats.serve("before")
    seats.await_state("before", "Active")
    seats.kill_agent()
    try:
        seats.serve("meanwhile")
        assert seats.runc_state("meanwhile") == "created"
    finally:
        seats.start_agent()
    seats.await_state("meanwhile", "Waiting")
    assert seats.predict("before")["intact"]
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "before"), within=60.0).ok
    seats.await_state("meanwhile", "Active")
    assert seats.predict("meanwhile")["intact"]
    assert seats.runc_state("meanwhile") == "running"


def test_nobody_is_lost_when_kubelet_containerd_and_agent_are_restarted(seats):
    seats.serve("parked", probe=PROBE)
    seats.await_state("parked", "Active")
    assert seats.predict("parked")["counter"] == 1
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "parked"), within=60.0).ok
    seats.serve("active")
    seats.await_state("active", "Active")
    assert seats.predict("active")["counter"] == 1
    seats.serve("waiting", probe=PROBE)
    seats.await_state("waiting", "Waiting")

    node = seats.node
    node.stop_kubelet()
    node.stop_containerd()
    seats.kill_agent()
    node.start_containerd()
    node.start_kubelet()
    seats.start_agent()
    seats.await_state("parked", "Parked")
    seats.await_state("waiting", "Waiting")
    assert seats.predict("active")["counter"] == 2

    seats.plane.kubectl("delete", "pod", "active", "--wait=false")
    seats.await_state("waiting", "Active")
    assert seats.predict("waiting")["counter"] == 1
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "waiting"), within=60.0).ok
        assert agent.activate(WorkloadKey("default", "parked"), within=60.0).ok
    answer = seats.predict("parked")
    assert (answer["counter"], answer["intact"]) == (2, True)
    assert (seats.restarts("parked"), seats.restarts("waiting")) == (0, 0)


def test_a_pod_of_the_same_name_is_another_one_also_while_the_first_is_still_ending(seats):
    seats.serve("again")
    seats.await_state("again", "Active")
    assert seats.predict("again")["counter"] == 1
    before = seats.pod("again")["metadata"]["uid"]
    seats.plane.kubectl("delete", "pod", "again", "--force", "--grace-period=0")
    seats.serve("again")
    seats.await_state("again", "Active")
    assert seats.pod("again")["metadata"]["uid"] != before
    assert seats.predict("again")["counter"] == 1


def test_what_stops_a_container_is_said_in_the_pods_events(seats):
    seats.create(seats.body("wrong", "serve", "--vram=10Gi", runtime="misconfigured"))

    def events():
        return seats.plane.kubectl("describe", "pod", "wrong")

    wait_for(lambda: "not 'sokcet'" in events(), "it is said", 60.0)
    assert "kybernate: runtime.conf: known are runc, socket, agent-wait" in events()


def test_pods_without_a_seat_are_made_as_always(seats):
    seats.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "plain", "namespace": "default"},
            "spec": {
                "nodeName": "seats-1",
                "runtimeClassName": "real-misconfigured",
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "c",
                        "image": "kyb.test/box:1",
                        "imagePullPolicy": "Never",
                        "command": ["sleep", "1000"],
                    }
                ],
            },
        }
    )
    wait_for(lambda: seats.phase("plain") == "Running", "it runs", 60.0)
    assert exec_into(seats, "plain").returncode == 0


def seconds_running(seats, name):
    """By the kubelet's own word."""
    (one,) = seats.pod(name)["status"]["containerStatuses"]
    began = datetime.fromisoformat(one["state"]["running"]["startedAt"])
    return SystemClock().now() - began.timestamp()


def exec_into(seats, name, *flags):
    argv = [seats.plane.kubectl_program, f"--kubeconfig={seats.plane.admin_kubeconfig}"]
    argv += ["exec", *flags, name, "--", "true"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
