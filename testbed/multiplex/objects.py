"""The Deployments of the models: ordinary ones, each with a seat and its name for clients."""

from typing import Any

from testbed.demo.objects import INTERACTIVE, SEAT
from testbed.demo.objects import priority_classes as priority_classes

Object = dict[str, Any]
PORT = 8000
_TOKEN_S = 0.002
_CHECK_S = 1.0  # no switch is as short: after each one the contents are looked at
_MODEL = "kyb.ai/model"


def model(name: str, vram: str) -> Object:
    """A Deployment of the stand-in for vLLM that fills `vram`."""
    labels = {"app": name}
    annotations = {"kyb.ai/vram": vram, "kyb.ai/class": "inference", _MODEL: name}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": _pod(name, vram),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def _pod(name: str, vram: str) -> Object:
    command = ["python", "-m", "testbed.vllm", "--model", name, "--vram", vram]
    command += ["--port", str(PORT), "--token-seconds", str(_TOKEN_S)]
    command += ["--check-seconds", str(_CHECK_S)]
    container = {
        "name": "main",
        "image": "kybernate/models:0.1.0",
        "command": command,
        "ports": [{"containerPort": PORT}],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"limits": {SEAT: "1"}},
    }
    return {
        "priorityClassName": INTERACTIVE,
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        "dnsPolicy": "Default",
        "containers": [container],
    }
