"""
A real node: kubelet, containerd, runc and CRIU, in namespaces and cgroups of its own.

Called by: tests, the demo.
Rule: to the kubelet and to what runs beside it this is a machine: /var/lib/kubelet with the
device-plugin folder, /run/containerd, the loopback, the hostname, the boot id are the node's own.
Rule: to the machine it is one folder and one group of processes; when they end, nothing is left.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from testbed import record
from testbed.controlplane import ControlPlane
from testbed.node import (
    commands,
    enter,
    forwarder,
    images,
    keeper,
    layout,
    machine,
    network,
    programs,
    pythonimage,
    readiness,
    spec,
)
from testbed.node.commands import CommandFailed
from testbed.node.configuration import CONTAINERD_SOCKET, PAUSE
from testbed.node.forwarder import Forward
from testbed.node.keeper import State
from testbed.node.programs import Programs
from testbed.node.spec import NodeSpec
from testbed.processes import RECORD, Processes, ProcessFailed

KEEPER, FORWARDER, CONTAINERD, KUBELET = "keeper", "forwarder", "containerd", "kubelet"
BOX = "kyb.test/box:1"
"""An image with a shell and small tools, which every node has."""
_READY_S = 60.0


class NodeUnavailable(Exception):
    """This machine cannot run a real node; the message says why."""


class RealNode:
    """One running node; `start` and `attach` make it. A context manager: stops at exit."""

    def __init__(
        self,
        plane: ControlPlane,
        work: Path,
        wanted: NodeSpec,
        found: Programs,
        processes: Processes,
    ) -> None:
        self.name = wanted.name
        self.work = work
        self.processes = processes
        """The node's group: what is started in it ends with the node. See `enter`."""
        self._plane = plane
        self._spec = wanted
        self._programs = found

    @classmethod
    def start(
        cls,
        plane: ControlPlane,
        work: Path,
        wanted: NodeSpec,
        progress: Callable[[str], None] = lambda _: None,
        *,
        detached: bool = False,
    ) -> "RealNode":
        """Start it and wait until the API server shows it Ready (some seconds).

        In the folder of a node that was stopped, this is the node after a reboot.
        A detached node outlives its caller; `attach(plane, work).stop()` ends it.
        Raises NodeUnavailable, ProcessFailed, and what `programs.find` raises; then nothing runs.
        """
        problem = machine.why_not()
        if problem:
            raise NodeUnavailable(problem)
        found = programs.find()
        work = work.absolute()
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec.save(wanted, work)
        node = cls(plane, work, wanted, found, Processes(work, detached=detached))
        node._sweep()
        try:
            node._start_all(progress)
        except BaseException:
            node.stop()
            raise
        return node

    @classmethod
    def attach(cls, plane: ControlPlane, work: Path) -> "RealNode":
        """The detached node of this folder. Raises FileNotFoundError when there was none."""
        work = work.absolute()
        wanted = spec.load(work)
        return cls(plane, work, wanted, programs.find(), Processes(work, detached=True))

    def __enter__(self) -> "RealNode":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Switch it off, with all its containers. What it wrote stays in the work folder."""
        self._end_all()
        self.processes.close()

    def close(self) -> None:
        """Let go of it: a detached node runs on, another one is stopped."""
        self.processes.close()

    def reboot(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Switch it off and on: same disk, other boot id. Raises ProcessFailed."""
        self._end_all()
        self._start_all(progress)

    @property
    def state(self) -> State:
        """Addresses, cgroup, first process, boot id. Raises FileNotFoundError once stopped."""
        return keeper.read(self.work)

    @property
    def root(self) -> Path:
        """The node's file system as the machine sees it, /var/lib/kubelet included.

        For opening files and sockets; symbolic links with absolute targets lead astray.
        """
        return Path(f"/proc/{self.state.first}/root")

    def enter(self, argv: Sequence[str | Path]) -> list[str]:
        """Arguments that run this program in the node, for `processes.start` or `subprocess`."""
        return enter.command(self.state.first, self.state.cgroup, argv)

    @property
    def environment(self) -> dict[str, str]:
        """For what runs in the node: runc, criu and containerd's programs are on its PATH."""
        return commands.environment(self.work / layout.BIN)

    def run(self, *argv: str | Path, stdin: str = "") -> str:
        """Run it in the node to its end; its standard output. Raises CommandFailed."""
        return commands.run(self.enter(argv), self.environment, stdin)

    def ctr(self, *args: str | Path) -> str:
        """containerd's client, in the namespace of Kubernetes. Raises CommandFailed."""
        return self.run("ctr", "-a", CONTAINERD_SOCKET, "-n", "k8s.io", *args)

    def runc(self, *args: str | Path) -> str:
        """runc, on the containers of Kubernetes. Raises CommandFailed."""
        return self.run("runc", "--root", "/run/containerd/runc/k8s.io", *args)

    def import_image(self, name: str, image: images.Image) -> None:
        """For pods with imagePullPolicy Never. Raises CommandFailed."""
        self._import({name: image})

    def import_archive(self, file: Path) -> None:
        """What `docker save` writes, by the names that are in it. Raises CommandFailed."""
        self.ctr("images", "import", file)

    def python_image(
        self, distributions: Sequence[str] = (), packages: Sequence[Path] = ()
    ) -> images.Image:
        """An image that runs Python, with a shell; see `pythonimage.image`."""
        return pythonimage.image(distributions, packages, busybox=self._programs.busybox)

    def reach(self, port: int) -> None:
        """127.0.0.1:`port` in the node leads to that port of the machine. Raises ProcessFailed."""
        self._forward(f"{FORWARDER}-{port}", [Forward(forwarder.LOOPBACK, port, port)])

    def pid(self, name: str) -> int:
        """A program of the node, as the machine numbers it. Raises KeyError, or ValueError."""
        entered = self.processes.pid(name)
        return int(Path(f"/proc/{entered}/task/{entered}/children").read_text())

    def log(self, name: str) -> Path:
        """Where it writes; "kubelet" or "containerd", for example."""
        return self.processes.log(name)

    def stop_kubelet(self) -> None:
        """Containers run on."""
        self.processes.stop(KUBELET)

    def start_kubelet(self) -> None:
        """Ready when it returns. Raises ProcessFailed."""
        argv: list[str | Path] = [
            self._programs.kubelet,
            f"--config={self.work / layout.KUBELET}",
            f"--kubeconfig={self._plane.node_kubeconfig(self.name)}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.state.address}",
            "--v=2",
        ]
        self._start(KUBELET, argv, self._is_ready)

    def stop_containerd(self) -> None:
        """Containers and their shims run on."""
        self.processes.stop(CONTAINERD)

    def start_containerd(self) -> None:
        """Answering when it returns. Raises ProcessFailed."""
        argv: list[str | Path] = [
            self._programs.containerd,
            "--config",
            self.work / layout.CONTAINERD,
        ]
        self._start(CONTAINERD, argv, self._containerd_answers)

    def _start_all(self, progress: Callable[[str], None]) -> None:
        progress(f"{self.name}: namespaces, cgroups and network")
        self._start_keeper()
        self._forward(FORWARDER, self._to_api_server())
        layout.write_programs(self.work, self._programs)
        layout.write_criu(self.work, self._network_lock())
        layout.write_containerd(self.work, self._spec, self.state, self._programs)
        layout.write_kubelet(self.work, self._spec, self.state, self._plane.credentials.authority)
        progress(f"{self.name}: containerd")
        self.start_containerd()
        self._import({PAUSE: images.pause(self.work), BOX: images.box(self._programs.busybox)})
        progress(f"{self.name}: kubelet")
        self.start_kubelet()
        progress(f"{self.name}: Ready at {self.state.address}")

    def _sweep(self) -> None:
        """What a detached node that died has left. Raises ProcessFailed when it has not died."""
        if self.processes.running(KEEPER):
            raise ProcessFailed(f"a node runs in {self.work}")
        self._end_all()

    def _import(self, named: Mapping[str, images.Image]) -> None:
        file = images.write(named, self.work / "images.tar")
        self.import_archive(file)
        file.unlink()

    def _start_keeper(self) -> None:
        (self.work / keeper.STATE).unlink(missing_ok=True)
        argv = keeper.command(self.work, self._plane.work / "nodes", self.name)
        self.processes.start(
            KEEPER,
            argv,
            ready=(self.work / keeper.STATE).exists,
            within=_READY_S,
            env=self.environment,
        )

    def _forward(self, name: str, forwards: Sequence[Forward]) -> None:
        first = self.state.first
        self.processes.start(
            name,
            forwarder.command(first, forwards),
            ready=lambda: forwarder.listens(first, forwards),
            env=self.environment,
        )

    def _start(self, name: str, argv: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        self.processes.start(
            name, self.enter(argv), ready=ready, within=_READY_S, env=self.environment
        )

    def _end_all(self) -> None:
        for one in reversed(record.read(self.work / RECORD)):
            self.processes.stop(one.name)
        keeper.remove_leftovers(self.work)  # nothing, unless the keeper was killed

    def _to_api_server(self) -> list[Forward]:
        """At the address its certificate and everybody's kubeconfig name, and at the Service's."""
        port = int(self._plane.server.rpartition(":")[2])
        loopback = Forward(forwarder.LOOPBACK, port, port)
        return [loopback, Forward(network.SERVICE_ADDRESS, 443, port)]

    def _network_lock(self) -> str:
        """nftables, by CRIU's own library; without it, iptables; CRIU says what the kernel has."""
        try:
            self.run("criu", "check", "--feature", "network_lock_nftables")
        except CommandFailed:
            return "iptables" if shutil.which("iptables") else "skip"
        return "nftables"

    def _containerd_answers(self) -> bool:
        return readiness.listens(self.root / CONTAINERD_SOCKET.lstrip("/"))

    def _is_ready(self) -> bool:
        api, state = self._plane.api, self.state
        return (
            readiness.kubelet(api, state.address)
            and readiness.node(api, self.name, state.boot_id)
            and readiness.knows_its_pods(api, self.name, state.address)
        )
