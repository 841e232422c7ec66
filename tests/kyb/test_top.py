"""`kyb top`: the rows, and that it is printed once where nobody looks at a terminal."""

from collections.abc import Callable
from typing import Any

import pytest

from kyb import overview
from kybernate.api import gpunodes, gpuworkloads
from kybernate.clients.errors import Unavailable
from kybernate.model.tier import Tier
from kybernate.model.workload import State
from kybernate.testing.builders import (
    GIB,
    a_gpu,
    a_gpunode,
    a_group,
    a_node,
    a_tenant,
    a_workload,
)
from kybernate.testing.clock import START
from kybernate.testing.fakekube import FakeKube

Kyb = Callable[..., Any]


def the_node() -> dict[str, Any]:
    tenants = [
        a_tenant("llama-a", group="G01", state=State.ACTIVE, vram=100 * GIB),
        a_tenant("llama-b", group="G0", number=1, state=State.WAITING, waits=True),
        a_tenant("llama-c", group="G0", number=2, state=State.PARKED),
    ]
    groups = [a_group(0), a_group(0, 1)]
    node = a_node("node-a", groups=groups, tenants=tenants, product="NVIDIA H100")
    seen = gpunodes.Observed(
        at=START, ready_since=START, gpus=[a_gpu(0), a_gpu(1)], used={0: 51 * GIB, 1: 50 * GIB}
    )
    return {**gpunodes.new_object(node.name), "status": gpunodes.write_status(node, seen)}


def a_gpuworkload(name: str, **status: Any) -> dict[str, Any]:
    obj = gpuworkloads.new_object(a_workload(name))
    if status:
        obj["status"] = gpuworkloads.write_status(gpuworkloads.Status(**status))
    return obj


def test_a_row_for_each_gpu_says_who_has_it_and_who_waits() -> None:
    found = overview.of([the_node()], [], START)
    assert found.gpus == (
        ("node-a", "0", "NVIDIA H100", "51.0 GiB", "50.0 GiB", "80.0 GiB", "Healthy",
         "default/llama-a", "1"),
        ("node-a", "1", "NVIDIA H100", "50.0 GiB", "50.0 GiB", "80.0 GiB", "Healthy",
         "default/llama-a", "0"),
    )  # fmt: skip


def test_a_row_for_each_workload_says_how_long_it_is_so_and_why() -> None:
    waits = a_gpuworkload(
        "llama-b", state=State.WAITING, since=START - 90, node="node-a", seat="G0/1",
        why="holder keeps the GPU",
    )  # fmt: skip
    pending = a_gpuworkload("new")
    pending["status"] = {"decisions": [{"message": "no node has a free seat"}]}
    broken = {"metadata": {"namespace": "default", "name": "odd"}, "spec": {}}
    found = overview.of([], [pending, broken, waits], START)
    rows = {row[1]: row for row in found.workloads}
    assert rows["llama-b"] == (
        "default", "llama-b", "Waiting", "node-a", "G0/1", "", "40.0 GiB", "90s",
        "holder keeps the GPU",
    )  # fmt: skip
    assert (rows["new"][2], rows["new"][8]) == ("Pending", "no node has a free seat")
    assert "podUID" in rows["odd"][8]


def test_a_node_that_cannot_be_read_is_said_in_its_row() -> None:
    broken = {"metadata": {"name": "odd"}, "status": {"gpus": [{"index": "one"}]}}
    ((name, _, why, *_),) = overview.of([broken], [], START).gpus
    assert name == "odd"
    assert "status.gpus[0].index" in why


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h00m"), (172800, "2d")],
)
def test_time_is_shown_as_kubectl_shows_it(seconds: float, shown: str) -> None:
    assert overview.span(seconds) == shown


def test_without_a_terminal_it_is_printed_once_with_rows_as_long_as_they_are(
    kube: FakeKube, kyb: Kyb
) -> None:
    why = "parked for default/llama-c, which waited 12.1 s " * 4
    kube.seed(the_node(), a_gpunode())
    kube.seed(a_gpuworkload("llama-b", state=State.PARKED, since=START, tier=Tier.RAM, why=why))
    said = kyb("top", COLUMNS="60")
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0].split() == list(overview.GPU_COLUMNS)
    assert any(line.rstrip().endswith(why.strip()) for line in lines)


def test_a_cluster_without_workloads_says_so(kyb: Kyb) -> None:
    said = kyb("top")
    assert "no workloads" in said.output


def test_an_api_server_that_is_away_is_said_by_the_program(kube: FakeKube, kyb: Kyb) -> None:
    kube.outage()
    assert isinstance(kyb("top").exception, Unavailable)
