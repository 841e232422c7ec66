"""A profile file is understood, or every fault in it is named at once, with its path."""

import pytest

from kybernate.api.errors import Malformed
from kybernate.api.profiles import load_inventory, load_profiles

GOOD = """
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 4}
  - name: gpu-2x-seat
    resource: kyb.ai/gpu-2x-seat
    groupSize: 2
    seatsPerGroup: 3
    activePerGroup: 2
gpuTopology:
  groups: [{name: G01, gpus: [1, 0]}, {name: pair, gpus: [2, 3]}]
"""
ONE = "{name: one, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 4}"
TWO = "{name: two, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 3}"
GPUS = """
gpus:
  - {index: 0, uuid: GPU-a, product: H100, memory: 80Gi, numa: 0, links: {1: NV4}}
  - {index: 1, uuid: GPU-b, product: H100, memory: 80Gi, deviceNodes: [/dev/nvidia1]}
"""


def faults(text):
    with pytest.raises(Malformed) as raised:
        load_profiles(text)
    return [f.path for f in raised.value.faults]


def test_a_good_file_is_read():
    read = load_profiles(GOOD)
    assert [(p.resource, p.group_size, p.seats_per_group) for p in read.profiles] == [
        ("kyb.ai/gpu-1x-seat", 1, 4),
        ("kyb.ai/gpu-2x-seat", 2, 3),
    ]
    assert [p.active_per_group for p in read.profiles] == [1, 2]
    assert read.listed == {"G01": (0, 1), "pair": (2, 3)}
    assert read.gpus == ()


def test_listed_gpus_are_read_and_a_link_holds_both_ways():
    one, other = load_profiles(f"profiles: [{ONE}]{GPUS}").gpus
    assert (one.memory, one.numa, other.numa) == (80 * 2**30, 0, None)
    assert (one.links, other.links) == ({1: 104}, {0: 104})
    assert other.device_nodes == ("/dev/nvidia1",)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        pytest.param("profiles: []", ["profiles"], id="no-profile"),
        pytest.param("", ["(file)"], id="empty"),
        pytest.param("[1]", ["(file)"], id="a-list"),
        pytest.param("a: [", ["(line 1)"], id="no-yaml"),
        pytest.param(f"profiles: [{ONE}]\nprofiles: [{ONE}]", ["(line 2)"], id="key-twice"),
        pytest.param("{}", ["profiles"], id="missing"),
        pytest.param(f"profiles: [{ONE}]\nseats: 3", ["seats"], id="unknown-key"),
        pytest.param(
            f"profiles: [{ONE.replace('4', '0')}]", ["profiles[0].seatsPerGroup"], id="seats-of-0"
        ),
        pytest.param(
            f"profiles: [{ONE.replace('4', '2.5')}]", ["profiles[0].seatsPerGroup"], id="half"
        ),
        pytest.param(
            f"profiles: [{ONE.replace('kyb.ai', 'nvidia.com')}]",
            ["profiles[0].resource"],
            id="foreign-resource",
        ),
        pytest.param(
            f"profiles: [{ONE.replace('gpu-1x', 'gpu-2x')}]",
            ["profiles[0].resource"],
            id="resource-of-another-size",
        ),
        pytest.param(
            f"profiles: [{ONE}, {ONE}]",
            ["profiles[1].name", "profiles[1].resource"],
            id="twice-the-same",
        ),
        pytest.param(
            f"profiles: [{ONE.replace('4', '4, activePerGroup: 5')}]",
            ["profiles[0].activePerGroup"],
            id="more-active-than-seats",
        ),
    ],
)
def test_a_faulty_file_is_refused_with_the_path(text, paths):
    assert faults(text) == paths


@pytest.mark.parametrize(
    ("group", "paths"),
    [
        pytest.param(
            "{name: a, gpus: [0, 7]}", ["gpuTopology.groups[0].gpus[1]"], id="no-such-gpu"
        ),
        pytest.param("{name: a, gpus: [1, 1]}", ["gpuTopology.groups[0].gpus"], id="one-gpu-twice"),
        pytest.param(
            "{name: a, gpus: [0, 1, 2]}", ["gpuTopology.groups[0].gpus"], id="no-such-size"
        ),
        pytest.param("{name: G0, gpus: [0, 1]}", ["gpuTopology.groups[0].name"], id="misnamed"),
        pytest.param("{name: a/b, gpus: [0, 1]}", ["gpuTopology.groups[0].name"], id="slash"),
        pytest.param(
            "{name: a, gpus: [0, 1]}, {name: a, gpus: [2, 3]}",
            ["gpuTopology.groups[1].name"],
            id="name-twice",
        ),
        pytest.param(
            "{name: a, gpus: [0, 1]}, {name: b, gpus: [1, 0]}",
            ["gpuTopology.groups[1].gpus"],
            id="same-gpus-twice",
        ),
    ],
)
def test_a_group_that_cannot_be_is_refused_with_the_path(group, paths):
    cards = ", ".join(
        f"{{index: {i}, uuid: GPU-{i}, product: H100, memory: 80Gi}}" for i in range(4)
    )
    text = f"profiles: [{ONE}, {TWO}]\ngpuTopology: {{groups: [{group}]}}\ngpus: [{cards}]"
    assert faults(text) == paths


def test_a_card_that_may_have_fallen_off_is_no_fault_of_the_file():
    text = f"profiles: [{TWO}]\ngpuTopology: {{groups: [{{name: far, gpus: [0, 7]}}]}}"
    assert load_profiles(text).listed == {"far": (0, 7)}


def test_every_fault_is_named_at_once():
    text = """
profiles:
  - {name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 0}
  - {name: b, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 3}
  - {name: b, resource: kyb.ai/gpu-4x-seat, groupSize: 4, seatsPerGroup: 3}
  - {name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 1.5, seatsPerGroup: 3}
extra: 1
gpuTopology: {groups: [{name: G01, gpus: [0, 9]}, {gpus: []}]}
gpus:
  - {index: 0, uuid: GPU-a, product: H100, memory: 80Qi, links: {5: NV4, 0: PIX}}
  - {index: 0, uuid: GPU-b, product: H100, memory: 0}
  - {index: 1, product: H100, memory: 80Gi}
"""
    assert sorted(faults(text)) == sorted(
        [
            "profiles[0].seatsPerGroup", "profiles[2].name", "extra",
            "profiles[3].name", "profiles[3].resource", "profiles[3].groupSize",
            "gpuTopology.groups[0].name", "gpuTopology.groups[0].gpus[1]",
            "gpuTopology.groups[1].name", "gpuTopology.groups[1].gpus",
            "gpus[0].memory", "gpus[0].links.5", "gpus[0].links.0", "gpus[1].index",
            "gpus[1].memory", "gpus[2].uuid",
        ]
    )  # fmt: skip


def test_a_fault_says_what_would_be_right():
    with pytest.raises(Malformed, match=r"seatsPerGroup: 0 \(expected a whole number of seats"):
        load_profiles(f"profiles: [{ONE.replace('4', '0')}]")


def test_simulated_cards_need_no_uuid_of_their_own():
    text = "gpus: [{index: 0, product: L4, memory: 24Gi}, {index: 1, product: L4, memory: 24Gi}]"
    cards = load_inventory(text, name="node-a")
    assert cards == load_inventory(text, name="node-a")
    assert len({card.uuid for card in (*cards, *load_inventory(text, name="node-b"))}) == 4


def test_an_inventory_without_cards_is_refused():
    with pytest.raises(Malformed, match="gpus"):
        load_inventory("profiles: []", name="n")
