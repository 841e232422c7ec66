"""
Real: the control plane, a node (kubelet, containerd, runc) whose pods of the RuntimeClass kybernate
go through kybernate-runc, our agent and our device plugin on it, and the pods' containers.
Simulated: the GPU. Faked: the policies' verdicts (one slice for everybody).
Observed: the API server, the agent's word, what the pods answer.
"""

import copy
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kybernate.clients.agents import Agent, AgentAway
from kybernate.model.ids import WorkloadKey
from kybernate.testing import askmodel
from kybernate.testing.agentnode import wait_for
from kybernate.testing.fakeopa import FakeOpa
from testbed.assets import native
from testbed.controlplane import ControlPlane
from testbed.kubectl import KubectlFailed
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec
from webhook import hooks, preload, probes, wire

REPOSITORY = Path(__file__).parents[2]
IMAGE = "kyb.test/models:1"
PROFILES = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 24}
"""
# containerd's BinaryName has no arguments and no environment of its own.
LAUNCHER = """#!/bin/sh
export KYB_RUNTIME_CONF={settings}
exec {program} "$@"
"""
# Shorter than the kubelet's patience with its runtime, as the reference wants it.
GOOD = "socket = {socket}\nagent-wait = 3\n"
NODE = "seats-1"
PATIENCE_S = 90.0  # two busy cores


@dataclass
class SeatNode:
    """A real node with everything of ours on it."""

    plane: ControlPlane
    node: RealNode
    folder: Path
    opa_url: str
    made: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)  # pods that a file's other tests need still
    # Where the cards are other ones than the simulated: test_parking_by_the_guest.py.
    inventory: tuple[str, ...] = ()
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)
    state_folder: str = "state"

    @property
    def agent_socket(self) -> Path:
        return self.folder / "agent.sock"

    def start_agent(self, fault: str = "") -> None:
        """Serving when it returns. With a fault it kills itself there: `nodeagent.disk.journal`."""
        argv = [
            sys.executable, "-m", "nodeagent", f"--node={NODE}", *self._cards(),
            f"--kubeconfig={self.plane.admin_kubeconfig}", f"--opa-url={self.opa_url}",
            f"--state-dir={self.folder / self.state_folder}", "--pool-limit=400Gi",
            f"--socket={self.agent_socket}", "--metrics-listen=127.0.0.1:0",
            f"--criu-plugins={native.criu_plugins()}", *self.flags.get("agent", ()),
        ]  # fmt: skip
        broken = {"KYB_FAULT": fault} if fault else {}
        self._start("agent", argv, lambda: self.view() is not None, self.more | broken)

    def kill_agent(self) -> None:
        """kill -9."""
        os.kill(self.node.pid("agent"), signal.SIGKILL)
        self.node.processes.stop("agent")

    def start_others(self) -> None:
        """The cards, the agent and the device plugin; the kubelet has its seats when it returns."""
        socket = f"--socket={self.folder / 'gpu.sock'}"
        cards = ["--card=Simulated H100=80Gi", "--scale=16384", "--bus=400000000000"]
        gpu = [sys.executable, "-m", "testbed.gpu", socket, f"--name={NODE}", *cards]
        (self.folder / "gpu.sock").unlink(missing_ok=True)
        self._start("gpu", gpu, (self.folder / "gpu.sock").exists)
        (self.folder / "gpu.sock").chmod(0o666)  # as a device node: containers need not be root's
        self.start_agent()
        self.start_plugin()

    def reboot(self) -> None:
        """Off and on, then everything of ours again."""
        self.node.reboot()
        self.node.reach(int(self.opa_url.rpartition(":")[2]))
        self.start_others()

    def start_plugin(self) -> None:
        """The kubelet has its seats when it returns."""
        plugin = [
            sys.executable, "-m", "deviceplugin", *self._cards(),
            f"--agent-socket={self.agent_socket}", "--metrics-listen=127.0.0.1:0",
            *self.flags.get("deviceplugin", ()),
        ]  # fmt: skip
        self._start("deviceplugin", plugin, self._seats_there, self.more)

    def _start(self, name, argv, ready, more=None) -> None:
        node = self.node
        environment = node.environment | (more or {})
        node.processes.start(name, node.enter(argv), ready=ready, within=60.0, env=environment)

    def _cards(self) -> list[str]:
        profiles = self.folder / "profiles.yaml"
        profiles.write_text(PROFILES)
        simulated = ("--inventory=simulated", f"--simulated-gpu={self.folder / 'gpu.sock'}")
        return [f"--profiles={profiles}", *(self.inventory or simulated)]

    def _seats_there(self) -> bool:
        seen = self.plane.api.get(f"/api/v1/nodes/{NODE}")["status"]["allocatable"]
        return seen.get("kyb.ai/gpu-1x-seat") == "24"

    # what is there

    def view(self):
        """What the agent says; None while nobody answers."""
        with Agent.on_node(self.agent_socket) as agent:
            try:
                return agent.state()
            except AgentAway:
                return None

    def state(self, name):
        """A pod's state, by the agent's word; empty while unknown."""
        view = self.view()
        found = view.workload(WorkloadKey("default", name)) if view else None
        return found.state.value if found else ""

    def await_state(self, name, state):
        wait_for(lambda: self.state(name) == state, f"{name} is {state}", PATIENCE_S)

    def agent(self) -> Agent:
        return Agent.on_node(self.agent_socket)

    def pod(self, name):
        """The pod, as the API server shows it; None when it is gone."""
        try:
            return json.loads(self.plane.kubectl("get", "pod", name, "-o", "json"))
        except KubectlFailed:
            return None

    def phase(self, name):
        pod = self.pod(name)
        return pod["status"].get("phase", "") if pod else "gone"

    def restarts(self, name):
        (one,) = self.pod(name)["status"]["containerStatuses"]
        return one["restartCount"]

    def runc_state(self, name):
        """What the real runc says of a pod's container; "paused" is its word for frozen."""
        (one,) = self.pod(name)["status"]["containerStatuses"]
        said = self.node.runc("state", one["containerID"].removeprefix("containerd://"))
        return json.loads(said)["status"]

    # pods

    def run(self, name, *command, vram="60Gi", probe=None, runtime="kybernate", **spec):
        """Create a pod with a seat; it is Running when this returns."""
        self.create(self.body(name, *command, vram=vram, probe=probe, runtime=runtime, **spec))
        wait_for(lambda: self.phase(name) in ("Running", "Succeeded"), f"{name} runs", PATIENCE_S)

    def body(self, name, *command, vram="60Gi", probe=None, runtime="kybernate", **spec):
        """A pod with a seat."""
        container = {
            "name": "model",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["python3", "-m", "testbed.models", *command],
            "env": [{"name": "POD_NAME", "value": name}],
            "resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}},
            "volumeMounts": [{"name": "gpu", "mountPath": str(self.folder)}],
        }
        if probe:
            container["livenessProbe"] = {"periodSeconds": 1, "failureThreshold": 1, **probe}
        wishes = {"kyb.ai/vram": vram}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "annotations": wishes},
            "spec": {
                "nodeName": NODE,
                "runtimeClassName": f"real-{runtime}",
                "containers": [container],
                "volumes": [{"name": "gpu", "hostPath": {"path": str(self.folder)}}],
                **spec,
            },
        }

    @staticmethod
    def admitted(pod):
        """With its probes, hook and environment as the webhook lets it in."""
        pod = copy.deepcopy(pod)
        given = pod["metadata"]["annotations"]
        added = (*probes.additions(pod), *hooks.additions(pod, given))
        for change in wire.patch_of((*added, *preload.additions(pod, given))):
            *parents, last = change["path"].split("/")[1:]
            target = pod
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target[part]
            target[last] = change["value"]
        return pod

    def admit(self, body):
        """Create it as the webhook would let it in."""
        self.create(self.admitted(body))

    def kubectl_in(self, verb, body):
        self.plane.kubectl(verb, "-f", "-", stdin=json.dumps(body))

    def create(self, body):
        self.kubectl_in("create", body)
        self.made.append(f"{body['kind'].lower()}/{body['metadata']['name']}")

    def kubectl(self, *args):
        return self.plane.kubectl(*args)

    def run_plain(self, name, seat=True, runtime=None, command=("sleep", "1000"), **spec):
        """Create a pod that does nothing on its seat; it is Running when this returns."""
        container = {
            "name": "c",
            "image": "kyb.test/box:1",
            "imagePullPolicy": "Never",
            "command": list(command),
        }
        if seat:
            container["resources"] = {"limits": {"kyb.ai/gpu-1x-seat": "1"}}
        whole = {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        }
        if runtime:
            whole["runtimeClassName"] = f"real-{runtime}"
        metadata = {"name": name, "namespace": "default"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}
        self.create(body)
        wait_for(lambda: self.phase(name) == "Running", f"{name} runs", PATIENCE_S)

    def serve(self, name, **more):
        """A model server; it answers by itself when it has its GPU."""
        self.run(name, "serve", "--vram=60Gi", "--address=0.0.0.0", **more)

    def run_job(self, name, *command, vram="60Gi", probe=None):
        """Create a Job that must not be tried again; its pod's name, once that is Running."""
        template = self.body(name, *command, vram=vram, probe=probe, restartPolicy="Never")
        metadata = {"annotations": template["metadata"]["annotations"]}
        spec = {"backoffLimit": 0, "template": {"metadata": metadata, "spec": template["spec"]}}
        head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
        self.create({**head, "spec": spec})
        find = ("get", "pods", f"--selector=job-name={name}", "-o", "name")
        found = wait_for(lambda: self.plane.kubectl(*find).strip(), "its pod is there", PATIENCE_S)
        running = found.removeprefix("pod/")
        wait_for(lambda: self.phase(running) == "Running", f"{running} runs", PATIENCE_S)
        return running

    def seconds_until_gone(self, *names, within=PATIENCE_S):
        """Delete them: from the order to the API server's word on the last of them."""
        began = time.monotonic()
        self.plane.kubectl("delete", "pod", *names, "--wait=false")
        wait_for(lambda: not any(map(self.pod, names)), f"{', '.join(names)}: gone", within)
        return time.monotonic() - began

    def predict(self, name):
        """Ask the model, as soon as it listens."""
        return askmodel.predict(lambda: self.pod(name)["status"].get("podIP"), PATIENCE_S)

    def forget(self):
        """Remove what the test made."""
        for one in self.made:
            force = ("--force", "--grace-period=0") if one.startswith("pod/") else ()
            self.plane.kubectl("delete", one, "--ignore-not-found", "--wait=true", *force)
        self.made.clear()
        wait_for(self._is_empty, "the agent has let go of all", PATIENCE_S)

    def _is_empty(self) -> bool:
        view = self.view()
        return view is not None and {one.key.name for one in view.workloads} <= self.kept


@pytest.fixture(scope="session")
def seat_node(
    real_programs: None, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SeatNode]:
    """One, for all tests. A holder keeps its GPU for an hour, unless it is asked."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as name, FakeOpa(3600.0) as opa:
        folder = Path(name)
        folder.chmod(0o711)
        runtimes = {
            "kybernate": launcher(folder, "good", GOOD.format(socket=folder / "runtime.sock")),
            "misconfigured": launcher(folder, "bad", "sokcet = /nowhere\n"),
        }
        taint = {"key": "kyb.test/real", "effect": "NoSchedule"}
        kubelet = {"runtimeRequestTimeout": "10s", "registerWithTaints": [taint]}
        spec = NodeSpec(name=NODE, runtimes=runtimes, kubelet=kubelet)
        prepare(plane, tuple(runtimes))
        with RealNode.start(plane, tmp_path_factory.mktemp(NODE), spec) as node:
            packages = [REPOSITORY / one for one in ("kybernate", "testbed")]
            needed = ["grpcio", "protobuf", "orjson", "structlog", "pyyaml"]
            node.import_image(IMAGE, node.python_image(needed, packages))
            node.reach(int(opa.url.rpartition(":")[2]))
            made = SeatNode(plane, node, folder, opa.url)
            made.start_others()
            yield made


@pytest.fixture
def seats(seat_node: SeatNode) -> Iterator[SeatNode]:
    """The node; what the test made on it is removed."""
    yield seat_node
    seat_node.forget()


def launcher(folder: Path, name: str, settings: str) -> Path:
    """What containerd calls."""
    (folder / f"{name}.conf").write_text(settings)
    program = folder / f"{name}-runc"
    program.write_text(LAUNCHER.format(settings=folder / f"{name}.conf", program=native.runtime()))
    program.chmod(0o755)
    return program


def prepare(plane: ControlPlane, runtimes: tuple[str, ...]) -> None:
    """What the cluster has to have: our resources, a namespace, a RuntimeClass for each handler."""
    plane.kubectl("apply", "-k", str(REPOSITORY / "manifests" / "components" / "crd"))
    plane.kubectl("apply", "-k", str(REPOSITORY / "manifests" / "components" / "namespace"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for name in runtimes:
        body = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": f"real-{name}"},
            "handler": name,
        }
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(body))
