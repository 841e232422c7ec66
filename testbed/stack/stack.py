"""The whole: a real control plane, our processes beside it, light nodes under it.

`Stack.start(work, nodes)` is the interface. Each part is started when what it needs is there:
types and accounts → controller (makes certificates, serves policies) → OPA → extender, webhook →
webhook configurations → nodes → kube-scheduler.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import urllib3

from kybernate.api import names
from kybernate.api.opa_config import BUNDLE
from testbed import assets, ports, projection
from testbed.controlplane import ControlPlane
from testbed.node.realnode import RealNode
from testbed.opa import Opa
from testbed.processes import Processes
from testbed.stack import control, install, nodes, programs, realnodes
from testbed.stack.control import Place
from testbed.stack.nodes import Node, NodeSpec
from testbed.stack.programs import HERE, Running, Where

Progress = Callable[[str], None]
SERVERS = ("kyb-controller", "kyb-extender", "kyb-webhook", "kyb-nodeagent")
CLIENT = "kyb-client"
AGENTS = names.AGENT_CLIENT  # whom agents call each other as
ACTIVATORS = names.ACTIVATOR_CLIENT
KEYS = "kyb-checkpoint-keys"


@dataclass(frozen=True, slots=True)
class Activator:
    """Where a running one is reached."""

    url: str
    view_url: str


@dataclass
class Stack:
    """What runs. A context manager: stops everything it started, in reverse."""

    work: Path
    plane: ControlPlane
    processes: Processes
    opa: Opa | None = None
    running: dict[str, Running] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    real: dict[str, RealNode] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        work: Path,
        specs: Sequence[NodeSpec],
        progress: Progress = lambda _: None,
        *,
        detached: bool = False,
    ) -> "Stack":
        """Everything, ready for pods (about 20 s).

        Raises ProcessFailed, ValueError (a work folder too long for sockets); then nothing runs.
        """
        work = work.absolute()
        nodes.check_length(work)
        plane = ControlPlane.start(work / "plane", progress, detached=detached)
        stack = cls(work, plane, Processes(work, detached=detached))
        try:
            stack._start_all(specs, progress, detached)
        except BaseException:
            stack.stop()
            raise
        return stack

    def __enter__(self) -> "Stack":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all of it, a detached one too."""
        for real in self.real.values():
            real.stop()
        self.processes.stop_all()
        for name in reversed(self.processes.names()):
            self.processes.stop(name)
        self.processes.close()
        nodes.end_pods(self.work)
        if self.opa:
            self.opa.stop()
        self.plane.stop()

    def close(self) -> None:
        """Let go of it: a detached one runs on."""
        self.processes.close()
        if self.opa:
            self.opa.close()
        self.plane.close()

    def tls(self, server: str) -> Path:
        """The folder with the files of this server's Secret, kept up to date as on a real node."""
        return self.work / "tls" / server

    def kubeconfig(self, account: str, *, node: str | None = None) -> Path:
        """One of our ServiceAccounts, with a real token."""
        return self.plane.service_account_kubeconfig(names.SYSTEM_NAMESPACE, account, node=node)

    def run(
        self, name: str, module: str, arguments: Callable[[int], Sequence[str | Path]]
    ) -> Running:
        """One of our servers, ready."""
        self.running[name] = programs.run(self.processes, name, module, arguments)
        return self.running[name]

    def kill(self, name: str) -> None:
        """`kill -9` of one process, by the name of its log. Raises KeyError."""
        self._group(name).kill(name)

    def start_again(self, name: str) -> None:
        """One of `running` that has ended, at its addresses. Raises ProcessFailed."""
        ended = self.running[name]
        programs.start(self._group(name), name, ended.argv, ready=ended.ready, where=ended.where)

    def _group(self, name: str) -> Processes:
        """What was started under this name is in here."""
        groups = (real.processes for real in self.real.values())
        return next((one for one in groups if name in one.names()), self.processes)

    def policy_revision(self) -> str:
        """Of the policies OPA decides by now."""
        assert self.opa is not None
        url = f"{self.opa.url}/v1/data/kyb?provenance=true"
        answer = urllib3.request("GET", url, timeout=5.0).json()
        revision: str = answer["provenance"]["bundles"][BUNDLE]["revision"]
        return revision

    def _start_all(self, specs: Sequence[NodeSpec], progress: Progress, detached: bool) -> None:
        progress("installing types, accounts, rules and policies")
        install.components(self.plane)
        progress("starting controller and OPA")
        self._start_controller()
        self._start_opa(detached)
        progress("starting extender and webhook")
        self._start_servers()
        for spec in specs:
            progress(f"starting node {spec.name}")
            self._start_node(spec, progress)
        progress("starting kube-scheduler")
        self.start_scheduler()

    def _place(self, account: str) -> Place:
        url = self.opa.url if self.opa else ""
        return Place(self.kubeconfig(account), self.tls(account), url)

    def _start_controller(self) -> None:
        """It makes the certificates, its own too: they reach it as files meanwhile."""
        servers = (*SERVERS, CLIENT, AGENTS, ACTIVATORS, names.SCHEDULER_CLIENT)
        folders = {f"{server}-tls": self.tls(server) for server in servers}
        folders[KEYS] = self.tls(KEYS)
        argv = projection.program(self.plane.api, names.SYSTEM_NAMESPACE, folders)
        programs.start(self.processes, "secret-files", argv)
        opa = assets.ensure(["opa"])["opa"]
        place = self._place("kyb-controller")
        self.run(
            "controller",
            "controller",
            lambda port: control.controller(place, port, opa, self.work),
        )
        made = [self.tls(server) / "tls.crt" for server in servers]
        made.append(self.tls(KEYS) / "trusted.pem")
        programs.wait_for(lambda: all(path.exists() for path in made), "certificates")

    def _start_opa(self, detached: bool) -> None:
        url = self.running["controller"].url
        config = control.write_opa_config(self.work, url, self.tls(CLIENT))
        self.opa = Opa.start(self.work / "opa", config=config, detached=detached)
        programs.wait_for(self.opa.has_bundles, "policies in OPA")

    def _start_servers(self) -> None:
        extender, webhook = self._place("kyb-extender"), self._place("kyb-webhook")
        self.run("extender", "extender", partial(control.extender, extender))
        self.run("webhook", "webhook", partial(control.webhook, webhook))
        install.webhooks(self.plane, self.running["webhook"].url)

    def _start_node(self, spec: NodeSpec, progress: Progress) -> None:
        node = nodes.prepare(self.work, spec)
        self.nodes[spec.name] = node
        if spec.real:
            work = self.work / "r" / spec.name
            self.real[spec.name] = realnodes.start(self.plane, node, work, progress)
            assert self.opa is not None
            self.real[spec.name].reach(int(self.opa.url.rpartition(":")[2]))
        else:
            self.start_lightnode(spec.name)
        processes, where = self._at(spec.name)
        argv = [sys.executable, "-m", "testbed.gpu", *node.gpu()]
        ready = node.folder.gpu_socket.exists
        programs.start(processes, f"gpu-{spec.name}", argv, ready=ready, where=where)
        self.start_agent(spec.name)
        name = f"deviceplugin-{spec.name}"
        self.running[name] = programs.run(
            processes, name, "deviceplugin", lambda _: node.deviceplugin(), where
        )

    def _at(self, node: str) -> tuple[Processes, Where]:
        """The group that programs of this node are in, and how they come to run there."""
        real = self.real.get(node)
        return (real.processes, realnodes.where(real)) if real else (self.processes, HERE)

    def start_lightnode(self, name: str) -> None:
        """Of this node, with the pods it left."""
        node, program = self.nodes[name], [sys.executable, "-m", "testbed.lightnode"]
        kubeconfig = self.plane.node_kubeconfig(name)
        programs.start(
            self.processes,
            f"lightnode-{name}",
            [*program, *node.lightnode(kubeconfig)],
            ready=partial(self.plane.api.exists, f"/api/v1/nodes/{name}"),
            afterwards=[*program, "--end-pods", f"--work-dir={node.folder.work}"],
        )

    def start_activator(self, name: str = "activator", *more: str) -> Activator:
        """One more of them, as `name`. Models are asked at its `url`, people look at `view_url`."""
        view_port = ports.guess()
        place = Place(self.kubeconfig("kyb-activator"), self.tls(ACTIVATORS))
        named = [f"--identity={name}", *more]
        running = self.run(
            name,
            "activator",
            lambda port: [*control.activator(place, port, view_port, place.tls), *named],
        )
        here = f"http://{ports.LOOPBACK}"
        return Activator(f"{here}:{running.port}", f"{here}:{view_port}")

    def start_scheduler(self) -> None:
        """The real one, which asks our extender for pods with seats."""
        url, tls = self.running["extender"].url, self.tls(names.SCHEDULER_CLIENT)
        self.plane.start_scheduler(control.scheduler_config(url, tls))

    def start_agent(self, name: str) -> None:
        """Of this node, with the journal and the pool it left."""
        node = self.nodes[name]
        url = self.opa.url if self.opa else ""
        kubeconfig = self.kubeconfig("kyb-nodeagent", node=name)
        place = Place(kubeconfig, self.tls("kyb-nodeagent"), url)
        processes, where = self._at(name)
        shared = (
            f"--client-tls-dir={self.tls(AGENTS)}",
            f"--checkpoint-keys={self.tls(KEYS)}",
        )
        running = f"nodeagent-{name}"
        self.running[running] = programs.run(
            processes,
            running,
            "nodeagent",
            lambda port: [*node.agent(place, port, address=where.address), *shared],
            where,
        )
