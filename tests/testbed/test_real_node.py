"""
Real nodes do what nodes do, side by side on one machine.

Real: everything. The pods' images are made here, so pods never pull.
"""

import json
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from kybernate.clients.pb import podresources_pb2, podresources_pb2_grpc
from testbed.controlplane import ControlPlane
from testbed.node.realnode import BOX, CONTAINERD, KUBELET, RealNode

pytestmark = [pytest.mark.controlplane, pytest.mark.node]

REPOSITORY = Path(__file__).parents[2]
COUNTER = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
ASK = """
import os, ssl, time, urllib.request
import grpc, orjson, testbed.ports
trusted = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/version"
answer = urllib.request.urlopen(url, context=trusted, timeout=10)
print(orjson.loads(answer.read())["gitVersion"], flush=True)
time.sleep(1000)
"""
# 2328 is port 9000, as the kernel shows it.
CONNECTION = """
sleep 1000 | nc -l -p 9000 > /tmp/got &
until grep -q :2328 /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done
(echo start; sleep 1000) | nc 127.0.0.1 9000 &
"""
Pods = Callable[..., dict]


@pytest.fixture
def run_pod(plane: ControlPlane, eventually) -> Iterator[Pods]:
    """`run_pod(node, name, *command)` answers the pod once it is Running; deleted afterwards."""
    made = []

    def run(node: RealNode, name: str, *command: str, image: str = BOX, **spec: object) -> dict:
        container = {"name": "c", "image": image, "imagePullPolicy": "Never"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": node.name,
                "terminationGracePeriodSeconds": 0,
                "containers": [container | ({"command": list(command)} if command else {})],
                **spec,
            },
        }
        plane.api.create("/api/v1/namespaces/default/pods", pod)
        made.append(name)
        return eventually(lambda: _running(plane, name), within=60.0)

    yield run
    for name in made:
        plane.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")


def test_both_nodes_are_ready_with_the_versions_that_were_asked_for(
    plane: ControlPlane, real_nodes: tuple[RealNode, RealNode]
) -> None:
    seen = [plane.api.get(f"/api/v1/nodes/{node.name}")["status"] for node in real_nodes]
    assert {one["nodeInfo"]["kubeletVersion"] for one in seen} == {"v1.36.2"}
    assert {one["nodeInfo"]["containerRuntimeVersion"] for one in seen} == {"containerd://2.3.4"}
    assert len({one["nodeInfo"]["bootID"] for one in seen}) == 2
    assert [one["addresses"][0]["address"] for one in seen] == [
        node.state.address for node in real_nodes
    ]


def test_a_pod_runs_and_its_logs_and_exec_go_through_the_api_server(
    plane: ControlPlane, real_node: RealNode, run_pod: Pods, eventually
) -> None:
    run_pod(real_node, "talks", "sh", "-c", "echo hello from $(hostname); sleep 1000")
    eventually(lambda: plane.kubectl("logs", "talks") == "hello from talks\n")
    said = plane.kubectl("exec", "-i", "talks", "--", "sh", "-c", "cat; id -u", stdin="through\n")
    assert said == "through\n0\n"


def test_pods_of_both_nodes_and_the_machine_reach_each_other(
    plane: ControlPlane, real_nodes: tuple[RealNode, RealNode], run_pod: Pods, eventually
) -> None:
    one, two = real_nodes
    served = run_pod(one, "server", "sh", "-c", "echo found > /tmp/x; httpd -f -p 8080 -h /tmp")
    run_pod(two, "client", "sleep", "1000")
    address = served["status"]["podIP"]
    ask = ("exec", "client", "--", "wget", "-q", "-O", "-", f"http://{address}:8080/x")
    eventually(lambda: plane.kubectl(*ask, check=False) == "found\n")
    # The machine may know the address as that of an earlier pod's: it asks anew after some seconds.
    with socket.create_connection((address, 8080), timeout=60.0) as machine:
        machine.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        assert machine.makefile().read().endswith("found\n")


def test_a_port_of_the_machines_loopback_can_be_opened_to_a_node(real_node: RealNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        real_node.reach(port)
        asking = real_node.enter(
            ["python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))"]
        )
        with subprocess.Popen(asking, env=real_node.environment) as client:
            server.settimeout(10.0)
            server.accept()[0].close()
        assert client.returncode == 0


def test_podresources_answers_with_the_pods_of_its_own_node(
    real_nodes: tuple[RealNode, RealNode], run_pod: Pods
) -> None:
    one, two = real_nodes
    run_pod(one, "listed", "sleep", "1000")
    assert "listed" in _pod_resources(one)
    assert "listed" not in _pod_resources(two)


def test_each_node_has_a_device_plugin_folder_of_its_own(
    real_nodes: tuple[RealNode, RealNode],
) -> None:
    path = "var/lib/kubelet/device-plugins/kubelet.sock"
    sockets = [(node.root / path).stat() for node in real_nodes]
    assert all(stat.S_ISSOCK(one.st_mode) for one in sockets)
    assert sockets[0].st_ino != sockets[1].st_ino
    assert all((node.work / "kubelet/device-plugins").is_dir() for node in real_nodes)


def test_a_node_may_do_as_it_likes_in_its_own_folders_without_the_machine_noticing(
    real_nodes: tuple[RealNode, RealNode],
) -> None:
    one, two = real_nodes
    one.run("touch", "/var/lib/mine", "/run/mine", "/var/log/mine")
    for path in ("/var/lib/mine", "/run/mine", "/var/log/mine"):
        assert not Path(path).exists()
        assert not (two.root / path.lstrip("/")).exists()
    assert one.run("hostname") == "real-1\n"
    settings = "/proc/sys/vm/overcommit_memory"
    assert one.run("cat", settings) == "1\n"  # what the kubelet wants; ours is as it was
    machines = set(Path("/proc/1/mounts").read_text().splitlines())
    assert not [line for line in machines if str(one.work) in line]


def test_criu_can_checkpoint_here(real_node: RealNode) -> None:
    assert "Looks good." in real_node.run("sh", "-c", "criu check 2>&1")
    assert (real_node.work / "criu.conf").read_text() in {
        f"network-lock {how}\n" for how in ("nftables", "iptables")
    }


def test_a_container_with_a_connection_is_checkpointed_and_runs_on(
    plane: ControlPlane, real_node: RealNode, run_pod: Pods, eventually
) -> None:
    pod = run_pod(real_node, "counts", "sh", "-c", f"{CONNECTION} {COUNTER}")
    seen = ("exec", "counts", "--", "cat", "/tmp/got")
    eventually(lambda: plane.kubectl(*seen, check=False) == "start\n")
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    images = real_node.work / "checkpoint"
    options = ["--leave-running", "--tcp-established", "--image-path", images]
    real_node.runc("checkpoint", *options, "--work-path", real_node.work / "dump", container)
    assert (images / "descriptors.json").exists()
    assert list(images.glob("pages-*.img"))
    before = _last(plane, "counts")
    eventually(lambda: _last(plane, "counts") > before + 3)
    assert plane.kubectl("get", "pod", "counts", "-o", _RESTARTS) == "0"


def test_containers_survive_restarts_of_kubelet_and_containerd(
    plane: ControlPlane, real_node: RealNode, run_pod: Pods, eventually
) -> None:
    pod = run_pod(real_node, "survives", "sh", "-c", COUNTER)
    before = real_node.pid(KUBELET), real_node.pid(CONTAINERD)
    real_node.stop_kubelet()
    real_node.stop_containerd()
    real_node.start_containerd()
    real_node.start_kubelet()
    assert real_node.pid(KUBELET) != before[0]
    assert real_node.pid(CONTAINERD) != before[1]
    last = _last(plane, "survives")
    eventually(lambda: _last(plane, "survives") > last)
    after = plane.api.get("/api/v1/namespaces/default/pods/survives")["status"]
    assert (
        after["containerStatuses"][0]["containerID"]
        == (pod["status"]["containerStatuses"][0]["containerID"])
    )


def test_a_pod_with_this_machines_python_and_our_packages_asks_the_api_server(
    plane: ControlPlane, real_nodes: tuple[RealNode, RealNode], run_pod: Pods, eventually
) -> None:
    _, two = real_nodes
    packages = [REPOSITORY / name for name in ("kybernate", "testbed")]
    two.import_image("kyb.test/python:1", two.python_image(["grpcio", "orjson"], packages))
    run_pod(two, "python", "python3", "-c", ASK, image="kyb.test/python:1", restartPolicy="Never")
    eventually(lambda: plane.kubectl("logs", "python") == "v1.36.2\n")


def _running(plane: ControlPlane, name: str) -> dict | None:
    pod = plane.api.get(f"/api/v1/namespaces/default/pods/{name}")
    assert pod["status"]["phase"] in {"Pending", "Running"}, json.dumps(pod["status"])
    return pod if pod["status"]["phase"] == "Running" else None


def _last(plane: ControlPlane, name: str) -> int:
    return int(plane.kubectl("logs", "--tail=1", name))


_RESTARTS = "jsonpath={.status.containerStatuses[0].restartCount}"


def _pod_resources(node: RealNode) -> set[str]:
    path = node.root / "var/lib/kubelet/pod-resources/kubelet.sock"
    with grpc.insecure_channel(f"unix:{path}") as channel:
        lister = podresources_pb2_grpc.PodResourcesListerStub(channel)
        answer = lister.List(podresources_pb2.ListPodResourcesRequest(), timeout=10.0)
    return {pod.name for pod in answer.pod_resources}
