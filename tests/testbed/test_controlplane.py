"""The control plane is the real thing: it authorizes, keeps data, schedules."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from testbed import record
from testbed.api import ApiError
from testbed.controlplane import ControlPlane
from testbed.kubectl import KubectlFailed
from testbed.processes import RECORD, ProcessFailed

pytestmark = pytest.mark.controlplane

CALLER = """
import pathlib, sys, threading
from testbed.controlplane import ControlPlane
plane = ControlPlane.start(pathlib.Path(sys.argv[1]))
print(plane.server, flush=True)
threading.Event().wait()
"""

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "made-by-hand"},
}
STATUS = {
    "status": {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "10", "kyb.ai/gpu-1x-seat": "2"},
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10", "kyb.ai/gpu-1x-seat": "2"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
    }
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "seated", "namespace": "scheduling"},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "none",
                "resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}},
            }
        ]
    },
}


def test_it_is_the_version_that_was_asked_for(plane: ControlPlane) -> None:
    versions = orjson.loads(plane.kubectl("version", "-o", "json"))
    assert {versions[one]["gitVersion"] for one in ("clientVersion", "serverVersion")} == {
        "v1.36.2"
    }


def test_kubectl_tells_what_went_wrong(plane: ControlPlane) -> None:
    with pytest.raises(KubectlFailed, match=r'get pod absent: .*"absent" not found'):
        plane.kubectl("get", "pod", "absent")
    assert plane.kubectl("get", "pod", "absent", check=False) == ""


def test_an_account_may_do_what_its_role_says_and_nothing_else(
    plane: ControlPlane, tmp_path: Path
) -> None:
    plane.kubectl("create", "namespace", "rbac")
    plane.kubectl("create", "serviceaccount", "reader", "-n", "rbac")
    config = plane.service_account_kubeconfig("rbac", "reader")
    assert config.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KubectlFailed, match='User "system:serviceaccount:rbac:reader" cannot'):
        plane.kubectl(f"--kubeconfig={config}", "get", "pods", "-n", "rbac")
    plane.kubectl("create", "role", "r", "--verb=list", "--resource=pods", "-n", "rbac")
    plane.kubectl(
        "create", "rolebinding", "r", "--role=r", "--serviceaccount=rbac:reader", "-n", "rbac"
    )
    plane.kubectl(f"--kubeconfig={config}", "get", "pods", "-n", "rbac")
    with pytest.raises(KubectlFailed, match="forbidden"):
        plane.kubectl(f"--kubeconfig={config}", "get", "secrets", "-n", "rbac")


def test_a_token_bound_to_a_node_names_that_node(plane: ControlPlane) -> None:
    plane.kubectl("create", "-f", "-", stdin=_node("bound"))
    config = plane.service_account_kubeconfig("default", "default", node="bound")
    who = orjson.loads(plane.kubectl(f"--kubeconfig={config}", "auth", "whoami", "-o", "json"))
    user = who["status"]["userInfo"]
    assert user["username"] == "system:serviceaccount:default:default"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == ["bound"]
    plane.kubectl("delete", "node", "bound")


def test_an_account_that_is_not_there_gets_no_token(plane: ControlPlane) -> None:
    with pytest.raises(ApiError, match='"absent" not found') as refused:
        plane.service_account_kubeconfig("default", "absent")
    assert refused.value.status == 404


def test_a_kubelet_may_only_touch_its_own_node(plane: ControlPlane) -> None:
    config = f"--kubeconfig={plane.node_kubeconfig('n1')}"
    plane.kubectl(config, "create", "-f", "-", stdin=_node("n1"))
    plane.kubectl(config, "label", "node", "n1", "a=b")
    with pytest.raises(KubectlFailed, match='node "n1" is not allowed to modify node'):
        plane.kubectl(config, "create", "-f", "-", stdin=_node("n2"))
    plane.kubectl("delete", "node", "n1")


def test_the_scheduler_seats_a_pod_on_a_node_made_by_hand(plane: ControlPlane, eventually) -> None:
    plane.kubectl("create", "namespace", "scheduling")
    eventually(lambda: plane.kubectl("get", "sa", "default", "-n", "scheduling", check=False))
    plane.kubectl("create", "-f", "-", stdin=orjson.dumps(NODE).decode())
    patch = orjson.dumps(STATUS).decode()
    plane.kubectl("patch", "node", "made-by-hand", "--subresource=status", "-p", patch)
    plane.start_scheduler({"percentageOfNodesToScore": 100})
    try:
        plane.kubectl("create", "-f", "-", stdin=orjson.dumps(POD).decode())
        where = ("get", "pod", "seated", "-n", "scheduling", "-o", "jsonpath={.spec.nodeName}")
        eventually(lambda: plane.kubectl(*where) == "made-by-hand")
        assert "scheduler_schedule_attempts_total{" in plane.metrics("kube-scheduler")
    finally:
        plane.stop_scheduler()
        plane.kubectl("delete", "node", "made-by-hand")


def test_a_configuration_the_scheduler_refuses_is_told(plane: ControlPlane) -> None:
    with pytest.raises(ProcessFailed, match=r'unknown field \\?"percentage'):
        plane.start_scheduler({"percentageOfNodesToSkore": 1})


def test_the_api_server_comes_back_with_its_data_and_its_clients(
    plane: ControlPlane, eventually
) -> None:
    plane.kubectl("create", "configmap", "kept", "--from-literal=k=v")
    plane.restart_apiserver()
    kept = plane.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.k}")
    assert kept == "v"
    plane.kubectl("create", "namespace", "after")
    eventually(lambda: plane.kubectl("get", "sa", "default", "-n", "after", check=False))


def test_two_planes_run_side_by_side_and_a_detached_one_is_found_again(
    plane: ControlPlane, tmp_path: Path
) -> None:
    flags = {"kube-apiserver": ["--enable-priority-and-fairness=false"]}
    ControlPlane.start(tmp_path, flags=flags, detached=True).close()
    with ControlPlane.attach(tmp_path) as other:
        assert other.server != plane.server
        other.kubectl("create", "configmap", "mine")
        assert plane.kubectl("get", "configmap", "mine", check=False) == ""
        fairness = "apiserver_flowcontrol_nominal_limit_seats{"
        assert fairness in plane.metrics("kube-apiserver")
        assert fairness not in other.metrics("kube-apiserver")
        other.start_scheduler({})
        running = record.read(tmp_path / RECORD)
        assert len(running) == 4
    assert not any(record.alive(one) for one in running)


def test_a_plane_stops_when_its_caller_is_killed(
    assets: dict[str, Path], tmp_path: Path, eventually
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline().startswith("https://127.0.0.1:")
        running = record.read(tmp_path / RECORD)
        os.kill(caller.pid, signal.SIGKILL)
    assert len(running) == 3
    eventually(lambda: not any(record.alive(one) for one in running), within=40.0)


def _node(name: str) -> str:
    return orjson.dumps({**NODE, "metadata": {"name": name}}).decode()
