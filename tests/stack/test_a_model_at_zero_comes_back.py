"""
A Deployment goes to zero and comes back for whoever asks, through the activator, on a real node.

Real: everything but the GPU: kubelet, containerd, runc, CRIU, the control plane, our processes.
Changed: the controller waits six seconds, not ten minutes, before a parked model goes.
"""

import dataclasses
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from kybernate.clients.agents import Agent
from kybernate.clients.kube import Kube
from kybernate.clients.resources import DEPLOYMENTS, EVENTS, PODS
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from testbed.demo import objects
from testbed.stack import NodeSpec, Stack

pytestmark = [pytest.mark.controlplane, pytest.mark.node]

NODE, NAME = "real", "sleeper"
PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def stack(real_programs: None) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="kz-") as work,
        Stack.start(Path(work), [NodeSpec(name=NODE, real=True)]) as started,
    ):
        running = started.running["controller"]
        soon = dataclasses.replace(running, argv=(*running.argv, "--zero-after=6s"))
        started.running["controller"] = soon
        started.kill("controller")
        started.start_again("controller")
        yield started


def until(look: Callable[[], Any], what: str) -> Any:
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, what
        pause.wait(0.1)
    return found


def test_an_idle_model_goes_to_zero_and_wakes_with_its_state_for_two_activators(
    stack: Stack,
) -> None:
    kube = Kube.from_kubeconfig(stack.plane.admin_kubeconfig)
    doors = [stack.start_activator(name) for name in ("one", "two")]
    model = objects.model(NAME, "2Gi")
    template = model["spec"]["template"]["metadata"]["annotations"]
    template |= {"kyb.ai/scale-to-zero": "checkpoint", "kyb.ai/idle-after": "1s"}
    wanted = yaml.safe_dump_all([*objects.priority_classes(), model])
    stack.plane.kubectl("apply", "-f", "-", stdin=wanted)
    until(lambda: _names(doors[0]) == _names(doors[1]) == [NAME], "both know it")

    counted = [_ask(door)[1] for door in doors]
    assert sorted(counted) == [1, 2]
    with Agent.on_node(stack.nodes[NODE].folder.agent_socket) as agent:
        (pod,) = kube.list(PODS, "default")
        agent.park(_key(pod), within=PATIENCE_S)
        until(lambda: _state(agent) in (State.PARKED, None), "it is parked")
    until(lambda: _replicas(kube) == 0, "it goes to zero")
    until(lambda: not kube.list(PODS, "default"), "its pod is gone")

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(_ask, doors))
    assert sorted(counter for _, counter in answers) == [3, 4], "its memory is as it was"
    assert {tier for tier, _ in answers} <= {"checkpoint", "ram", "vram"}
    assert "checkpoint" in {tier for tier, _ in answers}
    assert _replicas(kube) == 1
    reasons = [event["reason"] for event in kube.list(EVENTS, "default")]
    assert reasons.count("ScaledFromZero") == 1, "two asked, it was scaled once"


def _ask(door: Any) -> tuple[str, int]:
    url = f"{door.url}/models/{NAME}/predict"
    answer = urllib3.request("POST", url, timeout=PATIENCE_S, retries=False)
    assert answer.status == 200, answer.data
    said = answer.json()
    assert said["intact"]
    return answer.headers["X-Kyb-Tier"], int(said["counter"])


def _names(door: Any) -> list[str]:
    listed = urllib3.request("GET", f"{door.url}/v1/models").json()
    return [one["id"] for one in listed["data"]]


def _replicas(kube: Kube) -> int:
    return int(kube.get(DEPLOYMENTS, NAME, "default")["spec"]["replicas"])


def _key(pod: dict[str, Any]) -> Any:
    return WorkloadKey("default", pod["metadata"]["name"])


def _state(agent: Agent) -> State | None:
    return next((one.state for one in agent.state().workloads), None)
