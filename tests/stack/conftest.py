"""
All of Kybernate at once, to be broken on purpose.

Real: the control plane, our five processes, OPA, kube-scheduler, two light nodes with their agents
and device plugins, every pod's process. Simulated: the GPUs and their bus. Faked: nothing.
Observed: the agents' own state beside what the simulated GPUs and /proc show of it.

One stack serves the folder, or each process where files run side by side: a test takes names of its
own for its pods, starts again what it killed, and puts back the policies it edited; its pods are
removed when it ends.
"""

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from kybernate.api import names
from kybernate.clients.agents import Agent, AgentAway, NodeView, Outcome, WorkloadState
from kybernate.clients.errors import ApiError, NotFound, Retry
from kybernate.clients.kube import Kube
from kybernate.clients.resources import (
    CONFIGMAPS,
    EVENTS,
    GPUWORKLOADS,
    PODS,
    PRIORITYCLASSES,
)
from kybernate.clients.simgpu import Driver
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from testbed.stack import NodeSpec, Stack

SEATS = "kyb.ai/gpu-{}-seat"
PORT = 8080
PATIENCE_S = 60.0  # two busy cores
LOOK_S = 0.05
POLICIES = "kyb-policies"
LOADED = re.compile(r"^(serving on|step )", re.MULTILINE)
# A turn is over within seconds, and tests may switch as often as they like.
IMPATIENT = {
    "inference": {"min_runtime_seconds": 0.5, "idle_after_seconds": 0.5, "slice_seconds": 3},
    "training": {"min_runtime_seconds": 0.5, "idle_after_seconds": 1, "slice_seconds": 1},
}
FOUR = NodeSpec(
    name="four",
    cards=4,
    profiles={
        "profiles": [
            {
                "name": f"gpu-{size}x-seat",
                "resource": SEATS.format(f"{size}x"),
                "groupSize": size,
                "seatsPerGroup": seats,
            }
            for size, seats in ((1, 4), (2, 3), (4, 2))
        ],
        # Pairs are listed, singles and fours are formed.
        "gpuTopology": {
            "groups": [{"name": "even", "gpus": [0, 2]}, {"name": "odd", "gpus": [1, 3]}]
        },
    },
)
ONE = NodeSpec(name="one")
_PAUSE = threading.Event()
IN_VRAM = frozenset({State.ACTIVATING, State.ACTIVE, State.PARKING})


@dataclass
class Cluster:
    """What tests do to the stack, and how they look at it."""

    stack: Stack
    kube: Kube
    agents: Mapping[str, Agent]
    gpus: Mapping[str, Driver]

    # pods

    def model(self, name: str, node: str = "", vram: str = "4Gi", **more: Any) -> str:
        """Create a model server; its name."""
        return self.create(_pod(name, _serve(vram), node=node, vram=vram, **more))

    def trainer(self, name: str, steps: int, node: str = "", vram: str = "4Gi", **more: Any) -> str:
        """Create a trainer of tenths of seconds; its name."""
        command = [
            "python", "-m", "testbed.models", "train",
            "--vram", vram, "--steps", str(steps), "--step-seconds", "0.1",
        ]  # fmt: skip
        wanted = {"cls": "training", "priority": "background", **more}
        return self.create(_pod(name, command, node=node, vram=vram, **wanted))

    def create(self, pod: dict[str, Any]) -> str:
        """Its name."""
        name: str = self.kube.create(PODS, pod)["metadata"]["name"]
        return name

    def pod(self, name: str) -> dict[str, Any]:
        """As the API server has it."""
        return self.kube.get(PODS, name, "default")

    def phase(self, name: str) -> str:
        phase: str = self.pod(name)["status"].get("phase", "")
        return phase

    def node_of(self, name: str) -> str:
        """Where it was placed, or nothing."""
        node: str = self.pod(name)["spec"].get("nodeName", "")
        return node

    def scheduling(self, name: str) -> str:
        """What the scheduler says of a pod that waits."""
        conditions = self.pod(name)["status"].get("conditions", [])
        return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")

    def status(self, name: str) -> dict[str, Any]:
        """Of its GpuWorkload."""
        try:
            found: dict[str, Any] = self.kube.get(GPUWORKLOADS, name, "default").get("status", {})
        except NotFound:
            return {}
        return found

    def delete(self, *pods: str) -> None:
        """And wait until agents and cards know nothing of them."""
        for name in pods:
            with suppress(NotFound):
                self.kube.delete(PODS, name, "default", grace_seconds=1)
        self.until(lambda: not any(self.workload(name) for name in pods), f"no {pods} any more")

    def clear(self) -> None:
        """No pod, no workload, no byte of VRAM in use."""
        for pod in self.kube.list(PODS, "default"):
            with suppress(NotFound):
                self.kube.delete(PODS, pod["metadata"]["name"], "default", grace_seconds=1)
        self.until(lambda: not self.kube.list(PODS, "default"), "no pods")
        self.until(lambda: not any(self.view(n).workloads for n in self.agents), "no workloads")
        self.until(lambda: not any(self.used(n) for n in self.gpus), "no VRAM in use")

    # what agents and cards say

    def view(self, node: str) -> NodeView:
        return self.agents[node].state()

    def workload(self, name: str) -> WorkloadState | None:
        """Wherever it is; None while no agent knows it or answers."""
        key = WorkloadKey("default", name)
        for agent in self.agents.values():
            with suppress(AgentAway):
                if found := agent.state().workload(key):
                    return found
        return None

    def state(self, name: str) -> State | None:
        found = self.workload(name)
        return found.state if found else None

    def is_(self, name: str, *states: State) -> Callable[[], bool]:
        """For `until`."""
        return lambda: self.state(name) in states

    def used(self, node: str) -> int:
        """Bytes in use on all its cards, by the cards."""
        return sum(self.gpus[node].showing().used.values())

    def pool(self, node: str) -> set[str]:
        """Whose contents are in the RAM pool, by pod uid."""
        folder = self.stack.nodes[node].folder.root / "state" / "pool"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def pid(self, name: str) -> int:
        """The process of a workload, by its environment: a parked one answers nobody."""
        here = f"{names.ENV_DEVICE_SOCKET}={self.stack.work}/".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")
                if f"POD_NAME={name}".encode() in variables:
                    found += [int(path.name) for one in variables if one.startswith(here)]
        return min(found)

    def log(self, name: str) -> str:
        """What its containers printed."""
        file = f"default_{name}_{self.pod(name)['metadata']['uid']}.log"
        found = [n.folder.work / "logs" / file for n in self.stack.nodes.values()]
        return "".join(path.read_text() for path in found if path.exists())

    # asking

    def loaded(self, *pods: str) -> None:
        """Wait until each has filled its VRAM once, and serves or trains."""
        for name in pods:
            self.until(lambda name=name: LOADED.search(self.log(name)), f"{name} loaded")

    def activate(self, name: str, node: str = "", within: float = PATIENCE_S) -> Outcome:
        """Have it brought in. `node` where the API server cannot say it."""
        agent = self.agents[node or self.node_of(name)]
        return agent.activate(WorkloadKey("default", name), within=within)

    @contextmanager
    def caught(self, name: str, node: str, phase: str) -> Iterator[Future[Outcome]]:
        """While it is brought in, at the first word of `phase`; yields the answer to come."""
        watching = self.agents[node].watch(timeout=PATIENCE_S)
        next(watching)  # how things are: from here on nothing is missed
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.activate, name, node)
            assert any(one.phase == phase for one in watching), answer.result()
            yield answer

    def kill(self, name: str) -> None:
        """`kill -9` of one of our servers, until nobody listens at its port: workers it had end
        by themselves soon after."""
        self.stack.kill(name)
        self.until(lambda: not _listens(self.stack.running[name].port), f"{name} is gone")

    def predict(self, name: str, address: str = "") -> dict[str, Any]:
        """Ask it over HTTP: {"counter", "intact", "seconds"}."""
        url = f"http://{address or self.address(name)}/predict"
        answer = urllib3.request("POST", url, timeout=PATIENCE_S, retries=False)
        assert answer.status == 200, answer.data
        body: dict[str, Any] = answer.json()
        return body

    def address(self, name: str) -> str:
        """Where it listens."""
        return f"{self.pod(name)['status']['podIP']}:{PORT}"

    # events and policies

    def events(self, name: str, reason: str, namespace: str = "default") -> list[str]:
        """Notes of the events of this reason about this object, oldest first."""
        found = self.kube.list(EVENTS, namespace, field_selector=f"reason={reason}")
        found = [one for one in found if one["regarding"].get("name") == name]
        found.sort(key=lambda event: event.get("eventTime") or "")
        return [event.get("note", "") for event in found]

    def times(self, name: str, reason: str) -> int:
        """How often it was said of a pod: what is said again is counted in the event's series."""
        found = self.kube.list(EVENTS, "default", field_selector=f"reason={reason}")
        mine = [one for one in found if one["regarding"].get("name") == name]
        return sum((one.get("series") or {}).get("count", 1) for one in mine)

    @contextmanager
    def policies(self, key: str, edit: Callable[[str], str | None]) -> Iterator[None]:
        """One member of the ConfigMap edited, as a person would; put back at the end."""
        before: str = self.kube.get(CONFIGMAPS, POLICIES, names.SYSTEM_NAMESPACE)["data"][key]
        revision = self.stack.policy_revision()
        self._put(key, edit(before))
        try:
            yield
        finally:
            self._put(key, before)
            self.until(lambda: self.stack.policy_revision() == revision, "the policies of before")

    def settings(self, key: str, change: Callable[[Any], None]) -> None:
        """Change a data file for good, and wait until OPA decides by it."""

        def edit(text: str) -> str:
            body = json.loads(text)
            change(body)
            return json.dumps(body)

        before = self.stack.policy_revision()
        self._put(key, edit(self.kube.get(CONFIGMAPS, POLICIES, "kyb-system")["data"][key]))
        self.until(lambda: self.stack.policy_revision() != before, "new policies in OPA")

    def _put(self, key: str, text: str | None) -> None:
        self.kube.patch(CONFIGMAPS, POLICIES, {"data": {key: text}}, names.SYSTEM_NAMESPACE)

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """An outage. kube-scheduler is started anew after it: its own back-off may exceed a
        minute, which is not ours to test."""
        plane = self.stack.plane
        plane.stop_apiserver()
        try:
            yield
        finally:
            plane.start_apiserver()
            plane.stop_scheduler()
            self.stack.start_scheduler()

    # waiting

    def until(
        self,
        check: Callable[[], Any],
        what: str,
        within: float = PATIENCE_S,
        moving: Callable[[], object] = lambda: None,
    ) -> Any:
        """The first true answer of `check`, `within` seconds of the last change in `moving`."""
        deadline, stood = time.monotonic() + within, moving()
        while True:
            with suppress(Retry):
                if answer := check():
                    return answer
            if (now := moving()) != stood:
                deadline, stood = time.monotonic() + within, now
            assert time.monotonic() < deadline, f"{what}: not within {within:g} s\n{self._story()}"
            _PAUSE.wait(LOOK_S)

    def stays(self, check: Callable[[], Any], seconds: float) -> None:
        """It is so at every look."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert check(), self._story()
            _PAUSE.wait(LOOK_S)

    def _story(self) -> str:
        lines = []
        for node, agent in self.agents.items():
            try:
                lines += [
                    f"{node} {w.key.name} {w.seat} {w.state} {w.seconds_in_state:.1f} s {w.why}"
                    for w in agent.state().workloads
                ]
            except AgentAway as away:
                lines.append(f"{node}: {away}")
        with suppress(ApiError):
            lines += [
                f"pod {pod['metadata']['name']} on {pod['spec'].get('nodeName')}: {pod['status']}"
                for pod in self.kube.list(PODS, "default")
            ]
        return "\n".join(lines)


@dataclass
class Witness:
    """Looks at a node all the time: what the agent says and what the cards show, side by side."""

    cluster: Cluster
    node: str
    faults: list[str] = field(default_factory=list)
    looks: int = 0
    turns: Counter[str] = field(default_factory=Counter)  # by pod: how often it became Active
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Witness":
        self._threads = [
            threading.Thread(target=self._look_on, daemon=True),
            threading.Thread(target=self._follow, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[0].join()

    def _look_on(self) -> None:
        while not self._stop.wait(0.02):
            with suppress(Retry):
                self._look_at_cards()
            with suppress(Retry):
                self._look_at_state()
            self.looks += 1

    def _look_at_cards(self) -> None:
        shown = self.cluster.gpus[self.node].showing()
        for gpu in shown.gpus:
            there = [p for p in shown.processes if p.uuid == gpu.uuid and p.used]
            pods = [(p.pid, p.used, p.locked) for p in there if not _is_agent(p.pid)]
            if len(pods) > 1:
                self._fault(f"GPU {gpu.index} holds memory of {pods}")
            if shown.used[gpu.uuid] > gpu.memory:
                self._fault(f"GPU {gpu.index}: {shown.used[gpu.uuid]} bytes")

    def _fault(self, what: str) -> None:
        states = [f"{w.key.name} {w.state}" for w in self.cluster.view(self.node).workloads]
        self.faults.append(f"{time.time():.3f} {what}, then {states}")  # noqa: TID251

    def _look_at_state(self) -> None:
        view = self.cluster.view(self.node)
        for card in view.cards:
            there = [
                w.key.name for w in view.workloads if card.index in w.gpus and w.state in IN_VRAM
            ]
            if len(there) > 1:
                self._fault(f"GPU {card.index} is given to {there}")

    def _follow(self) -> None:
        last: dict[str, State] = {}
        while not self._stop.is_set():
            with suppress(Retry):
                for one in self.cluster.agents[self.node].watch(timeout=5.0):
                    name = one.key.name
                    if one.state is State.ACTIVE and last.get(name) is not State.ACTIVE:
                        self.turns[name] += 1
                    last[name] = one.state


def _is_agent(pid: int) -> bool:
    """An agent that starts measures the bus with a gibibyte of its own, where there is room."""
    try:
        return b"nodeagent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(1.0)
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _serve(vram: str) -> list[str]:
    return ["python", "-m", "testbed.models", "serve", "--vram", vram, "--port", str(PORT)]


def _pod(
    name: str,
    command: list[str],
    *,
    node: str = "",
    vram: str | None = None,
    seat: str = "1x",
    cls: str = "inference",
    priority: str = "interactive",
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    wishes = {names.CLASS: cls, **(annotations or {})}
    if vram is not None:
        wishes = {names.VRAM: vram, **wishes}
    limits = {SEATS.format(seat): "1"} if seat else {}
    container = {
        "name": "main",
        "image": "kybernate/models:0.1.0",
        "command": command,
        "resources": {"limits": limits},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {k: v for k, v in wishes.items() if v},
        },
        "spec": {
            "priorityClassName": priority,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
            "containers": [container],
            **spec,
        },
    }


@pytest.fixture(scope="session")
def a_seat_pod() -> Callable[..., dict[str, Any]]:
    """`a_seat_pod(name, command, vram=..., seat=..., ...)`: the object, not yet created."""
    return _pod


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Unix sockets' paths are at most 107 bytes, and pytest's folders are longer than that."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def whole(assets: Any, short_folder: Path) -> Iterator[Cluster]:
    """The stack of the session, with short turns."""
    with ExitStack() as closing:
        stack = closing.enter_context(Stack.start(short_folder / "s", [FOUR, ONE]))
        kube = Kube.from_kubeconfig(stack.plane.admin_kubeconfig)
        closing.callback(kube.close)
        agents = {
            name: closing.enter_context(Agent.on_node(node.folder.agent_socket))
            for name, node in stack.nodes.items()
        }
        gpus = {
            name: closing.enter_context(Driver(node.folder.gpu_socket))
            for name, node in stack.nodes.items()
        }
        cluster = Cluster(stack, kube, agents, gpus)
        for name, value in (("interactive", 1000), ("background", 100)):
            kube.create(
                PRIORITYCLASSES,
                {"metadata": {"name": name}, "value": value, "preemptionPolicy": "Never"},
            )
        cluster.settings("data__classes.json", _be_impatient)
        cluster.settings(
            "data__turns.json", lambda turns: turns.update(switches_per_minute_max=10_000)
        )
        yield cluster


def _be_impatient(classes: dict[str, Any]) -> None:
    for name, numbers in IMPATIENT.items():
        classes[name].update(numbers)


@pytest.fixture
def cluster(whole: Cluster) -> Iterator[Cluster]:
    """The stack, without pods before and after."""
    yield whole
    whole.clear()


@pytest.fixture
def witness(cluster: Cluster) -> Callable[[str], Witness]:
    """`with witness(node) as seen:` ... `assert not seen.faults`."""
    return lambda node: Witness(cluster, node)


@pytest.fixture(scope="session")
def living() -> Callable[[Path], dict[int, str]]:
    """`living(folder)`: every process at work in the folder, by number, with its command line.

    By working directory, arguments and environment: what was never recorded is seen too, and so is
    what runs in a container with a socket of the folder.
    """
    return _living


def _living(folder: Path) -> dict[int, str]:
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = (path / "cwd").readlink()
            there = where.is_relative_to(folder) or f"{folder}/" in words or f"{folder} " in words
            there = there or f"={folder}/".encode() in (path / "environ").read_bytes()
            if there and int(path.name) != os.getpid() and _runs(path):
                found[int(path.name)] = words
    return found


def _runs(path: Path) -> bool:
    return (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(check)` answers the first true answer of `check`, or fails after `within` s."""

    def look(check: Callable[[], Any], within: float = PATIENCE_S) -> Any:
        pause, deadline = threading.Event(), time.monotonic() + within
        while not (answer := check()):
            assert time.monotonic() < deadline, f"not within {within:g} s"
            pause.wait(LOOK_S)
        return answer

    return look
