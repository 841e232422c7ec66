"""
A whole node around a real agent, in one folder: for tests that kill agents.

Real: the agent's process, the simulated GPU's, the containers' (held at their FIFOs as runc holds
them) and everything between them. Faked, and under the test's hand: the API server, OPA, the
kubelet's PodResources. Nothing here imports the agent: it is started as a program, its imports done
beforehand (`preloaded`).
"""

import json
import os
import signal
import time
import uuid as uuids
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from kybernate.api import gpuworkloads, pods
from kybernate.api.profiles import made_up_uuid
from kybernate.clients import runtimecalls
from kybernate.clients.agents import Agent, AgentAway, NodeView
from kybernate.clients.resources import EVENTS
from kybernate.clients.runtimecalls import Call, NotHeard, Op, RuntimeCaller
from kybernate.clients.simgpu import Driver
from kybernate.model.ids import PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import State
from kybernate.testing.builders import a_pod
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.fakekubelet import FakeKubelet
from kybernate.testing.fakeopa import FakeOpa
from kybernate.testing.preloaded import Forked, preloaded

PATIENCE_S = 60.0  # two busy cores
_LOOK_S = 0.02
_PROGRAMS = (
    "nodeagent.process",
    "testbed.models.serve",
    "testbed.models.train",
    "testbed.gpu.service",
)
PROFILES = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 6}
"""


@dataclass(slots=True)
class Pod:
    """A pod's one container and what the test knows of it."""

    key: WorkloadKey
    uid: str
    container_id: str
    process: Forked
    fifo: Path
    log: Path

    def predict(self, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """Ask the model; its counter, and whether its contents are intact."""
        port = wait_for(self._port, f"{self.key} serves")
        answer = urllib3.request(
            "POST", f"http://127.0.0.1:{port}/predict", timeout=timeout, retries=False
        )
        body: dict[str, Any] = json.loads(answer.data)
        return body

    def _port(self) -> str:
        text = self.log.read_text() if self.log.exists() else ""
        found = [line for line in text.splitlines() if "serving on" in line]
        return found[-1].rsplit(":", 1)[-1].strip() if found else ""

    @property
    def started(self) -> bool:
        """Whether it was let go."""
        return not self.fifo.exists()


@dataclass(slots=True)
class AgentNode:
    """`begin` first. Processes are ended when the context ends."""

    folder: Path
    cards: int = 1
    profiles: str = PROFILES
    pool_limit: str = "400Gi"
    flags: list[str] = field(default_factory=list)  # for the agent, beside its usual ones
    environment: dict[str, str] = field(default_factory=dict)  # likewise
    bus: float = 400e9
    own_networks: bool = False  # of containers; needs root
    serve: tuple[str, ...] = ("testbed.models", "serve")  # what the next pod runs
    kube: FakeKube = field(default_factory=FakeKube)
    opa: FakeOpa = field(default_factory=FakeOpa)
    pods: dict[WorkloadKey, Pod] = field(default_factory=dict)
    _gpu: Forked | None = None
    _agent: Forked | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _kubelet: FakeKubelet | None = None
    _kubeconfig: Path = Path()

    def __enter__(self) -> "AgentNode":
        (self.folder / "profiles.yaml").write_text(self.profiles)
        api = self._stack.enter_context(FakeHttp(self.kube))
        self._kubeconfig = api.kubeconfig(self.folder / "kubeconfig")
        self._stack.enter_context(self.opa)
        self._kubelet = self._stack.enter_context(FakeKubelet(self.folder / "podres.sock"))
        argv = ["testbed.gpu", f"--socket={self.gpu_socket}", "--name=node"]
        argv += ["--card=Simulated H100=80Gi"] * self.cards
        argv += ["--scale=16384", f"--bus={self.bus:.0f}"]
        self._gpu = self._run(argv, "gpu.log")
        wait_for(self.gpu_socket.exists, "the simulated GPU serves")
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._agent, *(pod.process for pod in self.pods.values()), self._gpu):
            _end(process)
        self._stack.close()

    # places

    @property
    def gpu_socket(self) -> Path:
        """The simulated GPU."""
        return self.folder / "gpu.sock"

    @property
    def socket(self) -> Path:
        """The agent."""
        return self.folder / "agent.sock"

    @property
    def agent_log(self) -> str:
        """Everything all agents said."""
        log = self.folder / "agent.log"
        return log.read_text() if log.exists() else ""

    # the agent

    def start_agent(self, *, fault: str = "", wait: bool = True) -> None:
        """Start it; with `fault` it kills itself there (nodeagent.disk.journal.BreakingJournal)."""
        argv = [
            "nodeagent", "--node=node", "--inventory=simulated",
            f"--profiles={self.folder / 'profiles.yaml'}", f"--simulated-gpu={self.gpu_socket}",
            f"--kubeconfig={self._kubeconfig}", f"--opa-url={self.opa.url}",
            f"--state-dir={self.folder / 'state'}", f"--pool-limit={self.pool_limit}",
            f"--socket={self.socket}", f"--podresources-socket={self.folder / 'podres.sock'}",
            "--metrics-listen=127.0.0.1:0", "--switch-seconds=5s", "--nvme-keep-free=0",
            *self.flags,
        ]  # fmt: skip
        faulty = {"KYB_FAULT": fault} if fault else {}
        self._agent = self._run(argv, "agent.log", {**self.environment, **faulty})
        if wait:
            begun = self._agent
            wait_for(lambda: self.view() or begun.poll() is not None, "the agent serves")
            assert begun.poll() is None, self.agent_log

    def kill_agent(self) -> None:
        """kill -9."""
        assert self._agent is not None
        self._agent.kill()
        self._agent.wait()

    def stop_agent(self) -> int:
        """SIGTERM; its exit status."""
        assert self._agent is not None
        self._agent.terminate()
        return self._agent.wait(PATIENCE_S)

    def await_agent_end(self) -> int:
        """Until it has ended by itself; its exit status."""
        assert self._agent is not None
        return self._agent.wait(PATIENCE_S)

    @property
    def agent_runs(self) -> bool:
        """Whether its process lives."""
        return self._agent is not None and self._agent.poll() is None

    def view(self) -> NodeView | None:
        """What the agent says; None while nobody answers."""
        with Agent.on_node(self.socket) as agent:
            try:
                return agent.state()
            except AgentAway:
                return None

    def tier_of(self, pod: Pod) -> str:
        """Where its contents are; empty while nobody knows."""
        view = self.view()
        found = view.workload(pod.key) if view else None
        return found.tier if found else ""

    def state_of(self, pod: Pod) -> State | None:
        """One workload's state."""
        view = self.view()
        found = view.workload(pod.key) if view else None
        return found.state if found else None

    def await_state(self, pod: Pod, state: State) -> None:
        """Until it is so."""
        wait_for(lambda: self.state_of(pod) is state, f"{pod.key} is {state}")

    # pods

    def create_pod(
        self,
        name: str,
        seat: str,
        *,
        vram: str = "40Gi",
        cls: str = "inference",
        priority: int = 0,
        annotations: dict[str, str] | None = None,
    ) -> Pod:
        """A pod as the API server shows it, its seat, and its held container. Not told yet."""
        wishes = {"kyb.ai/vram": vram, "kyb.ai/class": cls, **(annotations or {})}
        uid = str(uuids.uuid4())
        spec = {"nodeName": "node", "priority": priority}
        resource = ResourceName(f"kyb.ai/gpu-{len(_gpus(seat))}x-seat")
        self.show_pod(a_pod(name, resource=resource, annotations=wishes, spec=spec, uid=uid))
        key = WorkloadKey("default", name)
        assert self._kubelet is not None
        self._kubelet.seats[key] = (resource, seat)
        pod = self._launch(key, uid, seat, vram)
        self.pods[key] = pod
        return pod

    def show_pod(self, obj: dict[str, Any]) -> None:
        """Have the API server know a pod and its GpuWorkload."""
        workload = pods.read_workload(obj)
        assert workload is not None
        self.kube.seed(obj, gpuworkloads.new_object(workload))

    def _launch(self, key: WorkloadKey, uid: str, seat: str, vram: str) -> Pod:
        container_id = uuids.uuid4().hex
        fifo, log = self.folder / f"{key.name}.fifo", self.folder / f"{key.name}.log"
        with suppress(FileNotFoundError):
            fifo.unlink()
        os.mkfifo(fifo)
        environment = {
            "KYB_SIMULATED_GPU": str(self.gpu_socket),
            "CUDA_VISIBLE_DEVICES": ",".join(made_up_uuid("node", one) for one in _gpus(seat)),
            "POD_NAME": key.name,
            "VLLM_SERVER_DEV_MODE": "1",
        }
        argv = [*self.serve, f"--vram={vram}", "--port=0"]
        process = self._run(argv, log.name, environment, fifo)
        return Pod(key, uid, container_id, process, fifo, log)

    def tell_created(self, pod: Pod) -> None:
        """As the runtime does."""
        call = Call(
            op=Op.HELD,
            pod=pod.key,
            uid=PodUid(pod.uid),
            container="model",
            container_id=pod.container_id,
            pid=pod.process.pid,
            fifo=pod.fifo.absolute(),
        )
        caller = RuntimeCaller(runtimecalls.beside(self.socket))
        wait_for(lambda: _heard(caller, call), "the agent listens")

    def start_pod(self, name: str, seat: str, **wishes: Any) -> Pod:
        """`create_pod`, and tell the agent."""
        pod = self.create_pod(name, seat, **wishes)
        self.tell_created(pod)
        return pod

    def end_pod(self, pod: Pod) -> None:
        """Its process dies. The agent is not told."""
        _end(pod.process)

    # what is on the card

    def gpu(self) -> Driver:
        """The device's own word; close it."""
        return Driver(self.gpu_socket)

    def events(self) -> list[dict[str, Any]]:
        """What was written, by the API server's word."""
        found: list[dict[str, Any]] = self.kube.list(EVENTS)
        return found

    def notes(self, reason: str) -> list[str]:
        """Of the events of one kind."""
        return [one["note"] for one in self.events() if one["reason"] == reason]

    def _run(
        self,
        argv: list[str],
        log: str,
        environment: dict[str, str] | None = None,
        fifo: Path | None = None,
    ) -> Forked:
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "TMPDIR", "LANG") if k in os.environ}
        with (self.folder / log).open("ab") as output:
            return preloaded(*_PROGRAMS).start(
                argv,
                env=kept | (environment or {}),
                cwd=self.folder,
                output=output.fileno(),
                fifo=str(fifo or ""),
                own_network=self.own_networks and fifo is not None,
            )


def _gpus(seat: str) -> list[int]:
    """`G01/2`: cards 0 and 1."""
    return [int(digit) for digit in seat.split("/")[0][1:]]


def _heard(caller: RuntimeCaller, call: Call) -> bool:
    try:
        caller.tell(call)
    except NotHeard:
        return False
    return True


def wait_for(look: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Look until it is true; what was seen then. Raises AssertionError naming `what`."""
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"not so after {seconds:g} s: {what}")
        time.sleep(_LOOK_S)  # noqa: TID251 - looking at another process
    return found


def _end(process: Forked | None) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
