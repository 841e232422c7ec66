"""The Kubernetes objects the demo creates. Ordinary ones: a Deployment, a Job, PriorityClasses."""

from collections.abc import Mapping
from typing import Any

from kybernate.api import names

Object = dict[str, Any]

SEAT = "kyb.ai/gpu-1x-seat"
INTERACTIVE = "interactive"
BACKGROUND = "background"
PORT = 8080


def priority_classes() -> list[Object]:
    """Models above training."""
    return [_priority(INTERACTIVE, 1000), _priority(BACKGROUND, 100)]


def model(name: str, vram: str, namespace: str = "default") -> Object:
    """A Deployment of one model server that fills `vram` and counts its requests in it."""
    command = ["python", "-m", "testbed.models", "serve", "--vram", vram, "--port", str(PORT)]
    template = _template(name, command, {names.VRAM: vram, names.CLASS: "inference"}, INTERACTIVE)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
        },
    }


def counter(name: str, vram: str, restore_from: str = "") -> Object:
    """A bare pod that serves and counts; from a checkpoint where one is named."""
    command = ["python", "-m", "testbed.models", "serve", "--vram", vram, "--port", str(PORT)]
    wishes = {names.VRAM: vram, names.CLASS: "inference"}
    if restore_from:
        wishes[names.RESTORE_FROM] = restore_from
    template = _template(name, command, wishes, INTERACTIVE)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "namespace": "default"},
        "spec": template["spec"],
    }


def trainer(name: str, vram: str, steps: int, namespace: str = "default") -> Object:
    """A Job that counts its steps in GPU memory and ends when all are done."""
    command = [
        "python", "-m", "testbed.models", "train",
        "--vram", vram, "--steps", str(steps), "--step-seconds", "0.1",
    ]  # fmt: skip
    template = _template(name, command, {names.VRAM: vram, names.CLASS: "training"}, BACKGROUND)
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": template, "backoffLimit": 0},
    }


def lone_pod(name: str, vram: str, seat: str = SEAT, namespace: str = "default") -> Object:
    """A bare pod, for what is to be refused."""
    template = _template(name, ["true"], {names.VRAM: vram}, INTERACTIVE, seat)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "namespace": namespace},
        "spec": template["spec"],
    }


def _priority(name: str, value: int) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": "Never",
    }


def _template(
    name: str,
    command: list[str],
    annotations: Mapping[str, str],
    priority: str,
    seat: str = SEAT,
) -> Object:
    container = {
        "name": "main",
        "image": "kybernate/models:0.1.0",
        "command": command,
        # A server of the models listens here; on a real node a pod has an address to itself.
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"limits": {seat: "1"}},
    }
    return {
        "metadata": {"labels": {"app": name}, "annotations": dict(annotations)},
        "spec": {
            "priorityClassName": priority,
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            "dnsPolicy": "Default",  # there is no cluster DNS to be warned about
            "containers": [container],
        },
    }
