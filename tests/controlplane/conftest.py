"""
Our extender beside the real kube-scheduler.

Real: etcd, API server, controller manager, scheduler, TLS, the extender's process under its
ServiceAccount's token, the shipped types and roles, kubectl.
Not there: kubelets. Nodes, their GpuNodes and the ends of pods are written by hand.
Observed: a proxy between scheduler and extender writes down what they say, byte by byte.
"""

import itertools
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
import yaml

from kybernate.api import gpunodes
from kybernate.clients.errors import ApiError
from kybernate.clients.kube import Kube
from kybernate.clients.resources import (
    GPUCHECKPOINTS,
    GPUNODES,
    NAMESPACES,
    NODES,
    PODS,
    Resource,
)
from kybernate.model.node import NodeState
from kybernate.testing.builders import a_gpunode, a_pod
from testbed import ports
from testbed.controlplane import ControlPlane
from testbed.processes import Processes

ROOT = Path(__file__).parents[2]
SCHEDULER = ROOT / "manifests/examples/scheduler.yaml"
NAME = "kybernate"  # of the shipped second scheduler
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Exchange:
    """One call of the scheduler and the answer it got."""

    verb: str
    request: Any
    status: int
    answer: Any
    raw: bytes

    @property
    def pod(self) -> str:
        return str(self.request["Pod"]["metadata"]["name"])


@dataclass
class Recording:
    """What passed the proxy, in order."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)

    def of(self, pod: str, verb: str) -> list[Exchange]:
        return [one for one in self.exchanges if (one.pod, one.verb) == (pod, verb)]


@dataclass
class Beside:
    """The extender and its surroundings; with what a test wants to do to the cluster."""

    plane: ControlPlane
    kube: Kube
    namespace: str
    url: str
    recording: Recording
    pool: urllib3.PoolManager
    tls: Path

    def get(self, path: str) -> Any:
        """GET from the extender itself."""
        answer = self.pool.request("GET", self.url + path)
        assert answer.status == 200, answer.data
        return answer.data

    def renew_certificate(self) -> None:
        """As the controller does when it is time."""
        issue(self.plane, self.tls)

    def add_node(self, state: NodeState, *, cpu: str = "64", seats: int = 4) -> None:
        """A ready Node with seats, and its GpuNode."""
        resources = {group.profile.resource: str(seats) for group in state.groups.values()}
        room = {"cpu": cpu, "memory": "512Gi", "pods": "110", **resources}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
        self.kube.create(NODES, {"metadata": {"name": state.name, "labels": dict(state.labels)}})
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        self.kube.patch(NODES, state.name, {"status": status}, subresource="status")
        self.kube.create(GPUNODES, gpunodes.new_object(state.name))
        self.report(state)

    def report(self, state: NodeState) -> None:
        """What the node's agent says."""
        status = {"status": a_gpunode(state)["status"]}
        self.kube.patch(GPUNODES, state.name, status, subresource="status")

    def add_checkpoint(self, name: str, status: Mapping[str, Any]) -> None:
        """A ready GpuCheckpoint."""
        self.kube.create(
            GPUCHECKPOINTS,
            {"metadata": {"name": name, "namespace": self.namespace}, "spec": {"workload": name}},
        )
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Sealed",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        whole = {"status": {**status, "conditions": [ready]}}
        self.kube.patch(GPUCHECKPOINTS, name, whole, self.namespace, subresource="status")

    def add_pod(self, name: str, spec: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """A seat pod for our scheduler; it minds no taint, nobody keeps these nodes' leases."""
        own = {"schedulerName": NAME, "tolerations": [{"operator": "Exists"}], **(spec or {})}
        pod = a_pod(name, namespace=self.namespace, spec=own, **more)
        del pod["metadata"]["uid"], pod["status"]
        return self.kube.create(PODS, pod)

    def pod(self, name: str) -> Any:
        return self.kube.get(PODS, name, self.namespace)

    def node_of(self, name: str) -> str | None:
        """Where a pod is, or None."""
        node: str | None = self.pod(name)["spec"].get("nodeName")
        return node

    def condition(self, name: str) -> str:
        """What the scheduler says of a pod that waits."""
        conditions = self.pod(name).get("status", {}).get("conditions", [])
        return next(
            (one.get("message", "") for one in conditions if one["type"] == "PodScheduled"), ""
        )

    def seen(self, resource: Resource, name: str) -> bool:
        """Whether an object is there."""
        try:
            self.kube.get(resource, name, self.namespace)
        except ApiError:
            return False
        return True


def _until(check: Callable[[], Any], within: float = 60.0) -> Any:
    pause, deadline = threading.Event(), time.monotonic() + within
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {within:g} s"
        pause.wait(0.05)
    return answer


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(check)` answers the first true answer of `check`, or fails after `within` s."""
    return _until


@pytest.fixture(scope="session")
def installed(plane: ControlPlane) -> ControlPlane:
    """The plane with our types, namespace and roles, as shipped."""
    for component in ("namespace", "crd", "rbac"):
        plane.kubectl("apply", "-k", str(ROOT / "manifests/components" / component))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
    return plane


@pytest.fixture(scope="module")
def beside(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """The extender and the scheduler, running; in a namespace of the module's own."""
    folder = tmp_path_factory.mktemp("extender")
    tls = _certificates(installed, folder)
    kube = Kube.from_kubeconfig(installed.admin_kubeconfig)
    namespace = f"placing-{next(_numbers)}"
    kube.create(NAMESPACES, {"metadata": {"name": namespace}})
    pool = urllib3.PoolManager(ca_certs=str(installed.ca_file), retries=False, timeout=10.0)
    with Processes(folder) as processes:
        url = _start(installed, processes, tls, pool)
        with _proxy(url, tls, pool) as recording:
            installed.start_scheduler(_configuration(recording.url, installed))
            try:
                yield Beside(installed, kube, namespace, url, recording, pool, tls)
            finally:
                installed.stop_scheduler()
    kube.close()
    pool.clear()


def _certificates(plane: ControlPlane, folder: Path) -> Path:
    """A folder as the controller's Secret would be mounted."""
    tls = folder / "tls"
    tls.mkdir()
    (tls / "ca.crt").write_bytes(plane.ca_file.read_bytes())
    issue(plane, tls)
    return tls


def issue(plane: ControlPlane, tls: Path) -> None:
    """A new certificate of the same authority."""
    pair = plane.credentials.authority.issue(
        f"extender-{next(_numbers)}", common_name="kyb-extender", addresses=[ports.LOOPBACK]
    )
    (tls / "tls.key").write_bytes(pair.key.read_bytes())
    (tls / "tls.crt").write_bytes(pair.certificate.read_bytes())


def _start(plane: ControlPlane, processes: Processes, tls: Path, pool: urllib3.PoolManager) -> str:
    kubeconfig = plane.service_account_kubeconfig("kyb-system", "kyb-extender")
    url = f"https://{ports.LOOPBACK}:{ports.guess()}"

    def ready() -> bool:
        try:
            return bool(pool.request("GET", f"{url}/readyz").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    arguments = [
        f"--listen={url.removeprefix('https://')}",
        f"--metrics-listen={ports.LOOPBACK}:0",
        f"--kubeconfig={kubeconfig}",
        f"--tls-dir={tls}",
        "--opa-url=",
        "--log-level=debug",
    ]
    processes.start(
        "extender",
        [sys.executable, "-m", "extender", *arguments],
        ready=ready,
        env={"PYTHONPATH": str(ROOT)},
    )
    return url


def _configuration(url: str, plane: ControlPlane) -> dict[str, Any]:
    """The shipped example, with addresses of here."""
    config: dict[str, Any] = yaml.safe_load(SCHEDULER.read_text())
    extender = config["extenders"][0]
    extender["urlPrefix"] = url
    extender["tlsConfig"] = {"caFile": str(plane.ca_file)}
    return config


class _proxy:  # noqa: N801 - a context manager, used like a function
    """Writes down what passes. Speaks TLS on both sides, as the scheduler would without it."""

    def __init__(self, upstream: str, tls: Path, pool: urllib3.PoolManager) -> None:
        self._upstream, self._pool = upstream, pool
        self._server = ThreadingHTTPServer((ports.LOOPBACK, 0), self._conversation())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.recording = Recording(f"https://{ports.LOOPBACK}:{self._server.server_port}")

    def _conversation(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Conversation(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {"Content-Type": self.headers["Content-Type"]}
                answer = proxy._pool.request(
                    "POST", proxy._upstream + self.path, body=body, headers=headers
                )
                proxy.recording.exchanges.append(
                    Exchange(
                        verb=self.path.strip("/"),
                        request=orjson.loads(body),
                        status=answer.status,
                        answer=json.loads(answer.data),
                        raw=answer.data,
                    )
                )
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(answer.data)))
                self.end_headers()
                self.wfile.write(answer.data)

            def log_message(self, *_: Any) -> None:
                pass

        return Conversation

    def __enter__(self) -> Recording:
        self._thread.start()
        return self.recording

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
