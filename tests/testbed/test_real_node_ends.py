"""
A real node leaves nothing behind, however it ends, and comes back in its folder.

Real: everything. Each test starts a node of its own beside the session's two.
"""

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import record
from testbed.controlplane import ControlPlane
from testbed.node import cgroups
from testbed.node.keeper import State
from testbed.node.realnode import BOX, KEEPER, RealNode
from testbed.node.spec import NodeSpec
from testbed.processes import RECORD

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.usefixtures("real_nodes")]

CALLER = """
import pathlib, sys, threading
from testbed.controlplane import ControlPlane
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec
plane = ControlPlane.attach(pathlib.Path(sys.argv[1]))
node = RealNode.start(plane, pathlib.Path(sys.argv[2]), NodeSpec(name=sys.argv[3]))
print("started", flush=True)
threading.Event().wait()
"""
SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


@pytest.fixture
def name(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node's name; its Node object is deleted afterwards."""
    chosen = f"ends-{zlib.crc32(request.node.name.encode()) % 10000}"
    yield chosen
    plane.kubectl("delete", "node", chosen, "--ignore-not-found", "--wait=false")
    plane.kubectl("delete", "pod", chosen, "--ignore-not-found", "--force", "--grace-period=0")


def test_stopping_leaves_the_machine_as_it_was_even_with_a_frozen_container(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    before = _machine()
    with RealNode.start(plane, tmp_path, NodeSpec(name=name)) as node:
        pod = _run_pod(plane, name, eventually)
        assert _machine() != before
        pids = _pids(node.state)
        assert len(pids) >= 6  # kubelet, containerd, a shim, pause, a shell and its child
        _freeze(pod, node.state)
        state = node.state
    _assert_gone(state, pids)
    assert _machine() == before


def test_a_node_ends_with_its_caller_that_was_killed(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    before = _machine()
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(plane.work), str(tmp_path), name],
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "started\n"
        _run_pod(plane, name, eventually)
        state = State(**json.loads((tmp_path / "state.json").read_text()))
        pids = _pids(state)
        running = record.read(tmp_path / RECORD)
        caller.kill()
    eventually(lambda: not any(record.alive(one) for one in running), within=40.0)
    _assert_gone(state, pids)
    assert _machine() == before


def test_a_node_whose_keeper_was_killed_is_dead_and_starts_again_in_its_folder(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    before = _machine()
    RealNode.start(plane, tmp_path, NodeSpec(name=name), detached=True).close()
    node = RealNode.attach(plane, tmp_path)
    try:
        _run_pod(plane, name, eventually)
        state, pids = node.state, _pids(node.state)
        os.kill(node.processes.pid(KEEPER), signal.SIGKILL)
        eventually(lambda: not any(map(_exists, pids)))
        assert _cgroups(state)  # nobody was left to remove them
        node.close()
        node = RealNode.start(plane, tmp_path, NodeSpec(name=name), detached=True)
        eventually(lambda: _restarts(plane, name) == 1, within=60.0)
        assert node.state.boot_id != state.boot_id
    finally:
        node.stop()
    assert _machine() == before


def test_stopping_a_node_whose_keeper_was_killed_removes_its_cgroups(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    before = _machine()
    with RealNode.start(plane, tmp_path, NodeSpec(name=name)) as node:
        state = node.state
        os.kill(node.processes.pid(KEEPER), signal.SIGKILL)
        eventually(lambda: not _exists(state.first))
    eventually(lambda: _machine() == before)


def test_a_rebooted_node_has_another_boot_id_and_starts_its_pods_again(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    with RealNode.start(plane, tmp_path, NodeSpec(name=name)) as node:
        _run_pod(plane, name, eventually)
        before = node.state.boot_id
        node.reboot()
        assert node.run("cat", "/proc/sys/kernel/random/boot_id").strip() != before
        eventually(lambda: _restarts(plane, name) == 1, within=60.0)


def test_a_handlers_program_stands_in_for_runc_and_sees_our_annotations(
    plane: ControlPlane, name: str, tmp_path: Path, eventually
) -> None:
    seen, wrapper = tmp_path / "seen", tmp_path / "wrapper"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" create "*) grep -o "kyb.ai/[a-z]*" config.json >> {seen};; esac\n'
        'exec runc "$@"\n'
    )
    wrapper.chmod(0o755)
    wanted = NodeSpec(name=name, runtimes={"wrapped": wrapper})
    handler = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "wrapped"}
    plane.api.create(
        "/apis/node.k8s.io/v1/runtimeclasses", {**handler, "metadata": {"name": "wrapped"}}
    )
    with RealNode.start(plane, tmp_path / "node", wanted):
        _run_pod(plane, name, eventually, runtimeClassName="wrapped")
    assert set(seen.read_text().split()) == {"kyb.ai/noted"}
    assert len(seen.read_text().split()) >= 2  # the pod's sandbox and its container


def _run_pod(plane: ControlPlane, name: str, eventually, **spec: object) -> dict:
    """A pod of that name on the node of that name, once it runs."""
    pod = {
        "metadata": {"name": name, "annotations": {"kyb.ai/noted": "yes"}},
        "spec": {
            "nodeName": name,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "c",
                    "image": BOX,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "sleep 1000 & wait"],
                }
            ],
            **spec,
        },
    }
    path = "/api/v1/namespaces/default/pods"
    plane.api.create(path, pod)
    eventually(lambda: plane.api.get(f"{path}/{name}")["status"]["phase"] == "Running", within=60.0)
    return plane.api.get(f"{path}/{name}")


def _restarts(plane: ControlPlane, name: str) -> int:
    status = plane.api.get(f"/api/v1/namespaces/default/pods/{name}")["status"]
    one = status["containerStatuses"][0]
    return int(one["restartCount"]) if "running" in one["state"] else -1


def _freeze(pod: dict, state: State) -> None:
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    for path in _cgroups(state):
        for file, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            if path.name == container and (path / file).exists():
                (path / file).write_text(word)


def _cgroups(state: State) -> list[Path]:
    tops = [one.mount / state.cgroup for one in cgroups.here()]
    return [Path(path) for top in tops for path, _, _ in os.walk(top)]


def _pids(state: State) -> set[int]:
    """Every process of the node, as the machine numbers them."""
    listed = [path / "cgroup.procs" for path in _cgroups(state)]
    return {int(pid) for file in listed for pid in file.read_text().split()} | {state.first}


def _exists(pid: int) -> bool:
    """Whether it runs; one that waits to be reaped by whoever started it does not."""
    try:
        return record.alive(record.identify("", pid))
    except ProcessLookupError:
        return False


def _assert_gone(state: State, pids: set[int]) -> None:
    assert not _cgroups(state)
    assert not [pid for pid in pids if _exists(pid)]


def _machine() -> dict[str, object]:
    """What a node could leave behind, or change."""
    folders = ("/run", "/var/lib", "/var/log", "/etc", "/opt", "/")
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True)
    return {
        "links": {line.split()[0] for line in links.stdout.splitlines()},
        "routes": routes.stdout,
        "mounts": Path("/proc/self/mounts").read_text(),
        "folders": {folder: sorted(Path(folder).iterdir()) for folder in folders},
        "cgroups": sorted(str(p) for one in cgroups.here() for p in one.mount.glob("kyb*")),
        "settings": [Path("/proc/sys", name).read_text() for name in SETTINGS],
    }
