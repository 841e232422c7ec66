"""
A Deployment's first pod is sealed as a gold image by policy; its other replicas wake from that, and
a rollout has a new one made.

Real: everything but the GPU: kubelet, containerd, runc, CRIU, the control plane, our processes. The
controller has no OPA beside it here, so nothing is let go of: what becomes of the old image then is
in tests/controller/test_retiring_checkpoints.py.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kybernate.api import goldimages, names
from kybernate.clients.kube import Kube
from kybernate.clients.resources import DEPLOYMENTS, EVENTS, GPUCHECKPOINTS, PODS
from kybernate.testing import askmodel
from testbed.demo import objects
from testbed.stack import NodeSpec, Stack

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

NODE, NAME = "real", "many"
PATIENCE_S = 240.0
POLICY = {
    "apiVersion": "kyb.ai/v1alpha1",
    "kind": "CheckpointPolicy",
    "metadata": {"name": NAME, "namespace": "default"},
    "spec": {"selector": {"matchLabels": {"app": NAME}}, "gold": NAME},
}


@pytest.fixture(scope="module")
def stack(real_programs: None) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="kg-") as work,
        Stack.start(Path(work), [NodeSpec(name=NODE, real=True)]) as started,
    ):
        yield started


@pytest.fixture
def kube(stack: Stack) -> Kube:
    return Kube.from_kubeconfig(stack.plane.admin_kubeconfig)


def until(look: Callable[[], Any], what: str, pause: float = 0.2) -> Any:
    deadline, event = time.monotonic() + PATIENCE_S, threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, what
        event.wait(pause)
    return found


def replicas(kube: Kube) -> list[dict[str, Any]]:
    """Pods that are not on their way out."""
    found = kube.list(PODS, "default", label_selector=f"app={NAME}")
    return [one for one in found if not one["metadata"].get("deletionTimestamp")]


def image_of(pod: dict[str, Any]) -> str:
    seated = goldimages.seated(pod)
    assert seated is not None
    return goldimages.name_of(NAME, seated.version)


def images(kube: Kube) -> dict[str, dict[str, Any]]:
    """Gold images that are Ready, by name."""
    found = kube.list(GPUCHECKPOINTS, "default")
    return {
        str(one["metadata"]["name"]): one
        for one in found
        if one["spec"].get("gold") and "sealedAt" in (one.get("status") or {})
    }


def ask(kube: Kube, pod: dict[str, Any]) -> dict[str, Any]:
    name = pod["metadata"]["name"]

    def address() -> str | None:
        return str(kube.get(PODS, name, "default")["status"].get("podIP", "")) or None

    return askmodel.predict(address, PATIENCE_S)


def told(kube: Kube, reason: str) -> list[str]:
    return [str(one["note"]) for one in kube.list(EVENTS, "default") if one["reason"] == reason]


def test_replicas_wake_from_the_first_and_a_rollout_has_another_made(
    stack: Stack, kube: Kube
) -> None:
    deployment = objects.model(NAME, "2Gi")
    wanted = [*objects.priority_classes(), POLICY, deployment]
    stack.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(wanted))
    (first,) = until(lambda: replicas(kube), "there is a pod")
    assert names.RESTORE_FROM not in first["metadata"]["annotations"]
    assert ask(kube, first)["counter"] == 1
    old = image_of(first)
    until(lambda: old in images(kube), "the first one is sealed")
    sealed = images(kube)[old]["status"]["sizeBytes"]

    began = time.monotonic()
    kube.patch(DEPLOYMENTS, NAME, {"spec": {"replicas": 3}}, "default")
    until(lambda: len(replicas(kube)) == 3, "there are three pods")
    others = [one for one in replicas(kube) if one["metadata"]["name"] != first["metadata"]["name"]]
    for one in others:
        assert one["metadata"]["annotations"][names.RESTORE_FROM] == old
        answer = ask(kube, one)
        assert answer["intact"]
        assert answer["counter"] >= 1
    until(lambda: len(told(kube, "Woken")) >= 2, "two have woken, and that is told")
    print(f"{sealed / 2**20:.0f} MiB; two more replicas in {time.monotonic() - began:.1f} s")
    assert "claim" not in images(kube)[old]["status"]
    assert told(kube, "WakeFailed") == []
    addresses = {one["status"]["podIP"] for one in replicas(kube)}
    assert len(addresses) == 3

    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    container = {"name": "main", "command": [*command, "--port", str(objects.PORT)]}
    template = {"spec": {"containers": [container]}}
    patch = json.dumps({"spec": {"replicas": 1, "template": template}})
    stack.plane.kubectl("patch", "deployment", NAME, "--type=strategic", "-p", patch)
    until(lambda: any(image_of(one) != old for one in replicas(kube)), "the rollout begins")
    new = next(image_of(one) for one in replicas(kube) if image_of(one) != old)
    until(lambda: new in images(kube), "the new version is sealed")
    until(lambda: all(image_of(one) == new for one in replicas(kube)), "the rollout ends")
    assert {old, new} <= images(kube).keys()
