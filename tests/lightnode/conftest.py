"""
Real: the control plane (one per session), the light node in this process, the device plugin as a
program of its own, simulated GPUs behind their real service, pods as processes.
Faked: the node agent, which here lets every held container go when a test says so.
Observed: the API server's objects, the agent's log of what it was told.
"""

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest

from kybernate.clients import runtimecalls
from kybernate.clients.errors import AlreadyExists, NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.resources import NAMESPACES, NODES, PODS, Resource
from kybernate.clients.runtimecalls import Op
from kybernate.model.gpu import Gpu
from kybernate.runtime.clock import SystemClock
from kybernate.testing.runtimelistener import RuntimeListener
from testbed.gpu.service import running
from testbed.lightnode.ending import end_pods
from testbed.lightnode.node import Habits, LightNode, Places
from testbed.lightnode.nodeobject import NodeFacts

GIB = 2**30
PROFILES = """
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 2}
  - {name: gpu-2x-seat, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 1}
"""
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
_numbers = itertools.count()


def until(look, within=60.0):
    """What `look` gives once it is something; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
    raise AssertionError(f"not in {within} s")


@pytest.fixture(name="until")
def until_fixture():
    """Look again and again."""
    return until


class FakeAgent:
    """Keeps what it was told; lets containers go by opening their FIFO for reading."""

    def __init__(self, socket):
        self._listener = RuntimeListener(runtimecalls.beside(socket))
        self.start, self.stop = self._listener.start, self._listener.stop

    def of(self, name):
        return self._listener.told(Op.HELD, name)

    @property
    def exited(self):
        return self._listener.told(Op.ENDED)

    def release(self, told):
        assert told.fifo.read_bytes() == b"0\n"


@pytest.fixture
def work():
    """A short path: a unix socket's has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def agent(work):
    """The node agent's stand-in."""
    made = FakeAgent(work / "agent.sock")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def admin(plane):
    """The API server, as an administrator."""
    kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
    yield kube
    kube.close()


@pytest.fixture
def node_name(admin):
    """A node of the test's own."""
    name = f"light-{next(_numbers)}-{time.time_ns()}"
    yield name
    with contextlib.suppress(NotFound):
        admin.delete(NODES, name)


@pytest.fixture
def namespace(admin):
    """A namespace of the test's own, with the ServiceAccount pods need."""
    name = f"pods-{next(_numbers)}-{time.time_ns()}"
    admin.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    for pod in admin.list(PODS, name):
        admin.delete(PODS, pod["metadata"]["name"], name, grace_seconds=0)
    admin.delete(NAMESPACES, name)


@pytest.fixture
def light_node(plane, work, agent, node_name):
    """Starts light nodes on the same folder; the last one ends its pods with the test."""
    made = []

    def start():
        kube = Kube.from_kubeconfig(plane.node_kubeconfig(node_name))
        places = Places(
            work=work / "node",
            plugin_dir=work / "plugins",
            podresources=work / "podresources.sock",
            agent=work / "agent.sock",
        )
        habits = Habits(facts=NodeFacts(name=node_name), restart_after=0.2)
        node = LightNode(kube, places, habits, SystemClock())
        node.start()
        made.append((node, kube))
        return node

    yield start
    node, _ = made[-1]
    node.stop()
    for _, kube in made:
        kube.close()


@pytest.fixture
def program(plane, work, agent, node_name):
    """Starts `python -m testbed.lightnode`, ready when it returns."""
    started = []

    def start():
        process = subprocess.Popen(
            [
                sys.executable, "-m", "testbed.lightnode", "--node", node_name,
                "--kubeconfig", plane.node_kubeconfig(node_name), "--work-dir", work / "node",
                "--plugin-dir", work / "plugins", "--agent-socket", work / "agent.sock",
                "--podresources-socket", work / "podresources.sock", "--restart-after", "0.2",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        started.append(process)
        assert "ready" in next(line for line in process.stdout if "ready" in line)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    end_pods(work / "node")


@pytest.fixture
def gpus(work):
    """Two simulated cards of 80 GiB."""
    cards = [Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80 * GIB) for i in range(2)]
    with running(cards, work / "gpu.sock", scale=65536, bytes_per_second=1e15) as device:
        yield device


@pytest.fixture
def device_plugin(work, gpus):
    """Starts `python -m deviceplugin` for the node."""
    started = []

    def start():
        profiles = work / "profiles.yaml"
        profiles.write_text(PROFILES)
        process = subprocess.Popen(
            [
                sys.executable, "-m", "deviceplugin", "--profiles", profiles,
                "--inventory", "simulated", "--simulated-gpu", work / "gpu.sock",
                "--plugin-dir", work / "plugins", "--agent-socket", work / "agent.sock",
                "--metrics-listen", "127.0.0.1:0", "--health-every", "1s",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait()


@pytest.fixture
def pod(admin, namespace, node_name):
    """Creates a pod bound to the node."""

    def create(name, *command, seat=None, **spec):
        container = {"name": "main", "image": "none", "command": list(command)}
        if seat:
            container["resources"] = {"limits": {f"kyb.ai/gpu-{seat}x-seat": "1"}}
        container |= spec.pop("container", {})
        body = {
            "metadata": {"name": name, "namespace": namespace, **spec.pop("metadata", {})},
            "spec": {
                "nodeName": node_name,
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 2,
                "containers": [container],
                **spec,
            },
        }
        return admin.create(PODS, body, namespace)

    return create


@pytest.fixture
def status(admin, namespace):
    """A pod's status now; empty when it is gone."""

    def look(name):
        try:
            return admin.get(PODS, name, namespace).get("status") or {}
        except NotFound:
            return {}

    return look


@pytest.fixture
def aside():
    """A thread for what is to block."""
    with futures.ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Whatever a test starts ends with it."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and not t.daemon and t.is_alive()]
    assert not left, left


@pytest.fixture
def runtime_class(admin):
    """The RuntimeClass whose containers are held."""
    body = {"metadata": {"name": "kybernate"}, "handler": "kybernate"}
    with contextlib.suppress(AlreadyExists):
        admin.create(RUNTIME_CLASSES, body)
    return "kybernate"
