"""What the acts play on: the stack, the screen, the clients, and how to look at the cluster."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kybernate.api import names
from kybernate.clients.agents import Agent, AgentAway, NodeView, WorkloadState
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from testbed.demo.asking import Client
from testbed.demo.screen import Screen
from testbed.stack import Stack

NODE = "node-a"
PATIENCE_S = 90.0
LOOK_EVERY_S = 0.1
CLASSES = "data__classes.json"  # the policies' data for each class, in the ConfigMap


class Unexpected(Exception):
    """The story did not go as told: a fault, not a matter of taste."""


@dataclass
class Stage:
    """One performance."""

    stack: Stack
    screen: Screen
    agent: Agent
    client: Client

    def apply(self, *objects: dict[str, Any]) -> None:
        """As `kubectl apply` does."""
        text = yaml.safe_dump_all(objects)
        self.stack.plane.kubectl("apply", "-f", "-", stdin=text)

    def get(self, *what: str) -> dict[str, Any]:
        """As `kubectl get -o json` does."""
        found: dict[str, Any] = json.loads(self.stack.plane.kubectl("get", *what, "-o", "json"))
        return found

    def view(self) -> NodeView:
        """Who is where, by the agent."""
        return self.agent.state()

    def workload(self, app: str) -> WorkloadState | None:
        """The workload of a Deployment or Job, once it has a seat."""
        return next((w for w in self.view().workloads if w.key.name.startswith(f"{app}-")), None)

    def state(self, app: str) -> State:
        """Where it is in its life."""
        found = self.workload(app)
        return found.state if found else State.ABSENT

    def state_of(self, pod: str) -> State:
        """The same of a pod by its own name."""
        found = self.view().workload(WorkloadKey("default", pod))
        return found.state if found else State.ABSENT

    def until(self, so: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Look until it is so. Raises Unexpected with who was where."""
        deadline = time.monotonic() + seconds
        while not so():
            if time.monotonic() > deadline:
                where = ", ".join(f"{w.key.name} {w.state} {w.why}" for w in self.view().workloads)
                raise Unexpected(f"{what}: not after {seconds:g} s ({where})")
            time.sleep(LOOK_EVERY_S)

    def change_classes(self, **changes: dict[str, float]) -> str:
        """Edit the policies' data as a person would, and wait until OPA decides by it.

        The new revision.
        """
        before = self.stack.policy_revision()
        config = self.get("configmap", "kyb-policies", "-n", names.SYSTEM_NAMESPACE)
        classes = json.loads(config["data"][CLASSES])
        for name, numbers in changes.items():
            classes[name].update(numbers)
        patch = json.dumps({"data": {CLASSES: json.dumps(classes, indent=2)}})
        namespaced = ("-n", names.SYSTEM_NAMESPACE)
        self.stack.plane.kubectl(
            "patch", "configmap", "kyb-policies", *namespaced, "--type=merge", "-p", patch
        )
        self.until(lambda: self.stack.policy_revision() != before, "new policies in OPA")
        return self.stack.policy_revision()

    def events(self, name: str, reasons: Sequence[str]) -> list[str]:
        """What was said of an object, oldest first."""
        found = self.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        found.sort(key=lambda event: event["metadata"]["creationTimestamp"])
        return [event["message"] for event in found if event["reason"] in reasons]


def pod_of(stack: Stack, app: str) -> tuple[WorkloadKey, str]:
    """The pod of an app: its key and address."""
    pod = _pod(stack, app)
    if not pod["status"].get("podIP"):  # a wake can be over before the kubelet writes it down
        there = "--for=jsonpath={.status.podIP}"
        stack.plane.kubectl("wait", there, "pod", "-l", f"app={app}", "--timeout=60s")
        pod = _pod(stack, app)
    return WorkloadKey("default", pod["metadata"]["name"]), pod["status"]["podIP"]


def _pod(stack: Stack, app: str) -> Any:
    found = json.loads(stack.plane.kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))
    return found["items"][0]


def quiet_state(agent: Agent) -> NodeView | None:
    """For the live table: nothing where the agent does not answer."""
    try:
        return agent.state()
    except AgentAway:
        return None
