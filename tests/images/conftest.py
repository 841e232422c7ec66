"""
Real: the control plane, a node (kubelet, containerd, runc, CRIU), kybernate-runc, process images
made and prepared in the node as the agent does. Faked: the agent's socket, which answers `creating`
with what a test wants; a seat is only a variable here. No GPU.
Observed: what the pods answer and write, runc's and CRIU's files.
"""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kybernate.clients.runtimecalls import Op
from kybernate.testing.agentnode import wait_for
from kybernate.testing.runtimelistener import RuntimeListener, agree
from testbed.api import ApiError
from testbed.assets import native
from testbed.controlplane import ControlPlane
from testbed.node.commands import CommandFailed
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec

REPOSITORY = Path(__file__).parents[2]
PYTHON = "kyb.test/python:1"
NODE = "images-1"
PODS = "/api/v1/namespaces/default/pods"
PATIENCE_S = 90.0  # two busy cores
LAUNCHER = """#!/bin/sh
export KYB_RUNTIME_CONF={settings}
exec {program} "$@"
"""
_COMING = {"error": "it is prepared", "again": "yes", "coming": "yes"}


@dataclass
class ImageNode:
    """A node whose agent is the test."""

    plane: ControlPlane
    node: RealNode
    folder: Path
    images: dict[str, Path] = field(default_factory=dict)  # by the pod that is to wake from it
    answers: dict[str, dict] = field(default_factory=dict)  # by container id
    made: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    listener: RuntimeListener = None

    def answer(self, call):
        """What the agent would say."""
        match call.op:
            case Op.CREATING if call.pod.name in self.images:
                return self._restoration(call)
            case Op.HELD if not call.restored:
                threading.Thread(target=self._let_go, args=(call.container_id,)).start()
        return agree(call)

    def _let_go(self, container_id):
        with suppress(CommandFailed):  # deleted by now, or let go before: it is told twice
            self.node.runc("start", container_id)

    def _restoration(self, call):
        image = self.images[call.pod.name]
        if call.container_id not in self.asked:
            self.asked.add(call.container_id)
            threading.Thread(target=self._prepare, args=(call, image)).start()
        return self.answers.get(call.container_id, _COMING)

    def _prepare(self, call, image):
        try:
            said = self.ask("restoration", image=str(image), bundle=str(call.bundle))
        except CommandFailed as ended:  # the kubelet tries on while the node is switched off
            said = {"raised": "CommandFailed", "why": str(ended)}
        answer = {"ok": "restore", **said} if "raised" not in said else {"error": said["why"]}
        self.answers[call.container_id] = answer

    def ask(self, verb, **asked):
        """Call nodeagent.images in the node; see inside.py."""
        plugins = f"KYB_TEST_PLUGINS={native.criu_plugins()}"
        argv = ["env", plugins, sys.executable, REPOSITORY / "tests" / "images" / "inside.py", verb]
        return json.loads(self.node.run(*argv, json.dumps(asked)).splitlines()[-1])

    # pods

    def run(self, name, *command, image=PYTHON, container=None, **spec):
        """Create a pod on a seat; its container's id once it runs."""
        self.create(name, *command, image=image, container=container, **spec)
        wait_for(lambda: self.container(name), f"{name} runs", PATIENCE_S)
        return self.container(name)

    def create(self, name, *command, image=PYTHON, container=None, **spec):
        one = {
            "name": "model",
            "image": image,
            "imagePullPolicy": "Never",
            "command": list(command),
            "env": [{"name": "KYB_GPU_SEAT", "value": "G0/1"}, *(container or {}).pop("env", [])],
            **(container or {}),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": NODE,
                "runtimeClassName": "imaged",
                "terminationGracePeriodSeconds": 0,
                "containers": [one],
                **spec,
            },
        }
        self.plane.api.create(PODS, body)
        self.made.append(name)

    def container(self, name):
        """The id of its running container; empty before."""
        pod = self.pod(name)
        (status,) = pod["status"].get("containerStatuses") or [{}]
        running = status.get("state", {}).get("running")
        return status["containerID"].removeprefix("containerd://") if running else ""

    def pod(self, name):
        return self.plane.api.get(f"{PODS}/{name}")

    def complaint(self, name):
        """What the kubelet says of a container that could not be started."""

        def look():
            (status,) = self.pod(name)["status"].get("containerStatuses") or [{}]
            states = (status.get("state", {}), status.get("lastState", {}))
            ended = [state["terminated"]["message"] for state in states if "terminated" in state]
            return ended[0] if ended else ""

        return wait_for(look, f"{name} is complained of", PATIENCE_S)

    def failures(self, name):
        """Why restores failed, as the agent was told."""
        return [call.failed for call in self.listener.told(Op.ENDED, name) if call.failed]

    def lines(self, name):
        try:
            return self.plane.api.text(f"{self.plane.server}{PODS}/{name}/log").splitlines()
        except ApiError:  # it is only about to be made
            return []

    def exec(self, name, *command):
        return self.plane.kubectl("exec", name, "--", *command)

    def delete(self, *names):
        for name in names:
            self.plane.kubectl("delete", "pod", name, "--grace-period=0", "--force", check=False)
            wait_for(lambda name=name: not self._there(name), f"{name} is gone", PATIENCE_S)
            self.made.remove(name)

    def _there(self, name):
        return self.plane.api.exists(f"{PODS}/{name}")

    # images

    def dump(self, name):
        """An image of a pod, which runs on; its folder."""
        into = self.folder / f"{name}.image"
        said = self.ask("dump", id=self.container(name), into=str(into))
        assert "raised" not in said, said
        return into

    def wake(self, name, image, *command, **how):
        """A new pod from an image; it runs when this returns."""
        self.images[name] = image
        found = self.run(name, *command, **how)
        self.ask("woken", id=found)
        self.ask("thaw", id=found)
        return found

    def changed(self, name):
        """What was said to be different for a pod that woke."""
        return self.answers[self.container(name)]["changed"]

    def forget(self):
        self.images.clear()
        self.delete(*list(self.made))


@pytest.fixture(scope="module")
def image_node(
    real_programs: None, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator:
    """One, for the tests of a file."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as short:
        folder = Path(short)
        settings = folder / "runtime.conf"
        settings.write_text(f"socket = {folder / 'runtime.sock'}\n")
        launcher = folder / "runc"
        launcher.write_text(LAUNCHER.format(settings=settings, program=native.runtime()))
        launcher.chmod(0o755)
        taint = {"key": "kyb.test/real", "effect": "NoSchedule"}
        kubelet = {"registerWithTaints": [taint]}
        spec = NodeSpec(name=NODE, runtimes={"imaged": launcher}, kubelet=kubelet)
        runtime_class = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "imaged"},
            "handler": "imaged",
        }
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(runtime_class))
        with RealNode.start(plane, tmp_path_factory.mktemp(NODE), spec) as node:
            node.import_image(PYTHON, node.python_image())
            made = ImageNode(plane, node, folder)
            made.listener = RuntimeListener(folder / "runtime.sock", made.answer)
            with made.listener:
                yield made


@pytest.fixture
def images(image_node) -> Iterator[ImageNode]:
    """The node; what the test made on it is removed."""
    yield image_node
    image_node.forget()
