"""`kyb doctor` as people and programs call it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from kyb.__main__ import app
from kyb.doctor import command, seen
from kyb.doctor.facts import Unknown
from kyb.doctor.findings import Grade
from kybernate.clients import resources

NODE: dict[str, Any] = {
    "metadata": {"name": "gpu-1", "labels": {"kyb.ai/managed": "true"}},
    "status": {
        "nodeInfo": {
            "kubeletVersion": "v1.36.2",
            "containerRuntimeVersion": "containerd://2.3.4",
            "kernelVersion": "6.18.1",
        },
        "runtimeHandlers": [{"name": ""}, {"name": "runc"}, {"name": "kybernate"}],
        "allocatable": {"cpu": "8", "kyb.ai/gpu-1x-seat": "4", "nvidia.com/gpu": "0"},
    },
}
READY = {
    "metadata": {"name": "gpu-1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
STATIC = {
    "metadata": {
        "namespace": "default",
        "name": "model-gpu-1",
        "annotations": {"kubernetes.io/config.mirror": "x"},
    },
    "spec": {
        "nodeName": "gpu-1",
        "containers": [{"resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}}}],
    },
}


class Cluster:
    """As much of the API as the doctor asks for."""

    def __init__(self, node: dict[str, Any], pods: list[Any], timeout: str = "2m0s") -> None:
        self._lists = {resources.NODES: [node], resources.PODS: pods, resources.GPUNODES: [READY]}
        self._timeout = timeout

    def list(self, resource: Any, *_: object, **__: object) -> list[Any]:
        return self._lists[resource]

    def raw(self, path: str) -> bytes:
        assert path == "/api/v1/nodes/gpu-1/proxy/configz"
        return json.dumps({"kubeletconfig": {"runtimeRequestTimeout": self._timeout}}).encode()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def call(*words: str, cluster: Any = None) -> Any:
        monkeypatch.setattr(command.reach, "kube", lambda _: cluster)
        return CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "200"})

    return call


def test_a_good_cluster_ends_with_0_and_shows_each_node(run):
    done = run(cluster=Cluster(NODE, []))
    assert done.exit_code == 0, done.output
    assert "gpu-1: fit (9 ok)" in done.output


def test_what_is_wrong_from_afar_ends_with_1_and_says_how_to_mend_it(run):
    status = {
        **NODE["status"],
        "runtimeHandlers": [{"name": "runc"}],
        "allocatable": {"nvidia.com/gpu": "8"},
    }
    done = run("--json", cluster=Cluster({**NODE, "status": status}, [STATIC], timeout="30s"))
    assert done.exit_code == 1
    said = json.loads(done.output)
    assert said["fit"] is False
    faults = {one["check"]: one for one in said["nodes"]["gpu-1"] if one["grade"] == "fault"}
    assert set(faults) == {"runtime handler", "device plugins", "static pods", "seats"}
    warned = {one["check"] for one in said["nodes"]["gpu-1"] if one["grade"] == "warning"}
    assert warned == {"runtimeRequestTimeout"}
    assert faults["device plugins"]["found"] == "nvidia.com/gpu"
    assert faults["static pods"]["found"] == "default/model-gpu-1"
    assert all(one["mend"] for one in faults.values())


def test_another_runtime_than_containerd_is_a_fault():
    node = {
        **NODE,
        "status": {**NODE["status"], "nodeInfo": {"containerRuntimeVersion": "cri-o://1"}},
    }
    (one,) = seen.managed(Cluster(node, []))
    found = {f.check: f for f in seen.examine(one)}
    assert found["containerd"].grade is Grade.FAULT
    assert found["kubelet"].grade is Grade.FAULT


def test_no_managed_node_is_said(run):
    cluster = Cluster(NODE, [])
    cluster._lists[resources.NODES] = []
    done = run(cluster=cluster)
    assert done.exit_code == 1
    assert "kyb.ai/managed=true" in done.stderr


@pytest.mark.parametrize(("facts", "status"), [({}, 0), ({"disk": Unknown("no room")}, 1)])
def test_a_machine_is_looked_at_where_it_is_asked_for(run, a_node, monkeypatch, facts, status):
    monkeypatch.setattr(command.node, "facts", lambda *_: a_node(**facts))
    done = run("--node-local")
    assert done.exit_code == status, done.output
    assert "this machine: " in done.output


def test_what_was_not_measured_is_not_judged(run, a_node, monkeypatch):
    dark = {"disk": Unknown("not asked to"), "bus": Unknown("not asked to")}
    monkeypatch.setattr(command.node, "facts", lambda *_: a_node(**dark))
    done = run("--node-local", "--quick", "--json")
    assert done.exit_code == 0
    assert not {"bus", "disk"} & {
        one["check"] for one in json.loads(done.output)["nodes"]["this machine"]
    }
