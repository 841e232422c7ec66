"""GpuNode and GpuCheckpoint to model values and back."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api import gpunodes
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.errors import Malformed
from kybernate.api.gpunodes import Observed, read_node, ready_condition, write_status
from kybernate.model.gpu import Health
from kybernate.model.ids import NodeName
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.workload import State, WorkloadClass
from kybernate.testing.builders import (
    GIB,
    a_gpu,
    a_gpunode,
    a_group,
    a_node,
    a_tenant,
)

FULL = a_node(
    "node-a",
    groups=[a_group(0), a_group(1), a_group(0, 1, seats=3, active=2)],
    group_health={"G0": Health.HEALTHY, "G1": Health.UNHEALTHY, "G01": Health.UNKNOWN},
    tenants=[
        a_tenant("llama-a", priority=-5, min_runtime_until=1_700_000_300.0),
        a_tenant(
            "trainer",
            group="G01",
            number=2,
            state=State.PARKED,
            workload_class=WorkloadClass.TRAINING,
            tier=Tier.NVME,
        ),
    ],
    bandwidths={Tier.NVME: Bandwidth(bytes_per_second=5_000_000_000, spread=0.25)},
    rooms={Tier.RAM: Room(capacity=10 * GIB, used=3)},
    labels={"zone": "a"},
)


def an_object(node: Any = FULL) -> dict[str, Any]:
    obj = a_gpunode(node)
    obj["metadata"]["labels"] = dict(node.labels)
    return obj


def faults_of(obj: dict[str, Any]) -> dict[str, object]:
    with pytest.raises(Malformed) as caught:
        read_node(obj)
    return {fault.path: fault.value for fault in caught.value.faults}


def test_what_an_agent_writes_is_read_back_the_same() -> None:
    assert read_node(an_object()) == FULL


@given(
    st.lists(st.sampled_from(State), max_size=4),
    st.booleans(),
    st.integers(0, 2**50),
    st.sampled_from(Health),
)
def test_any_node_is_read_back_the_same(
    states: list[State], ready: bool, used: int, health: Health
) -> None:
    node = a_node(
        tenants=[a_tenant(f"w{n}", number=n, state=state) for n, state in enumerate(states)],
        agent_ready=ready,
        group_health={"G0": health},
        rooms={Tier.RAM: Room(capacity=2**50, used=used)},
    )
    assert read_node(a_gpunode(node)) == node


def test_the_status_has_the_fields_people_and_columns_read() -> None:
    seen = Observed(
        at=1_700_000_000.9,
        ready_since=1_690_000_000.0,
        gpus=[a_gpu(0, numa=1), a_gpu(1)],
        used={0: 5},
        driver="610.1",
        mechanisms=["simulated"],
        policy_revision="sha256:0123456789ab",
    )
    status = write_status(FULL, seen)
    assert status["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-00000000",
        "memoryBytes": 80 * GIB,
        "usedBytes": 5,
        "health": "Healthy",
        "numa": 1,
    }
    assert "numa" not in status["gpus"][1]
    assert status["observedAt"] == "2023-11-14T22:13:20Z"
    assert (status["driver"], status["mechanisms"]) == ("610.1", ["simulated"])
    assert status["tenants"][0]["minRuntimeUntil"] == "2023-11-14T22:18:20Z"
    assert "minRuntimeUntil" not in status["tenants"][1]
    assert status["bandwidths"] == [
        {"tier": "nvme", "bytesPerSecond": 5_000_000_000, "spreadPercent": 25}
    ]
    assert status["conditions"][0]["lastTransitionTime"] == "2023-07-22T04:26:40Z"


@pytest.mark.parametrize(
    ("ready", "status", "reason"),
    [
        (True, "True", "AgentReports"),
        (False, "False", "AgentNotReady"),
        (None, "Unknown", "AgentAway"),
    ],
)
def test_the_ready_condition_has_three_values(ready: Any, status: str, reason: str) -> None:
    condition = ready_condition(ready, 0.0)
    assert (condition["status"], condition["reason"]) == (status, reason)


@pytest.mark.parametrize("ready", [None, False])
def test_an_agent_that_does_not_report_is_not_ready(ready: bool | None) -> None:
    obj = an_object()
    obj["status"]["conditions"] = [ready_condition(ready, 0.0)]
    assert not read_node(obj).agent_ready


def test_each_tier_below_the_cards_has_its_column_where_there_is_one() -> None:
    seen = Observed(at=1.0, ready_since=1.0)
    rooms = {tier: Room(capacity=2 * GIB, used=GIB) for tier in (Tier.RAM, Tier.NVME, Tier.OBJECT)}
    summary = write_status(a_node(rooms=rooms), seen)["summary"]
    assert {tier: summary[tier.value] for tier in rooms} == dict.fromkeys(rooms, "1 GiB of 2 GiB")
    without = write_status(a_node(rooms={Tier.RAM: Room(capacity=GIB)}), seen)["summary"]
    assert not {"nvme", "object"} & without.keys()


def test_a_node_before_its_agents_first_report_is_empty_and_not_ready() -> None:
    node = read_node(gpunodes.new_object(NodeName("node-a")))
    assert (node.groups, node.tenants, node.agent_ready) == ({}, (), False)


def test_unknown_fields_of_a_newer_version_are_left_alone() -> None:
    obj = an_object()
    obj["status"]["novelty"] = {"x": 1}
    obj["status"]["groups"][0]["novelty"] = 1
    assert read_node(obj) == FULL


def test_an_unreadable_health_counts_as_unknown_only_when_absent() -> None:
    obj = an_object()
    del obj["status"]["groups"][0]["health"]
    assert read_node(obj).group_health["G0"] is Health.UNKNOWN  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status.groups[0].seats", "four"),
        ("status.groups[0].seats", 4.0),
        ("status.groups[0].seats", True),
        ("status.groups[0].seats", -1),
        ("status.groups[0].vramBytes", None),
        ("status.groups[0].gpus", [-1]),
        ("status.groups[0].gpus", ["0"]),
        ("status.groups[0].health", "Sick"),
        ("status.groups", "G0"),
        ("status.groups[1]", "G0"),
        ("status.tenants[0].state", "Dancing"),
        ("status.tenants[0].seat", "G0"),
        ("status.tenants[0].seat", 7),
        ("status.tenants[0].tier", "tape"),
        ("status.tenants[0].class", "hobby"),
        ("status.tenants[0].minRuntimeUntil", "soon"),
        ("status.tenants[0].workload", []),
        ("status.tenants[0].workload.uid", None),
        ("status.tiers[0].capacityBytes", "10Gi"),
        ("status.bandwidths[0].bytesPerSecond", 0),
        ("status.bandwidths[0].tier", None),
        ("status.product", 5),
    ],
)
def test_a_bad_field_is_a_fault_with_its_path(path: str, value: object) -> None:
    obj = an_object()
    _put(obj, path, value)
    assert path in faults_of(obj)


def test_every_fault_is_told_at_once() -> None:
    obj = an_object()
    _put(obj, "status.groups[0].seats", "x")
    _put(obj, "status.tenants[1].state", "x")
    assert faults_of(obj) == {"status.groups[0].seats": "x", "status.tenants[1].state": "x"}


def test_a_checkpoint_is_at_the_hottest_tier_of_each_node() -> None:
    obj = {
        "metadata": {"namespace": "team", "name": "llama-a-1"},
        "spec": {"workload": "llama-a", "gold": True},
        "status": {
            "sizeBytes": 40 * GIB,
            "copies": [
                {"node": "n1", "tier": "nvme"},
                {"node": "n1", "tier": "ram"},
                {"node": "n2", "tier": "nvme"},
                {"tier": "object"},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    found = read_checkpoint(obj)
    assert found.copies == {"n1": Tier.RAM, "n2": Tier.NVME}
    assert (found.in_object_storage, found.ready, found.gold) == (True, True, True)
    assert (found.namespace, found.name, found.workload) == ("team", "llama-a-1", "llama-a")
    assert found.size == 40 * GIB


def test_a_checkpoint_without_status_is_not_ready_and_nowhere() -> None:
    found = read_checkpoint({"metadata": {"name": "x"}, "spec": {"workload": "w"}})
    assert (found.ready, found.copies, found.in_object_storage) == (False, {}, False)


def test_a_copy_without_a_node_is_a_fault() -> None:
    obj = {"metadata": {"name": "x"}, "status": {"copies": [{"tier": "ram"}, {"tier": "tape"}]}}
    with pytest.raises(Malformed) as caught:
        read_checkpoint(obj)
    assert [fault.path for fault in caught.value.faults] == [
        "status.copies[0].node",
        "status.copies[1].tier",
        "status.copies[1].node",
    ]


def _put(obj: dict[str, Any], path: str, value: object) -> None:
    steps: list[Any] = []
    for step in path.split("."):
        name, _, index = step.partition("[")
        steps += [name, int(index[:-1])] if index else [name]
    place: Any = obj
    for step in steps[:-1]:
        place = place[step]
    if value is None:
        del place[steps[-1]]
    else:
        place[steps[-1]] = deepcopy(value)
