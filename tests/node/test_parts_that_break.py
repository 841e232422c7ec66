"""Seats of a real node while parts break, and pods of every kind. What is real: see conftest."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

FOREIGN = Path(__file__).with_name("foreign_plugin.py")
BOOK = Path(__file__).parents[1] / "nodeagent" / "golden" / "kubelets-book.json"
BOX = {"image": "kyb.test/box:1", "imagePullPolicy": "Never"}
# The strictest that a model server can be asked to be.
STRICT = {
    "tty": True,
    "stdin": True,
    "securityContext": {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    },
}


def test_one_with_a_terminal_without_root_and_without_a_disk_takes_turns_as_others_do(seats):
    seats.serve("usual")
    seats.await_state("usual", "Active")
    strict = seats.body("strict", "serve", "--vram=60Gi", "--address=0.0.0.0")
    strict["spec"]["containers"][0] |= STRICT
    seats.create(strict)
    seats.await_state("strict", "Waiting")
    assert turn(seats, "usual", "park")
    seats.await_state("strict", "Active")
    assert seats.predict("strict")["counter"] == 1
    assert turn(seats, "strict", "park")
    assert turn(seats, "strict", "activate")
    answer = seats.predict("strict")
    assert (answer["counter"], answer["intact"]) == (2, True)
    assert seats.restarts("strict") == 0


def test_containers_beside_a_parked_one_are_left_alone_and_a_forwarded_port_wakes_it(seats):
    body = seats.body("model", "serve", "--vram=60Gi", "--address=0.0.0.0")
    spec = body["spec"]
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    spec["volumes"].append({"name": "shared", "emptyDir": {}})
    beat = ["sh", "-c", "while :; do date +%s%N > /shared/beat; sleep 0.1; done"]
    spec["initContainers"] = [
        {"name": "first", "command": ["sh", "-c", "echo made > /shared/made"], **BOX, **shared},
        {"name": "side", "command": beat, "restartPolicy": "Always", **BOX, **shared},
    ]
    spec["containers"].append({"name": "other", "command": ["sleep", "1000"], **BOX, **shared})
    spec["terminationGracePeriodSeconds"] = 0
    seats.create(body)
    seats.await_state("model", "Active")
    assert seats.predict("model")["counter"] == 1
    assert turn(seats, "model", "park")

    assert seats.kubectl("exec", "model", "-c", "other", "--", "cat", "/shared/made") == "made\n"
    before = beats(seats)
    wait_for(lambda: beats(seats) != before, "the sidecar goes on", 60.0)
    seats.kubectl("debug", "model", "--image=kyb.test/box:1", "-c", "visitor", "--", "sleep", "999")
    wait_for(lambda: "running" in visitor(seats), "an ephemeral container runs", 60.0)
    with forwarded(seats, "model") as port, Asked(port) as asked:
        assert asked.answer()["counter"] == 2
    statuses = seats.pod("model")["status"]["containerStatuses"]
    assert {one["restartCount"] for one in statuses} == {0}


@pytest.mark.parametrize("point", ["after:starting", "before:active"])
def test_an_agent_killed_while_it_lets_a_container_go_lets_it_go_once(seats, point):
    """Written down and not done; done and not written down."""
    seats.kill_agent()
    seats.start_agent(fault=point)
    seats.create(seats.body("held", "serve", "--vram=60Gi", "--address=0.0.0.0"))
    wait_for(lambda: not seats.node.processes.running("agent"), "it is killed there", 60.0)
    seats.node.processes.stop("agent")
    seats.start_agent()
    seats.await_state("held", "Active")
    answer = seats.predict("held")
    assert (answer["counter"], answer["intact"]) == (1, True)
    assert seats.restarts("held") == 0


def test_an_agent_that_lost_its_folder_learns_who_is_held_and_thaws_who_is_frozen(seats):
    seats.serve("runs")
    seats.await_state("runs", "Active")
    assert seats.predict("runs")["counter"] == 1
    seats.serve("held")
    seats.await_state("held", "Waiting")
    seats.kill_agent()
    for kept in ("journal", "announced"):
        shutil.rmtree(seats.folder / "state" / kept)
    seats.node.runc("pause", container_id(seats, "runs"))
    marks = seats.node.root / "run/containerd/runc/k8s.io"
    os.utime(marks / container_id(seats, "held") / "kyb-seat.json", (0, 0))  # told long ago
    seats.start_agent()
    assert seats.predict("runs")["counter"] == 2
    seats.await_state("held", "Waiting")  # what holds the card is nobody's now, and is seen there
    seats.kubectl("delete", "pod", "runs", "--wait=false")
    seats.await_state("held", "Active")
    assert seats.predict("held")["counter"] == 1


def test_a_foreign_device_plugin_on_our_cards_is_told_in_the_gpunode(seats):
    node = seats.node
    uuids = [gpu["uuid"] for gpu in gpunode(seats)["gpus"]]
    argv = node.enter([sys.executable, FOREIGN, *uuids])
    node.processes.start(
        "foreign", argv, ready=lambda: offered(seats), within=60.0, env=node.environment
    )
    try:
        seats.kill_agent()
        seats.start_agent()
        said = wait_for(lambda: exclusive(seats), "it is told", 60.0)
        assert said["reason"] == "ForeignDevicePlugin"
        assert "gives out GPU 0 as nvidia.com/gpu" in said["message"]
        if os.environ.get("KYB_RECORD"):
            keep_the_book(node.root / "var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")
    finally:
        node.processes.stop("foreign")


def test_after_a_reboot_pods_begin_anew_and_nothing_of_before_is_believed(seats):
    seats.serve("old")
    seats.await_state("old", "Active")
    assert seats.predict("old")["counter"] == 1
    assert turn(seats, "old", "park")
    before = seats.node.state.boot_id
    seats.reboot()
    assert seats.node.state.boot_id != before
    seats.forget()
    seats.serve("new")
    seats.await_state("new", "Active")
    assert seats.predict("new")["counter"] == 1


def turn(seats, name, way):
    """Park or activate by hand."""
    with seats.agent() as agent:
        return getattr(agent, way)(WorkloadKey("default", name), within=60.0).ok


def keep_the_book(file):
    """The kubelet's, for tests/nodeagent; without what plugins answered, which names our folder."""
    book = json.loads(file.read_text())
    for entry in book["Data"]["PodDeviceEntries"]:
        entry["AllocResp"] = ""
    BOOK.write_text(json.dumps(book, indent=1) + "\n")


def container_id(seats, name):
    (one,) = seats.pod(name)["status"]["containerStatuses"]
    return one["containerID"].removeprefix("containerd://")


def beats(seats):
    return seats.kubectl("exec", "model", "-c", "other", "--", "cat", "/shared/beat")


def visitor(seats):
    """How the ephemeral container stands."""
    statuses = seats.pod("model")["status"].get("ephemeralContainerStatuses", ())
    return next((one["state"] for one in statuses), {})


def offered(seats):
    node = seats.plane.api.get(f"/api/v1/nodes/{seats.node.name}")
    return node["status"]["allocatable"].get("nvidia.com/gpu") == "1"


def gpunode(seats):
    """Its status."""
    return seats.plane.api.get(f"/apis/kyb.ai/v1alpha1/gpunodes/{seats.node.name}")["status"]


def exclusive(seats):
    """The condition, once it does not hold."""
    conditions = {one["type"]: one for one in gpunode(seats)["conditions"]}
    found = conditions.get("GpusExclusive", {})
    return found if found.get("status") == "False" else None


@contextmanager
def forwarded(seats, name):
    """A port of this machine that leads to the pod's."""
    argv = [seats.plane.kubectl_program, f"--kubeconfig={seats.plane.admin_kubeconfig}"]
    argv += ["port-forward", f"pod/{name}", ":8080", "--address=127.0.0.1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            yield int(re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline()).group(1))
        finally:
            forwarding.terminate()


class Asked:
    """A request on its way. A context manager."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}/predict"
        self._answered = threading.Event()
        self._answer = None
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()

    def _ask(self):
        request = urllib.request.Request(self._url, data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=60.0) as answer:
            self._answer = json.load(answer)
        self._answered.set()

    def answer(self):
        assert self._answered.wait(60.0)
        return self._answer
