"""Why a node cannot take a workload, and whether evicting somebody there would help."""

import pytest

from kybernate.decisions import demand, outlook, placement
from kybernate.decisions.placement import Assessment
from kybernate.model.cluster import Arrival, NodeView
from kybernate.model.gpu import Health
from kybernate.model.ids import GroupName, PodUid, WorkloadKey
from kybernate.model.node import NodeState
from kybernate.model.policy import PlacementVerdict
from kybernate.model.tier import Room, Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import State, Wishes, Workload
from kybernate.testing.builders import (
    GIB,
    SEAT_2X,
    a_group,
    a_node,
    a_tenant,
    a_workload,
)
from kybernate.testing.clock import START

NO_RAM = {Tier.RAM: Room(capacity=0)}


def assess(
    workload: Workload,
    node: NodeState | None,
    verdict: PlacementVerdict | None = None,
    class_id: str = "c",
) -> Assessment | Refusal:
    seen = None if node is None else outlook.of(NodeView(state=node), class_id)
    asked = demand.of(workload, {}, cold_start=60.0)
    return placement.assess(seen, asked, verdict or PlacementVerdict(), START)


@pytest.mark.parametrize(
    ("workload", "node", "reason", "curable"),
    [
        pytest.param(a_workload(), None, Reason.NOT_MANAGED, False, id="unknown-node"),
        pytest.param(
            a_workload(), a_node(agent_ready=False), Reason.AGENT_AWAY, False, id="agent-away"
        ),
        pytest.param(
            a_workload(resource=SEAT_2X),
            a_node(),
            Reason.NO_SUCH_SEAT,
            False,
            id="2x-seat-on-a-node-with-one-gpu",
        ),
        pytest.param(
            a_workload(vram=81 * GIB), a_node(), Reason.VRAM_TOO_SMALL, False, id="vram-too-large"
        ),
        pytest.param(
            a_workload(wishes=Wishes(require_group=GroupName("G7"))),
            a_node(),
            Reason.GROUP_ABSENT,
            False,
            id="required-group-absent",
        ),
        pytest.param(
            a_workload(wishes=Wishes(require_group=GroupName("G0"))),
            a_node(groups=[a_group(0, seats=1)], tenants=[a_tenant()]),
            Reason.GROUP_FULL,
            True,
            id="required-group-full",
        ),
        pytest.param(
            a_workload(),
            a_node(group_health={GroupName("G0"): Health.UNHEALTHY}),
            Reason.GROUP_UNHEALTHY,
            False,
            id="unhealthy",
        ),
        pytest.param(
            a_workload(),
            a_node(group_health={}),
            Reason.GROUP_UNHEALTHY,
            False,
            id="unknown-health",
        ),
        pytest.param(
            a_workload(),
            a_node(tenants=[a_tenant("llama-b")], rooms=NO_RAM),
            Reason.NO_HOST_MEMORY,
            True,
            id="no-room-to-park-the-holder",
        ),
        pytest.param(
            a_workload(),
            a_node(tenants=[a_tenant("llama-b")], rooms={}),
            Reason.NO_HOST_MEMORY,
            True,
            id="room-not-reported",
        ),
    ],
)
def test_a_node_that_cannot_take_it_says_why(
    workload: Workload, node: NodeState | None, reason: Reason, curable: bool
) -> None:
    answer = assess(workload, node)
    assert isinstance(answer, Refusal)
    assert answer.reason is reason
    assert placement.unresolvable(answer) is not curable


@pytest.mark.parametrize(
    ("required", "full"),
    [pytest.param("G0", True, id="the-same-group"), pytest.param("G1", False, id="another")],
)
def test_pods_on_their_way_have_seats_of_the_group_they_require(required: str, full: bool) -> None:
    node = a_node(groups=[a_group(0, seats=1), a_group(1, seats=1)])
    coming = Arrival(key=WorkloadKey("d", "x"), uid=PodUid("x"), require_group=GroupName(required))
    seen = outlook.of(NodeView(state=node, arrivals=(coming,)), "c")
    asked = demand.of(a_workload(wishes=Wishes(require_group=GroupName("G0"))), {}, cold_start=60.0)
    answer = placement.assess(seen, asked, PlacementVerdict(), START)
    assert (isinstance(answer, Refusal) and answer.reason is Reason.GROUP_FULL) is full


def test_a_reason_text_never_holds_a_number() -> None:
    answer = assess(a_workload(vram=81 * GIB), a_node())
    assert isinstance(answer, Refusal)
    assert not any(character.isdigit() for character in answer.reason)
    assert answer.detail == "81 GiB of 80 GiB"


@pytest.mark.parametrize(("object_storage", "fits"), [(40 * GIB, True), (39 * GIB, False)])
def test_a_full_ram_and_nvme_make_room_as_far_as_object_storage_has(
    object_storage: int, fits: bool
) -> None:
    """llama-b is active and has to be parked; 40 GiB each are in RAM and on NVMe."""
    parked = {"state": State.PARKED, "vram": 40 * GIB}
    tenants = [
        a_tenant("llama-b", vram=40 * GIB),
        a_tenant("c", tier=Tier.RAM, **parked),
        a_tenant("d", tier=Tier.NVME, **parked),
    ]
    rooms = {tier: Room(capacity=40 * GIB, used=40 * GIB) for tier in (Tier.RAM, Tier.NVME)}
    rooms[Tier.OBJECT] = Room(capacity=object_storage)
    answer = assess(a_workload(), a_node(tenants=tenants, rooms=rooms))
    refused = isinstance(answer, Refusal) and answer.reason is Reason.NO_HOST_MEMORY
    assert refused is not fits, answer


def test_policy_denies_a_class_of_nodes() -> None:
    answer = assess(a_workload(), a_node(), PlacementVerdict(deny={"c": "quota"}))
    assert answer == Refusal(reason=Reason.POLICY_DENIED, detail="quota")


def test_policy_is_final_where_eviction_would_cure_the_rest() -> None:
    node = a_node(tenants=[a_tenant("llama-b")], rooms=NO_RAM)
    answer = assess(a_workload(), node, PlacementVerdict(deny={"c": "quota"}))
    assert isinstance(answer, Refusal)
    assert placement.unresolvable(answer)


def test_what_is_wrong_with_the_node_is_named_before_policy() -> None:
    node = a_node(group_health={GroupName("G0"): Health.UNHEALTHY})
    answer = assess(a_workload(), node, PlacementVerdict(deny={"c": "Unhealthy"}))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.GROUP_UNHEALTHY


def test_a_pod_without_vram_takes_the_whole_group() -> None:
    answer = assess(a_workload(vram=None), a_node(tenants=[a_tenant("b", vram=GIB)]))
    assert isinstance(answer, Assessment)
    assert answer.misfit == 0
    assert answer.steps[0].what == "b"


def test_seats_are_the_schedulers_to_count() -> None:
    full = a_node(groups=[a_group(0, seats=1)], tenants=[a_tenant(state=State.PARKED)])
    assert isinstance(assess(a_workload("other"), full), Assessment)


def test_a_healthy_group_beside_a_broken_one_is_used() -> None:
    node = a_node(
        groups=[a_group(0), a_group(1)],
        group_health={GroupName("G0"): Health.UNHEALTHY, GroupName("G1"): Health.HEALTHY},
    )
    answer = assess(a_workload(), node)
    assert isinstance(answer, Assessment)
    assert answer.group == "G1"
