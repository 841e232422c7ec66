"""What the light node reads of a pod, and what it writes of it."""

import sys

import pytest

from testbed.lightnode import podspec, podstatus
from testbed.lightnode.podspec import Facts, NotRunnable
from testbed.lightnode.podstatus import Ended, PodState, Running, Waiting


def pod(*command, **spec):
    container = {"name": "main", "image": "i", "command": list(command), **spec.pop("more", {})}
    return {
        "metadata": {
            "namespace": "n", "name": "p", "uid": "u",
            "labels": {"app": "x"}, "annotations": {"kyb.ai/seat": "G0/1"},
        },
        "spec": {"containers": [container], "nodeName": "node-a", **spec},
    }  # fmt: skip


def environment(entries, given=None):
    made = pod("true", more={"env": entries})
    facts = Facts(pod=made, pod_ip="127.1.2.3", host_ip="127.0.0.1")
    return podspec.environment(podspec.read(made), facts, given or {})


def field(path):
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "n"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['kyb.ai/seat']", "G0/1"),
        ("metadata.annotations['absent']", ""),
        ("spec.nodeName", "node-a"),
        ("status.podIP", "127.1.2.3"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_fields_of_the_pod_become_variables(path, value):
    assert environment([field(path)])["X"] == value


@pytest.mark.parametrize("path", ["spec.volumes", "metadata.labels"])
def test_a_field_nobody_knows_is_refused(path):
    with pytest.raises(NotRunnable, match="no field"):
        environment([field(path)])


def test_what_devices_give_can_be_referred_to_and_the_spec_has_the_last_word():
    made = environment(
        [{"name": "Y", "value": "$(GPU)/$(Z)/$$(GPU)"}, {"name": "OWN", "value": "spec"}],
        {"GPU": "0", "OWN": "device"},
    )
    assert made["Y"] == "0/$(Z)/$(GPU)"
    assert made["OWN"] == "spec"
    assert made["POD_IP"] == "127.1.2.3"


def test_python_is_the_interpreter_that_runs_us():
    spec = podspec.read(pod("python", "-m", "$(A)"))
    assert podspec.command(spec, {"A": "x"}) == [sys.executable, "-m", "x"]


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(pod(), id="no-command"),
        pytest.param(pod("true", initContainers=[{}]), id="init-container"),
        pytest.param(pod("true", containers=[{}, {}]), id="two-containers"),
    ],
)
def test_what_needs_a_real_kubelet_is_refused(made):
    with pytest.raises(NotRunnable):
        podspec.read(made)


def test_extended_resources_are_wanted_and_native_ones_are_not():
    limits = {"cpu": "1", "kyb.ai/gpu-1x-seat": "1", "a.b/c": "0", "x.kubernetes.io/y": "1"}
    assert podspec.read(pod("true", more={"resources": {"limits": limits}})).wanted == {
        "kyb.ai/gpu-1x-seat": 1
    }


def status(made=None, **state):
    full = PodState(phase="Running", started_at=0.0, host_ip="127.0.0.1", **state)
    return podstatus.status(made or pod("true"), full, "main", "i")


def truth(body, kind):
    (found,) = [c["status"] for c in body["conditions"] if c["type"] == kind]
    return found


def test_a_gate_that_is_not_open_keeps_the_pod_unready():
    gated = pod("true", readinessGates=[{"conditionType": "kyb.ai/Active"}])
    body = status(gated, container=Running(since=1.0))
    assert (truth(body, "ContainersReady"), truth(body, "Ready")) == ("True", "False")
    gated["status"] = {"conditions": [{"type": "kyb.ai/Active", "status": "True"}]}
    assert truth(status(gated, container=Running(since=1.0)), "Ready") == "True"


@pytest.mark.parametrize(
    ("container", "state", "ready"),
    [
        pytest.param(Running(since=1.0), "running", "True", id="running"),
        pytest.param(Waiting(reason="CrashLoopBackOff"), "waiting", "False", id="waiting"),
        pytest.param(Ended(exit_code=1, since=1.0, at=2.0), "terminated", "False", id="ended"),
    ],
)
def test_a_container_is_in_one_state(container, state, ready):
    body = status(container=container)
    assert list(body["containerStatuses"][0]["state"]) == [state]
    assert truth(body, "Ready") == ready


def test_a_pod_that_was_not_admitted_says_why_and_has_no_container():
    body = status(failure=("UnexpectedAdmissionError", "no seat"))
    assert (body["reason"], body["message"]) == ("UnexpectedAdmissionError", "no seat")
    assert "containerStatuses" not in body
