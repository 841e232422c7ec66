"""Seconds until running on a node, itemised, and the group they are about."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.decisions import demand, outlook, placement
from kybernate.decisions.placement import Assessment
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.cluster import Arrival, NodeView
from kybernate.model.ids import GroupName, NodeName, PodUid, WorkloadKey
from kybernate.model.node import NodeState
from kybernate.model.policy import PlacementVerdict
from kybernate.model.tier import Bandwidth, Tier
from kybernate.model.workload import State, Wishes, Workload
from kybernate.testing.builders import (
    GIB,
    SEAT_2X,
    a_checkpoint,
    a_group,
    a_node,
    a_tenant,
    a_workload,
)
from kybernate.testing.clock import START

HOLDER = a_tenant("llama-b", vram=50 * 10**9)


def assess(
    workload: Workload,
    node: NodeState,
    *checkpoints: Checkpoint,
    arrivals: tuple[Arrival, ...] = (),
    **verdict: Any,
) -> Assessment:
    seen = outlook.of(NodeView(state=node, arrivals=arrivals), "c")
    known = {f"{found.namespace}/{found.name}": found for found in checkpoints}
    asked = demand.of(workload, known, cold_start=60.0)
    answer = placement.assess(seen, asked, PlacementVerdict(**verdict), START)
    assert isinstance(answer, Assessment)
    return answer


def text(found: Assessment) -> str:
    return str(found.estimate(START))


def test_an_empty_gpu_takes_the_cold_start() -> None:
    assert text(assess(a_workload(), a_node())) == "60.0 s = cold start 60.0"


def test_a_holder_is_parked_first() -> None:
    found = assess(a_workload(), a_node(tenants=[HOLDER]))
    assert text(found) == "61.0 s = park llama-b 1.0 + cold start 60.0"
    assert found.spread == pytest.approx(0.1)


def test_a_holder_is_waited_for_until_its_minimum_runtime_ends() -> None:
    holder = a_tenant("llama-b", vram=50 * 10**9, min_runtime_until=START + 30)
    found = assess(a_workload(), a_node(tenants=[holder]))
    assert text(found) == "91.0 s = wait 30.0 + park llama-b 1.0 + cold start 60.0"
    assert found.valid_until == START + 30
    assert found.cost(START + 20) == pytest.approx(71.0)
    assert found.cost(START + 90) == pytest.approx(61.0)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param({"copies": {"node-a": Tier.RAM}}, "1.0 s = resume 1.0", id="in-ram"),
        pytest.param(
            {"copies": {"node-a": Tier.NVME}},
            "11.0 s = fetch nvme 46.6 GiB 10.0 + resume 1.0",
            id="on-its-disk",
        ),
        pytest.param(
            {"in_object_storage": True},
            "51.0 s = fetch object 46.6 GiB 50.0 + resume 1.0",
            id="in-object-storage",
        ),
        pytest.param(
            {"copies": {"node-b": Tier.RAM}}, "60.0 s = cold start 60.0", id="on-another-node-only"
        ),
        pytest.param(
            {"copies": {"node-a": Tier.RAM}, "ready": False},
            "60.0 s = cold start 60.0",
            id="not-ready",
        ),
    ],
)
def test_a_checkpoint_is_fetched_from_the_tier_it_is_in(
    where: dict[str, Any], expected: str
) -> None:
    workload = a_workload(wishes=Wishes(restore_from=("gone", "llama-a-1")))
    found = assess(workload, a_node(), a_checkpoint(size=50 * 10**9, **where))
    assert text(found) == expected


@pytest.mark.parametrize(("gold", "counts"), [(True, True), (False, False)])
def test_a_gold_image_of_another_namespace_is_fetched_from_where_it_is(
    gold: bool, counts: bool
) -> None:
    wishes = Wishes(restore_from=("default/llama-a-1",))
    mine = a_workload(namespace="team", wishes=wishes)
    image = a_checkpoint(size=50 * 10**9, copies={"node-a": Tier.RAM}, gold=gold)
    assert ("cold start" not in text(assess(mine, a_node(), image))) is counts


def test_rates_that_nobody_measured_are_uncertain() -> None:
    found = assess(a_workload(), a_node(tenants=[HOLDER], bandwidths={}))
    assert found.spread == pytest.approx(found.steps[0].seconds * 0.5)


def test_the_group_that_is_ready_first_is_chosen() -> None:
    node = a_node(groups=[a_group(0), a_group(1)], tenants=[HOLDER])
    assert assess(a_workload(), node).group == "G1"


def test_the_preferred_group_is_what_the_node_would_give() -> None:
    node = a_node(groups=[a_group(0), a_group(1)], tenants=[HOLDER])
    workload = a_workload(wishes=Wishes(vram=GIB, prefer_group=GroupName("G0")))
    found = assess(workload, node)
    assert (found.group, found.steps[0].what) == ("G0", "llama-b")


def test_a_preferred_group_that_the_node_has_not_is_no_obstacle() -> None:
    workload = a_workload(wishes=Wishes(prefer_group=GroupName("G7")))
    assert assess(workload, a_node()).group == "G0"


def test_holders_of_overlapping_groups_are_all_parked() -> None:
    node = a_node(
        groups=[a_group(0), a_group(1), a_group(0, 1)],
        tenants=[HOLDER, a_tenant("llama-c", group="G1", vram=50 * 10**9)],
    )
    found = assess(a_workload(resource=SEAT_2X, vram=None), node)
    assert [item.what for item in found.steps[:2]] == ["llama-b", "llama-c"]
    assert found.cost(START) == pytest.approx(62.0)


def test_two_that_fit_together_may_both_be_active() -> None:
    node = a_node(groups=[a_group(0, active=2)], tenants=[HOLDER])
    assert text(assess(a_workload(vram=10 * GIB), node)) == "60.0 s = cold start 60.0"
    assert assess(a_workload(vram=60 * GIB), node).steps[0].what == "llama-b"


def test_a_parked_tenant_costs_nothing_and_does_not_wait() -> None:
    found = assess(a_workload(), a_node(tenants=[a_tenant(state=State.PARKED)]))
    assert (text(found), found.waiting) == ("60.0 s = cold start 60.0", 0)


def test_bound_pods_the_agent_does_not_report_yet_count_as_waiting() -> None:
    coming = Arrival(key=WorkloadKey("d", "x"), uid=PodUid("x"))
    waiter = a_tenant("w", state=State.WAITING, number=1)
    assert assess(a_workload(), a_node(tenants=[waiter]), arrivals=(coming,)).waiting == 2


@pytest.mark.parametrize(
    ("priority", "waiting"),
    [
        pytest.param(5, 1, id="less-important"),
        pytest.param(10, 1, id="as-important"),
        pytest.param(11, 0, id="more-important"),
    ],
)
def test_a_nominated_pod_waits_before_those_that_are_not_more_important(
    priority: int, waiting: int
) -> None:
    promised = Arrival(key=WorkloadKey("d", "x"), uid=PodUid("x"), priority=10, nominated=True)
    found = assess(a_workload(priority=priority), a_node(), arrivals=(promised,))
    assert found.waiting == waiting


def test_a_nominated_pod_does_not_wait_for_itself() -> None:
    workload = a_workload(nominated_node=NodeName("node-a"))
    own = Arrival(key=workload.key, uid=workload.uid, nominated=True)
    assert assess(workload, a_node(), arrivals=(own,)).waiting == 0


def test_policys_penalty_orders_nodes_and_is_not_waited_for() -> None:
    found = assess(a_workload(), a_node(), penalty_seconds={"c": 5.0})
    assert found.cost(START) == 65.0
    assert found.estimate(START).seconds == 60.0


@given(
    ends=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    rates=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    later=st.integers(0, 80),
)
def test_an_assessment_holds_until_it_says(ends: list[int], rates: list[int], later: int) -> None:
    """Time alone changes neither group nor seconds before `valid_until`."""
    node = a_node(
        groups=[a_group(index) for index in range(len(ends))],
        tenants=[
            a_tenant(
                f"t{index}", group=f"G{index}", vram=rates[index] * 10**9,
                min_runtime_until=START + end,
            )
            for index, end in enumerate(ends)
        ],
        bandwidths={Tier.RAM: Bandwidth(bytes_per_second=10**9)},
    )  # fmt: skip
    seen = outlook.of(NodeView(state=node), "c")
    asked = demand.of(a_workload(), {}, cold_start=60.0)
    now = START + later
    early = placement.assess(seen, asked, PlacementVerdict(), START)
    late = placement.assess(seen, asked, PlacementVerdict(), now)
    assert isinstance(early, Assessment)
    assert isinstance(late, Assessment)
    if now < early.valid_until:
        assert early.group == late.group
        assert early.cost(now) == late.cost(now)
