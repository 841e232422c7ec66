"""Pods bound to a light node run, are held, restart, end and are reported as a kubelet would."""

import json
import urllib.request

import pytest

from kybernate.clients.errors import NotFound
from kybernate.clients.resources import LEASES, NODES, PODS

pytestmark = pytest.mark.controlplane
SEAT = "kyb.ai/gpu-1x-seat"


@pytest.fixture
def node(light_node):
    return light_node()


@pytest.fixture
def seats(node, device_plugin, admin, node_name, until):
    """A node whose device plugin has registered."""
    process = device_plugin()
    until(lambda: admin.get(NODES, node_name)["status"]["allocatable"].get(SEAT) == "4")
    return process


def phase(status, name):
    return status(name).get("phase")


def test_the_node_is_ready_and_has_a_lease(node, admin, node_name, until):
    shown = admin.get(NODES, node_name)
    ready = [c["status"] for c in shown["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"]
    assert shown["metadata"]["labels"]["kyb.ai/managed"] == "true"
    lease = until(lambda: _get(admin, LEASES, node_name, "kube-node-lease"))
    assert lease["spec"]["holderIdentity"] == node_name


def _get(kube, resource, name, namespace=None):
    try:
        return kube.get(resource, name, namespace)
    except NotFound:
        return None


def test_a_pod_runs_and_its_end_is_told(node, pod, status, until, work):
    pod("hello", "sh", "-c", "echo hello $(NAME) from $POD_NAME", restartPolicy="Never",
        container={"env": [{"name": "NAME", "value": "world"}]})  # fmt: skip
    until(lambda: phase(status, "hello") == "Succeeded")
    (shown,) = status("hello")["containerStatuses"]
    assert shown["state"]["terminated"]["exitCode"] == 0
    (log,) = (work / "node" / "logs").glob("*_hello_*.log")
    assert log.read_text() == "hello world from hello\n"


def test_a_running_pod_is_ready_at_an_address_of_its_own(node, pod, status, until):
    for name in ("one", "two"):
        pod(name, "sleep", "600")
    shown = [
        until(lambda name=name: status(name).get("podIP") and status(name))
        for name in ("one", "two")
    ]
    until(lambda: all(phase(status, name) == "Running" for name in ("one", "two")))
    assert len({one["podIP"] for one in shown}) == 2
    assert all(one["podIP"].startswith("127.") for one in shown)
    ready = [c["status"] for c in status("one")["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"]


def test_a_pod_that_fails_says_how(node, pod, status, until):
    pod("bad", "sh", "-c", "exit 3", restartPolicy="Never")
    until(lambda: phase(status, "bad") == "Failed")
    (shown,) = status("bad")["containerStatuses"]
    assert shown["state"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    ("policy", "script", "end"),
    [
        pytest.param("Always", "exit 0", None, id="always"),
        pytest.param("OnFailure", "exit 1", None, id="on-failure-failed"),
        pytest.param("OnFailure", "exit 0", "Succeeded", id="on-failure-succeeded"),
    ],
)
def test_a_pod_restarts_as_its_policy_says(node, pod, status, until, policy, script, end):
    pod("again", "sh", "-c", script, restartPolicy=policy)
    if end:
        until(lambda: phase(status, "again") == end)
        return
    until(lambda: status("again").get("containerStatuses", [{}])[0].get("restartCount", 0) >= 2)
    assert "terminated" in status("again")["containerStatuses"][0]["lastState"]


def test_what_the_light_node_cannot_run_it_refuses_in_words(node, pod, status, until):
    secret = {"secretKeyRef": {"name": "x", "key": "y"}}
    pod("secret", "true", container={"env": [{"name": "A", "valueFrom": secret}]})
    until(lambda: phase(status, "secret") == "Failed")
    assert "fieldRef" in status("secret")["message"]


def test_a_deleted_pod_ends_and_goes(node, pod, status, until, admin, namespace):
    pod("short", "sleep", "600")
    until(lambda: phase(status, "short") == "Running")
    admin.delete(PODS, "short", namespace)
    until(lambda: not status("short"))


def test_a_deaf_pod_is_killed_after_its_grace(node, pod, status, until, admin, namespace):
    pod("deaf", "sh", "-c", "trap '' TERM; echo up; sleep 600 & wait; sleep 600",
        terminationGracePeriodSeconds=1)  # fmt: skip
    until(lambda: phase(status, "deaf") == "Running")
    admin.delete(PODS, "deaf", namespace)
    until(lambda: not status("deaf"))


def test_a_seat_pod_gets_its_seat_and_its_environment(seats, pod, status, until, work):
    pod("seated", "sh", "-c", "env; sleep 600", seat=1)
    until(lambda: phase(status, "seated") == "Running")
    (log,) = (work / "node" / "logs").glob("*_seated_*.log")
    until(lambda: "POD_IP" in log.read_text())
    given = dict(line.split("=", 1) for line in log.read_text().splitlines() if "=" in line)
    assert given["KYB_GPU_GROUP"] in ("G0", "G1")
    assert given["KYB_GPU_SEAT"] == "seat-0"
    assert given["CUDA_VISIBLE_DEVICES"] == f"GPU-{given['KYB_GPU_INDICES']}"
    assert given["KYB_SIMULATED_GPU"] == str(work / "gpu.sock")


def test_a_pod_without_a_seat_left_fails_admission(seats, pod, status, until):
    for name in ("a", "b"):
        pod(name, "sleep", "600", seat=2, metadata={"labels": {"n": name}})
    until(lambda: {phase(status, "a"), phase(status, "b")} == {"Running", "Failed"})
    failed = "a" if phase(status, "a") == "Failed" else "b"
    assert status(failed)["reason"] == "UnexpectedAdmissionError"
    assert "Requested: 1, Available: 0" in status(failed)["message"]


def test_a_seat_is_free_again_when_its_pod_has_ended(seats, pod, status, until):
    pod("first", "true", seat=2, restartPolicy="Never")
    until(lambda: phase(status, "first") == "Succeeded")
    pod("second", "sleep", "600", seat=2)
    until(lambda: phase(status, "second") == "Running")


def test_a_held_container_waits_for_the_agent(
    seats, pod, status, until, agent, work, runtime_class
):
    pod("held", "sh", "-c", "echo released; sleep 600", seat=1, runtimeClassName=runtime_class)
    (told,) = until(lambda: agent.of("held"))
    until(lambda: phase(status, "held") == "Running")
    (log,) = (work / "node" / "logs").glob("*_held_*.log")
    assert log.read_text() == ""
    agent.release(told)
    until(lambda: log.read_text() == "released\n")
    assert (told.container, told.uid != "") == ("main", True)


def test_an_agent_that_is_away_is_told_later(seats, pod, status, until, agent, runtime_class):
    agent.stop()
    pod("early", "sleep", "600", seat=1, runtimeClassName=runtime_class)
    until(lambda: phase(status, "early") == "Running")
    agent.start()
    until(lambda: agent.of("early"))


def test_the_agent_is_told_of_the_end(seats, pod, status, until, agent, runtime_class):
    pod(
        "brief", "sh", "-c", "exit 4", seat=1, runtimeClassName=runtime_class, restartPolicy="Never"
    )
    (told,) = until(lambda: agent.of("brief"))
    agent.release(told)
    (ended,) = until(lambda: agent.exited)
    assert (ended.uid, ended.container_id) == (told.uid, told.container_id)


def test_a_held_pod_can_be_deleted(
    seats, pod, status, until, agent, admin, namespace, runtime_class
):
    pod("never", "sleep", "600", seat=1, runtimeClassName=runtime_class)
    until(lambda: agent.of("never"))
    admin.delete(PODS, "never", namespace)
    until(lambda: not status("never"))
    until(lambda: agent.exited)


def test_a_model_server_answers_at_its_pods_address(seats, pod, status, until, gpus):
    pod("model", "python", "-m", "testbed.models", "serve", "--vram", "40Gi", seat=1)
    address = until(lambda: status("model").get("podIP"))
    request = urllib.request.Request(f"http://{address}:8080/predict", data=b"", method="POST")

    def answer():
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except OSError:
            return None

    assert until(answer)["counter"] == 1


def test_a_sick_card_takes_its_seats_away_and_gives_them_back(seats, gpus, admin, node_name, until):
    def allocatable():
        return admin.get(NODES, node_name)["status"]["allocatable"]

    with gpus.changing():
        gpus.cards["GPU-0"].healthy = False
    until(lambda: allocatable()[SEAT] == "2" and allocatable()["kyb.ai/gpu-2x-seat"] == "0")
    assert admin.get(NODES, node_name)["status"]["capacity"][SEAT] == "4"
    with gpus.changing():
        gpus.cards["GPU-0"].healthy = True
    until(lambda: allocatable()[SEAT] == "4")
