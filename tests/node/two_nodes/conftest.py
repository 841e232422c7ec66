"""
Two real nodes that lend each other checkpoints and are given one object store.

Real: the control plane, two nodes (kubelet, containerd, runc, CRIU) with our runtime, agents and
device plugins on them, an S3 server. Simulated: the GPUs, one a node. Faked: the policies'
verdicts; the webhook is not there, so pods say themselves what they wake from.
"""

import json
import os
import signal
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kybernate.api import gpuworkloads, names, pods
from kybernate.clients.agents import Agent, AgentAway
from kybernate.model.ids import WorkloadKey
from kybernate.testing import askmodel
from kybernate.testing.agentnode import wait_for
from kybernate.testing.fakeopa import FakeOpa
from testbed import pki
from testbed.assets import native
from testbed.controlplane import ControlPlane
from testbed.kubectl import KubectlFailed
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

REPOSITORY = Path(__file__).parents[3]
IMAGE = "kyb.test/waking:1"
NEEDED = ["grpcio", "protobuf", "orjson", "structlog", "pyyaml"]
PROFILES = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 6}
"""
LAUNCHER = """#!/bin/sh
export KYB_RUNTIME_CONF={settings}
exec {program} "$@"
"""
GPU = "/run/kyb-gpu/gpu.sock"  # each node has a /run of its own
PATIENCE_S = 90.0  # two busy cores
PORT = 8443
BUCKET = "kyb"
# The second one gives a checkpoint on its way less time than it gets here.
RUNTIMES = {"waking": "agent-wait = 60\n", "hurried": "agent-wait = 60\nwake-wait = 3\n"}


@dataclass
class Node:
    """A real node with everything of ours on it."""

    plane: ControlPlane
    real: RealNode
    folder: Path
    shared: Path
    opa_url: str
    objects: ObjectServer
    reached_at: str = ""  # by other agents; empty: at its own address

    @property
    def name(self) -> str:
        return self.real.name

    def start_all(self) -> None:
        self.real.run("mkdir", "-p", str(Path(GPU).parent))
        cards = ["--card=Simulated H100=80Gi", "--scale=64", "--bus=400000000000"]
        argv = [sys.executable, "-m", "testbed.gpu", f"--socket={GPU}", f"--name={self.name}"]
        self._start("gpu", [*argv, *cards], (self.real.root / GPU[1:]).exists)
        self.start_agent()
        plugin = [
            sys.executable, "-m", "deviceplugin", *self._cards(),
            f"--agent-socket={self.folder / 'agent.sock'}", "--metrics-listen=127.0.0.1:0",
        ]  # fmt: skip
        self._start("deviceplugin", plugin, self._seats_there)

    def start_agent(self, **environment: str) -> None:
        """Serving when it returns."""
        address = self.real.state.address
        argv = [
            sys.executable, "-m", "nodeagent", f"--node={self.name}", *self._cards(),
            f"--kubeconfig={self.plane.admin_kubeconfig}", f"--opa-url={self.opa_url}",
            f"--state-dir={self.folder / 'state'}", "--pool-limit=400Gi",
            f"--socket={self.folder / 'agent.sock'}", "--metrics-listen=127.0.0.1:0",
            f"--checkpoint-keys={self.shared / 'keys'}", f"--tls-dir={self.shared / 'serving'}",
            f"--client-tls-dir={self.shared / 'client'}", f"--listen={address}:{PORT}",
            f"--advertise={self.reached_at or f'{address}:{PORT}'}",
            f"--criu-plugins={native.criu_plugins()}", f"--checkpoint-store=s3://{BUCKET}/cluster",
            f"--checkpoint-wrapping-keys={self.shared / 'wrapping'}",
            "--image-dir=/run/kyb/images",  # as the DaemonSet has it
        ]  # fmt: skip
        given = {
            "AWS_ENDPOINT_URL": self.objects.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self._start("agent", argv, lambda: self.view() is not None, given | environment)

    def restart_agent(self, **environment: str) -> None:
        """kill -9, and another one."""
        self.kill_agent()
        self.start_agent(**environment)

    def kill_agent(self) -> None:
        """kill -9."""
        with suppress(ValueError, OSError, KeyError):  # it has killed itself, or is stopped
            os.kill(self.real.pid("agent"), signal.SIGKILL)
        self.real.processes.stop("agent")

    def agent_runs(self) -> bool:
        return self.real.processes.running("agent")

    def _start(self, name, argv, ready, environment=None) -> None:
        told = self.real.environment | (environment or {})
        self.real.processes.start(name, self.real.enter(argv), ready=ready, within=60.0, env=told)

    def _cards(self) -> list[str]:
        profiles = self.folder / "profiles.yaml"
        profiles.write_text(PROFILES)
        return [f"--profiles={profiles}", "--inventory=simulated", f"--simulated-gpu={GPU}"]

    def _seats_there(self) -> bool:
        seen = self.plane.api.get(f"/api/v1/nodes/{self.name}")["status"]["allocatable"]
        return seen.get("kyb.ai/gpu-1x-seat") == "6"

    def agent(self) -> Agent:
        return Agent.on_node(self.folder / "agent.sock")

    def view(self):
        """What the agent says; None while nobody answers."""
        with self.agent() as agent:
            try:
                return agent.state()
            except AgentAway:
                return None

    def state(self, name):
        """A pod's state, by the agent's word; empty while unknown."""
        view = self.view()
        found = view.workload(WorkloadKey("default", name)) if view else None
        return found.state.value if found else ""

    def is_empty(self):
        view = self.view()
        return view is not None and not view.workloads

    def await_state(self, name, state):
        wait_for(lambda: self.state(name) == state, f"{name} is {state}", PATIENCE_S)


@dataclass
class Pair:
    """Both nodes, and the pods on them."""

    plane: ControlPlane
    nodes: tuple[Node, Node]
    objects: ObjectServer
    opa: FakeOpa
    made: dict[str, str] = field(default_factory=dict)  # namespaces by pod

    def run(
        self,
        name: str,
        node: Node,
        *,
        wait: bool = True,
        runtime: str = "waking",
        again: str = "Always",
        namespace: str = "default",
        **annotations: str,
    ) -> None:
        """Create a pod that holds 2 GiB and counts; it is Running when this returns."""
        container = {
            "name": "model",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["python3", "-m", "testbed.models", "serve"],
            "args": ["--vram=2Gi", "--address=0.0.0.0"],
            "resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}},
        }
        wishes = {"kyb.ai/vram": "2Gi"} | {f"kyb.ai/{k}": v for k, v in annotations.items()}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "annotations": wishes},
            "spec": {
                "nodeName": node.name,
                "runtimeClassName": f"real-{runtime}",
                "restartPolicy": again,
                "containers": [container],
                "terminationGracePeriodSeconds": 1,
            },
        }
        self.plane.kubectl("create", "-f", "-", stdin=json.dumps(body))
        self.made[name] = namespace
        self._known(name)
        if wait:
            wait_for(lambda: self.phase(name) == "Running", f"{name} runs", PATIENCE_S)

    def _known(self, name):
        """As the controller does: there is a GpuWorkload of the pod."""
        workload = pods.read_workload(self.pod(name))
        body = json.dumps(gpuworkloads.new_object(workload))
        self.plane.kubectl("create", "-f", "-", stdin=body)

    def _kubectl(self, *asked, of, **more):
        return self.plane.kubectl("-n", self.made.get(of, "default"), *asked, **more)

    def pod(self, name):
        try:
            return json.loads(self._kubectl("get", "pod", name, "-o", "json", of=name))
        except KubectlFailed:
            return None

    def phase(self, name):
        pod = self.pod(name)
        return pod["status"].get("phase", "") if pod else "gone"

    def seal(self, name, node, checkpoint, **more):
        """Its outcome, once the cluster knows of it."""
        with node.agent() as agent:
            key = WorkloadKey("default", name)
            made = agent.checkpoint(key, name=checkpoint, within=PATIENCE_S, **more)
        if made.ok:
            ready = ("get", "gpucheckpoint", checkpoint, "-o", "jsonpath={.status.sizeBytes}")
            wait_for(lambda: self.said(*ready), f"{checkpoint} is published", PATIENCE_S)
        return made

    def said(self, *asked):
        try:
            return self.plane.kubectl(*asked)
        except KubectlFailed:
            return ""

    def switch(self, name):
        """The last switch of a workload, by its GpuWorkload."""
        said = self.said("get", "gpuworkload", name, "-o", "json")
        return json.loads(said)["status"].get("lastSwitch") if said else None

    def predict(self, name):
        """Ask the model, as soon as it listens."""
        return askmodel.predict(lambda: self.pod(name)["status"].get("podIP"), PATIENCE_S)

    def told(self, name):
        """What is known of it, for the message of a failed test."""
        chosen = f"involvedObject.name={name}"
        events = self._kubectl("get", "events", "--field-selector", chosen, of=name)
        containers = self.pod(name)["status"].get("containerStatuses")
        return f"{events}\n{json.dumps(containers, indent=1)}"

    def container(self, name):
        """The kubelet's word on a pod's only container."""
        (one,) = self.pod(name)["status"]["containerStatuses"]
        return one

    def delete(self, name):
        self._kubectl("delete", "pod", name, "--wait=true", "--ignore-not-found", of=name)

    def checkpoint(self, name):
        """A GpuCheckpoint."""
        return json.loads(self.plane.kubectl("get", "gpucheckpoint", name, "-o", "json"))

    def forget(self):
        for name in self.made:
            now = ("--force", "--grace-period=0")
            self._kubectl("delete", "pod", name, "--ignore-not-found", *now, of=name)
        self.made.clear()
        self.plane.kubectl("delete", "gpucheckpoints", "--all")
        for node in self.nodes:
            if node.view() is None:  # a test broke off while it was killed
                node.restart_agent()
            wait_for(lambda one=node: one.is_empty(), "all is let go of", PATIENCE_S)


@contextmanager
def two_nodes(plane: ControlPlane, work: Callable[[str], Path]) -> Iterator[Pair]:
    """Everything runs when it is entered. `work` gives a folder for what is called so."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as name, ExitStack() as running:
        shared = Path(name)
        opa = running.enter_context(FakeOpa(3600.0))
        objects = running.enter_context(ObjectServer.start(work("objects")))
        objects.make_bucket(BUCKET)
        _certificates(shared)
        _cluster(plane)
        made = []
        for number in (1, 2):
            spec = _spec(shared, number)
            node = running.enter_context(RealNode.start(plane, work(spec.name), spec))
            packages = [REPOSITORY / one for one in ("kybernate", "testbed")]
            node.import_image(IMAGE, node.python_image(NEEDED, packages))
            for url in (opa.url, objects.url):
                node.reach(int(url.rpartition(":")[2]))
            made.append(Node(plane, node, shared / str(number), shared, opa.url, objects))
        for one in made:
            one.start_all()
        yield Pair(plane, (made[0], made[1]), objects, opa)


def _spec(shared: Path, number: int) -> NodeSpec:
    folder = shared / str(number)
    folder.mkdir()
    runtimes = {}
    for name, waits in RUNTIMES.items():
        settings, program = folder / f"{name}.conf", folder / f"{name}-runc"
        settings.write_text(f"socket = {folder / 'runtime.sock'}\n{waits}")
        program.write_text(LAUNCHER.format(settings=settings, program=native.runtime()))
        program.chmod(0o755)
        runtimes[name] = program
    taint = {"key": "kyb.test/real", "effect": "NoSchedule"}
    return NodeSpec(
        name=f"waking-{number}",
        runtimes=runtimes,
        kubelet={"registerWithTaints": [taint]},
    )


def _certificates(shared: Path) -> None:
    """Keys to sign with, and certificates for agents among each other."""
    from kybernate.clients.reaching import SERVER
    from nodeagent.checkpoints.signing import Keys

    Keys.own(shared / "keys")
    (shared / "wrapping").mkdir()
    (shared / "wrapping/wrapping.key").write_text(b64encode(os.urandom(32)).decode())
    authority = pki.Authority(shared / "authority")
    for folder, name in (("serving", SERVER), ("client", names.AGENT_CLIENT)):
        pair = authority.issue(folder, common_name=name, addresses=[name])
        (shared / folder).mkdir()
        (shared / folder / "ca.crt").write_bytes(authority.files.certificate.read_bytes())
        (shared / folder / "tls.crt").write_bytes(pair.certificate.read_bytes())
        (shared / folder / "tls.key").write_bytes(pair.key.read_bytes())


def _cluster(plane: ControlPlane) -> None:
    for part in ("crd", "namespace"):
        plane.kubectl("apply", "-k", str(REPOSITORY / "manifests" / "components" / part))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for name in RUNTIMES:
        runtime = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": f"real-{name}"},
            "handler": name,
        }
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(runtime))


@pytest.fixture(scope="session")
def pair_of_nodes(
    real_programs: None, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Started once for all tests here."""
    with two_nodes(plane, tmp_path_factory.mktemp) as made:
        yield made


@pytest.fixture
def pair(pair_of_nodes: Pair) -> Iterator[Pair]:
    """The nodes; what the test made on them is removed."""
    yield pair_of_nodes
    pair_of_nodes.forget()
