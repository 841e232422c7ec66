"""
A real control plane: etcd, kube-apiserver, kube-controller-manager, and kube-scheduler on request.

Called by: tests, benchmarks, the demo (`testbed.stack`).
Rule: everything is in the work folder; several planes run side by side, without root.
Rule: nobody is trusted for being local: RBAC and Node authorization are on, tokens are real.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from testbed import assets, components, files, kubectl, readiness
from testbed.api import Api
from testbed.components import APISERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER
from testbed.credentials import Credentials
from testbed.servers import Flags, Servers


class ControlPlane:
    """One running control plane; `start` and `attach` make it. A context manager: stops at exit."""

    def __init__(self, work: Path, programs: Mapping[str, Path], servers: Servers) -> None:
        self.work = work
        self.server = servers.url(APISERVER)
        self.credentials = Credentials(work, self.server)
        self.ca_file = self.credentials.ca_file
        self.admin_kubeconfig = self.credentials.admin_kubeconfig
        self.api = Api(self.server, self.ca_file, self.credentials.admin)
        self._programs = programs
        self._servers = servers
        self._files = self.credentials.server_files(work / "scheduler.json")

    @classmethod
    def start(
        cls,
        work: Path,
        progress: Callable[[str], None] = lambda _: None,
        *,
        flags: Flags | None = None,
        detached: bool = False,
    ) -> "ControlPlane":
        """Build what is missing, start, and wait until pods can be created (some seconds).

        A detached plane outlives its caller; `attach(work).stop()` ends it.
        Raises ProcessFailed, and what `assets.ensure` raises; then nothing is left running.
        """
        programs = assets.ensure(assets.CONTROL_PLANE)
        work = work.absolute()
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        servers = Servers.start(work, programs, flags=flags or {}, detached=detached)
        plane = cls(work, programs, servers)
        try:
            plane._start_all(progress)
        except BaseException:
            plane.stop()
            raise
        return plane

    @classmethod
    def attach(cls, work: Path) -> "ControlPlane":
        """The detached plane of this folder. Raises FileNotFoundError when there was none."""
        programs = assets.ensure(assets.CONTROL_PLANE)
        work = work.absolute()
        return cls(work, programs, Servers.attach(work, programs))

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all its processes, last started first; the data stays in the work folder."""
        for name in (SCHEDULER, CONTROLLER_MANAGER, APISERVER, ETCD):
            self._servers.stop(name)
        self.close()

    def close(self) -> None:
        """Let go of it: a detached plane runs on, another one is stopped."""
        self._servers.close()
        self.api.close()

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Run the real kubectl as administrator; its standard output. Raises KubectlFailed."""
        return kubectl.run(self._programs["kubectl"], self.admin_kubeconfig, args, stdin, check)

    @property
    def kubectl_program(self) -> Path:
        """The real kubectl, for people."""
        return self._programs["kubectl"]

    def service_account_kubeconfig(
        self, namespace: str, name: str, *, node: str | None = None
    ) -> Path:
        """A kubeconfig with a real token of this account; bound to a Node, it names that node.

        The account and the node must exist: raises ApiError (404).
        """
        return self.credentials.service_account(self.api, namespace, name, node)

    def node_kubeconfig(self, node: str) -> Path:
        """A kubeconfig with the client certificate of this node's kubelet."""
        return self.credentials.node(node)

    def start_scheduler(self, config: Mapping[str, Any]) -> None:
        """Start kube-scheduler with this KubeSchedulerConfiguration (v1); ready when it returns.

        Ours to fill in: apiVersion, kind, clientConnection.kubeconfig, leaderElection.
        Raises ProcessFailed when it does not accept the configuration, or runs already.
        """
        body = components.scheduler_config(config, self._files.kubeconfigs[SCHEDULER])
        files.write_private(self._files.scheduler_config, orjson.dumps(body))
        argv = components.scheduler(self._files, self._servers.port(SCHEDULER))
        ready = partial(readiness.scheduler, self.api, self._servers.url(SCHEDULER))
        self._servers.run(SCHEDULER, argv, ready)

    def stop_scheduler(self) -> None:
        """Stop it; nothing happens when it does not run."""
        self._servers.stop(SCHEDULER)

    def stop_apiserver(self) -> None:
        """An outage: connections are refused until it is started again."""
        self._servers.stop(APISERVER)

    def start_apiserver(self) -> None:
        """Ready when it returns, at the address and with the data it had. Raises ProcessFailed."""
        argv = components.apiserver(self._files, self._servers.port(APISERVER))
        self._servers.run(APISERVER, argv, partial(readiness.apiserver, self.api))

    def restart_apiserver(self) -> None:
        """Stop and start it. Raises ProcessFailed."""
        self.stop_apiserver()
        self.start_apiserver()

    def metrics(self, name: str) -> str:
        """The text of /metrics of a server, for example "kube-scheduler". Raises ApiError."""
        return self.api.text(f"{self._servers.url(name)}/metrics")

    def log(self, name: str) -> Path:
        """Where this server writes."""
        return self._servers.log(name)

    def _start_all(self, progress: Callable[[str], None]) -> None:
        progress("starting etcd")
        self._servers.run(ETCD, components.etcd(), (self.work / components.SOCKET).exists)
        progress("starting kube-apiserver")
        self.start_apiserver()
        progress("starting kube-controller-manager")
        argv = components.controller_manager(self._files, self._servers.port(CONTROLLER_MANAGER))
        url = self._servers.url(CONTROLLER_MANAGER)
        self._servers.run(CONTROLLER_MANAGER, argv, partial(readiness.controllers, self.api, url))
        readiness.let_apiserver_ask_kubelets(self.api)
        progress(f"control plane ready at {self.server}")
