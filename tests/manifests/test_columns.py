"""What an operator reads: the columns of the real kubectl."""

from collections.abc import Callable
from typing import Any

import pytest

from testbed.controlplane import ControlPlane

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

LONG_AGO = "2020-01-01T00:00:00Z"


def _ready(status: str, message: str = "") -> Object:
    return {
        "type": "Ready",
        "status": status,
        "reason": "AgentReports",
        "message": message,
        "lastTransitionTime": LONG_AGO,
    }


def _write(admin: Any, path: str, name: str, kind: str, spec: Object, status: Object) -> None:
    body = {
        "apiVersion": "kyb.ai/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    assert admin.create(path, body).status == 201
    answer = admin.merge(f"{path}/{name}/status", {"status": status})
    assert answer.status == 200, answer.message


def _table(text: str) -> list[list[str]]:
    """Rows of cells; columns are set apart by at least two spaces."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()
    ]


def test_gpunodes_show_who_is_active_who_waits_and_what_ram_holds(
    installed: ControlPlane, admin: Any, new_name: Callable[[str], str]
) -> None:
    name = new_name("node")
    status = {
        "product": "NVIDIA H100",
        "observedAt": LONG_AGO,
        "mechanisms": ["guest", "driver"],
        "summary": {
            "gpus": 1,
            "seats": "5/6",
            "active": "default/llama-b on G0",
            "waiting": 2,
            "ram": "80 GiB of 400 GiB",
            "mechanisms": "guest, driver",
        },
        "conditions": [_ready("Unknown", "its Lease is 45 s old")],
    }
    _write(admin, "/apis/kyb.ai/v1alpha1/gpunodes", name, "GpuNode", {}, status)
    head, row = _table(installed.kubectl("get", "gn", name))
    assert head == ["NAME", "PRODUCT", "GPUS", "ACTIVE", "WAITING", "RAM-USED", "READY", "AGE"]
    assert row[:-1] == [
        name, "NVIDIA H100", "1", "default/llama-b on G0", "2", "80 GiB of 400 GiB", "Unknown",
    ]  # fmt: skip
    wide, row = _table(installed.kubectl("get", "gpunodes", name, "-o", "wide"))
    assert {"SEATS", "MECHANISMS", "REPORTED", "WHY"} <= set(wide)
    assert {"5/6", "guest, driver", "its Lease is 45 s old"} <= set(row)


def test_gpuworkloads_show_where_each_is_since_when_and_why(
    installed: ControlPlane, admin: Any, namespace: str
) -> None:
    path = f"/apis/kyb.ai/v1alpha1/namespaces/{namespace}/gpuworkloads"
    spec = {"podUID": "u1", "resource": "kyb.ai/gpu-1x-seat", "desired": "Parked"}
    status = {
        "state": "Parked",
        "node": "node-a",
        "seat": "G0/2",
        "tier": "ram",
        "since": LONG_AGO,
        "why": "parked for default/llama-c, which waited 12.1 s",
        "lastSwitch": {"seconds": 0.91, "phases": []},
        "placement": {"estimateSeconds": 4.1, "text": "4.1 s = fetch nvme 40 GiB 2.1 + ..."},
    }
    _write(admin, path, "llama-b", "GpuWorkload", spec, status)
    head, row = _table(installed.kubectl("get", "gw", "-n", namespace))
    assert head == ["NAME", "STATE", "NODE", "SEAT", "TIER", "SINCE", "WHY", "AGE"]
    assert row[:5] == ["llama-b", "Parked", "node-a", "G0/2", "ram"]
    assert row[5].endswith("y") or "y" in row[5]  # years
    assert row[6] == "parked for default/llama-c, which waited 12.1 s"
    wide, row = _table(installed.kubectl("get", "gw", "-n", namespace, "-o", "wide"))
    shown = dict(zip(wide, row, strict=False))
    assert {"DESIRED", "CLASS", "SWITCH-SECONDS", "PLACED"} <= set(wide)
    assert (shown["DESIRED"], row[-1]) == ("Parked", "4.1 s = fetch nvme 40 GiB 2.1 + ...")


def test_checkpoints_and_their_policies_show_what_is_asked_about_them(
    installed: ControlPlane, admin: Any, namespace: str
) -> None:
    path = f"/apis/kyb.ai/v1alpha1/namespaces/{namespace}"
    status = {
        "sizeBytes": 42949672960,
        "size": "40.0 GiB",
        "writtenBytes": 3221225472,
        "addedBytes": 2147483648,
        "added": "2.0 GiB",
        "pause": {"seconds": 1.31, "text": "1.31s", "phases": [{"name": "dump", "seconds": 1.31}]},
        "copies": [{"node": "node-a", "tier": "nvme"}],
        "claim": {"podUID": "u1", "node": "node-b", "pod": "llama-0"},
        "conditions": [_ready("True")],
    }
    spec = {"workload": "statefulset.llama.0", "node": "node-a"}
    _write(admin, f"{path}/gpucheckpoints", "one", "GpuCheckpoint", spec, status)
    head, row = _table(installed.kubectl("get", "gcp", "-n", namespace))
    assert head == ["NAME", "WORKLOAD", "READY", "SIZE", "NODE", "CLAIM", "AGE"]
    assert row[:-1] == ["one", "statefulset.llama.0", "True", "40.0 GiB", "node-a", "llama-0"]
    wide, row = _table(installed.kubectl("get", "gcp", "-n", namespace, "-o", "wide"))
    assert [row[wide.index(column)] for column in ("ADDED", "PAUSE")] == ["2.0 GiB", "1.31s"]
    assert {"GOLD", "SEALED-ON", "SEALED", "TIER", "CLAIM-NODE", "WHY", "KEPT"} <= set(wide)
    where = {"checkpoint": "one", "copies": [{"node": "node-a"}]}
    placed = {
        "type": "Placed",
        "status": "True",
        "reason": "AsAsked",
        "lastTransitionTime": LONG_AGO,
    }
    there = {"wanted": 1, "there": 1, "conditions": [placed]}
    _write(admin, f"{path}/tierplacements", "one", "TierPlacement", where, there)
    head, row = _table(installed.kubectl("get", "tp", "-n", namespace))
    assert head == ["NAME", "CHECKPOINT", "PLACED", "WANTED", "THERE", "REASON", "AGE"]
    assert row[:-1] == ["one", "one", "True", "1", "1", "AsAsked"]
    policy = {"selector": {}, "every": "5m"}
    _write(admin, f"{path}/checkpointpolicies", "one", "CheckpointPolicy", policy, {"workloads": 2})
    head, row = _table(installed.kubectl("get", "cpol", "-n", namespace))
    assert head == ["NAME", "EVERY", "KEEP", "WORKLOADS", "READY", "AGE"]
    assert row[:4] == ["one", "5m", "3", "2"]


def test_requests_show_how_far_they_are_and_why(
    installed: ControlPlane, admin: Any, namespace: str
) -> None:
    path = f"/apis/kyb.ai/v1alpha1/namespaces/{namespace}"
    status = {
        "state": "Running",
        "message": "the agent of node-a seals it",
        "checkpoint": "llama-0-1",
        "progress": {"percent": 40},
    }
    spec: Object = {"workload": "llama-0"}
    _write(admin, f"{path}/checkpointrequests", "one", "CheckpointRequest", spec, status)
    head, row = _table(installed.kubectl("get", "creq", "-n", namespace))
    assert head == ["NAME", "WORKLOAD", "STATE", "PERCENT", "CHECKPOINT", "WHY", "AGE"]
    assert row[:-1] == [
        "one", "llama-0", "Running", "40", "llama-0-1", "the agent of node-a seals it",
    ]  # fmt: skip
    spec = {"checkpoint": "llama-0-1", "owner": {"kind": "StatefulSet", "name": "llama"}}
    status = {"state": "Failed", "message": "it is claimed", "pod": "llama-0", "node": "node-b"}
    _write(admin, f"{path}/restorerequests", "one", "RestoreRequest", spec, status)
    head, row = _table(installed.kubectl("get", "rreq", "-n", namespace))
    assert head == ["NAME", "CHECKPOINT", "STATE", "POD", "NODE", "WHY", "AGE"]
    assert row[:-1] == ["one", "llama-0-1", "Failed", "llama-0", "node-b", "it is claimed"]


def test_all_of_ours_are_listed_by_one_word(
    installed: ControlPlane, admin: Any, namespace: str
) -> None:
    path = f"/apis/kyb.ai/v1alpha1/namespaces/{namespace}/checkpointpolicies"
    _write(admin, path, "nightly", "CheckpointPolicy", {"selector": {}}, {})
    assert "checkpointpolicy.kyb.ai/nightly" in installed.kubectl("get", "kyb", "-n", namespace)
