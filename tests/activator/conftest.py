"""
An activator in this process, with models that are small HTTP servers.

Faked: the API server (in memory), agents (`Agents` below: they bring a model in when the test lets
them). Real: sockets, the event loop, watches, every line of the activator.
Rule: no test sleeps for a fixed time; it waits for what it expects, with a generous deadline.
"""

import asyncio
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import urllib3

from activator.agents import Make
from activator.process import Process
from activator.settings import Settings
from kybernate.api import names
from kybernate.clients.agents import AgentAway, End, Outcome, Progress
from kybernate.clients.resources import DEPLOYMENTS, GPUWORKLOADS, PODS
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from kybernate.testing.fakekube import FakeKube
from testbed import ports

T = TypeVar("T")
PATIENCE_S = 60.0
NODE, ADDRESS = "node-a", "127.0.0.1:1"


def wait_for(look: Callable[[], T], what: str, within: float = PATIENCE_S) -> T:
    """The first true answer."""
    deadline, pause = time.monotonic() + within, threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {within:g} s"
        pause.wait(0.005)
    return found


class Server(ThreadingHTTPServer):
    """A model: answers with its name. Counts what it was asked."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, name: str, port: int = 0) -> None:
        self.name, self.asked = name, Counter[str]()
        self.gate = threading.Event()  # closed: /wait does not answer
        self.order: list[str] = []
        self.seen: list[Mapping[str, str]] = []
        super().__init__(("127.0.0.1", port), Routes)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no matter."""


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked[self.path] += 1
        self.server.seen.append(dict(self.headers.items()))
        self.server.order.append(self.headers.get("X-Number", ""))
        match self.path:
            case "/wait":
                self.server.gate.wait(PATIENCE_S)
            case "/stream":
                return self._stream()
            case "/break":
                self.close_connection = True
                return None
        return self._answer({"model": self.server.name, "path": self.path, "size": len(body)})

    do_GET = do_PUT = do_POST  # noqa: N815

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1234")
        self.end_headers()

    def _answer(self, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            part = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
            if number == 0:
                self.server.gate.wait(PATIENCE_S)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@dataclass
class Agent:
    """What an agent answers. `bring_in` says how a wish to activate ends: by default well."""

    bring_in: Callable[[WorkloadKey], Outcome | None] = lambda _: None
    gate: threading.Event = field(default_factory=threading.Event)
    wishes: list[WorkloadKey] = field(default_factory=list)
    given_up: list[WorkloadKey] = field(default_factory=list)
    reports: list[dict[WorkloadKey, int]] = field(default_factory=list)
    watchers: int = 0
    is_away: bool = False
    states: dict[WorkloadKey, tuple[PodUid, State]] = field(default_factory=dict)
    streams: list["queue.Queue[Progress | None]"] = field(default_factory=list)

    def tell(self, key: WorkloadKey, uid: PodUid, state: State) -> None:
        """It stands so now; whoever watches hears it."""
        self.states[key] = (uid, state)
        for stream in self.streams:
            stream.put(_progress(key, uid, state))

    def away(self) -> None:
        """It is gone: its streams break, calls are refused."""
        self.is_away = True
        for stream in self.streams:
            stream.put(None)

    def watch(self) -> Iterator[Progress]:
        if self.is_away:
            raise AgentAway("nobody there")
        stream: queue.Queue[Progress | None] = queue.Queue()
        self.streams.append(stream)
        for key, (uid, state) in list(self.states.items()):
            yield _progress(key, uid, state)
        while (found := stream.get()) is not None:
            yield found
        self.streams.remove(stream)
        raise AgentAway("the stream broke")

    def activating(
        self, key: WorkloadKey, within: float, uid: str, *, end: End
    ) -> Iterator[Progress]:
        ended = threading.Event()
        end.of(cast(Any, _Call(ended.set)))
        self.wishes.append(key)
        if self.is_away:
            raise AgentAway("nobody there")
        yield _progress(key, PodUid(uid), State.WAITING, "its turn comes")
        while not self.gate.wait(0.01):
            if ended.is_set():
                self.given_up.append(key)
                raise AgentAway("given up")
        outcome = self.bring_in(key) or _outcome(True)
        if outcome.ok:
            self.tell(key, PodUid(uid), State.ACTIVE)
        yield Progress(
            key=key, uid=PodUid(uid), state=State.ACTIVE, phase="done", done=0, total=0,
            seconds_left=0.0, message="", outcome=outcome,
        )  # fmt: skip

    def report_demand(
        self, reporter: str, in_flight: Mapping[tuple[WorkloadKey, str], int], valid: float
    ) -> None:
        self.reports.append({key: count for (key, _), count in in_flight.items()})

    def close(self) -> None:
        for stream in self.streams:
            stream.put(None)


@dataclass(frozen=True)
class _Call:
    cancel: Callable[[], object]


def _outcome(ok: bool, reason: str = "", message: str = "") -> Outcome:
    return Outcome(ok=ok, reason=reason, message=message, seconds=0.1, phases=())


def _progress(key: WorkloadKey, uid: PodUid, state: State, message: str = "") -> Progress:
    return Progress(
        key=key, uid=uid, state=state, phase="waiting", done=0, total=0, seconds_left=2.0,
        message=message,
    )  # fmt: skip


class SetClock(SystemClock):
    """Its wall's time may be set, ahead or back: `skew` in seconds."""

    skew = 0.0

    def now(self) -> float:
        return super().now() + self.skew


class House:
    """A cluster's models, and activators in front of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        self.kube, self.agent = FakeKube(), Agent()
        self.agent.gate.set()
        self.servers: dict[str, Server] = {}
        self.kube.seed(
            {
                "kind": "GpuNode",
                "metadata": {"name": NODE},
                "status": {"endpoint": ADDRESS},
            }
        )

    def model(
        self, name: str, state: State = State.PARKED, *, listens: bool = True, **wishes: str
    ) -> WorkloadKey:
        """A Deployment of one pod; its server listens unless the test says otherwise."""
        self.deployment(name, 1, **wishes)
        return self.pod(name, state, listens=listens, **wishes)

    def deployment(self, name: str, replicas: int, **wishes: str) -> None:
        """A Deployment that asks for a seat."""
        template = a_pod(name, annotations=_annotations(wishes))
        metadata = {"name": name, "namespace": "default", "uid": f"uid-dep-{name}"}
        self.kube.seed(
            {
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {"replicas": replicas, "template": template},
            }
        )

    def pod(
        self, name: str, state: State, *, listens: bool = True, suffix: str = "1", **wishes: str
    ) -> WorkloadKey:
        """A pod of this model's Deployment."""
        pod = f"{name}-abc-{suffix}"
        server = Server(name)
        self.servers[pod] = server
        port = server.server_address[1]
        if not listens:
            server.shutdown()
            server.server_close()
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-abc", "uid": "r"}
        made = a_pod(
            pod,
            annotations=_annotations(wishes),
            labels={"pod-template-hash": "abc"},
            ownerReferences=[owner | {"controller": True}],
        )
        made["spec"]["nodeName"] = NODE
        made["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
        running = {"name": "model", "state": {"running": {}}}
        made["status"] = {
            "phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [running],
        }  # fmt: skip
        key, uid = WorkloadKey("default", pod), PodUid(f"uid-{pod}")
        self.kube.seed(made, _workload(key, uid, state))
        self.agent.tell(key, uid, state)
        return key

    def remove(self, key: WorkloadKey) -> None:
        """The pod is deleted."""
        self.agent.states.pop(key, None)
        self.kube.delete(GPUWORKLOADS, key.name, key.namespace)
        self.kube.delete(PODS, key.name, key.namespace)

    def scale(self, name: str, replicas: int) -> None:
        """As the controller does."""
        self.kube.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas}}, "default")

    wait_for = staticmethod(wait_for)

    @staticmethod
    def refused(reason: str, message: str) -> Outcome:
        """How a wish to activate may end."""
        return _outcome(False, reason, message)

    def server(self, key: WorkloadKey) -> Server:
        """The model's own."""
        return self.servers[key.name]

    def close(self) -> None:
        self.agent.close()
        for server in self.servers.values():
            server.gate.set()
            server.shutdown()
            server.server_close()


class Running:
    """One activator, in a thread of its own."""

    def __init__(self, house: House, name: str = "activator", **settings: Any) -> None:
        self.port, self.view_port = ports.guess(), ports.guess()
        self.settings = Settings(
            listen=f"127.0.0.1:{self.port}",
            view_listen=f"127.0.0.1:{self.view_port}",
            metrics_listen="127.0.0.1:0",
            client_tls_dir=house.folder,
            identity=name,
            **settings,
        )
        self.url, self.view_url = (f"http://127.0.0.1:{p}" for p in (self.port, self.view_port))
        self._house = house
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        if self._fault:
            raise self._fault
        wait_for(lambda: self.process._watching.unready is None, "watches")

    def stop(self) -> None:
        """As SIGTERM does."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)

    def kill(self) -> None:
        """As SIGKILL does to what clients and agents see: every connection is reset."""

        def die() -> None:
            for front in list(self.process.desk._fronts):
                front.transport.abort()
            for server in self.process._servers:
                server.close()

        self.loop.call_soon_threadsafe(die)

    def view(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = urllib3.request(
            "GET", f"{self.view_url}/debug/view", timeout=PATIENCE_S
        ).json()
        return found

    def of(self, name: str) -> dict[str, Any]:
        """What it says of one model."""
        models: list[dict[str, Any]] = self.view()["models"]
        return next((one for one in models if one["name"] == name), {})

    def knows(self, name: str, state: State) -> None:
        """Wait until it does."""
        wait_for(lambda: self.of(name).get("state") == state.value, f"{name} {state}")

    def ask(
        self, name: str, path: str = "/echo", method: str = "POST", **more: Any
    ) -> urllib3.BaseHTTPResponse:
        """One request by path, on a connection of its own."""
        url = f"{self.url}/models/{name}{path}"
        return urllib3.request(method, url, timeout=PATIENCE_S, retries=False, **more)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        make = cast(Make, lambda _: self._house.agent)
        try:
            self.process = Process(self.settings, self._house.kube, self._house.clock, make)
            await self.process.start()
        except BaseException as fault:
            self._fault = fault
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self.process.stop()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def start(house: House) -> Iterator[Callable[..., Running]]:
    """`start(hold=1.0)`: an activator in front of the house's models."""
    running: list[Running] = []

    def begin(name: str = "activator", **settings: Any) -> Running:
        running.append(Running(house, name, **settings))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def _annotations(wishes: Mapping[str, str]) -> dict[str, str]:
    return {f"{names.GROUP}/{name.replace('_', '-')}": value for name, value in wishes.items()}


def _workload(key: WorkloadKey, uid: PodUid, state: State) -> dict[str, Any]:
    return {
        "kind": "GpuWorkload",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"podUID": uid, "resource": "kyb.ai/gpu-1x-seat"},
        "status": {
            "state": state.value,
            "since": "2026-01-01T00:00:00Z",
            "node": NODE,
            "tier": "ram" if state is State.PARKED else None,
        },
    }
