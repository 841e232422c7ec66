"""Groups are formed by nearness, replaced by listed ones, and the same wherever they are formed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.decisions import grouping
from kybernate.model.gpu import Gpu, Health, Profile
from kybernate.model.topology import NODE, PIX, SYS, group_name, link_word, nvlink, parse_link


def profile(size, seats=2):
    return Profile(
        name=f"p{size}", resource=f"kyb.ai/gpu-{size}x-seat", group_size=size, seats_per_group=seats
    )


def gpus(count, links=(), **more):
    """`links`: (one, other, rank) triples."""
    near = {i: {} for i in range(count)}
    for one, other, rank in links:
        near[one][other] = near[other][one] = rank
    return [
        Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80, links=near[i], **more)
        for i in range(count)
    ]


def names(groups):
    return [group.name for group in groups]


def test_without_links_neighbours_by_index_go_together():
    found = grouping.groups_of([profile(4), profile(1), profile(2)], gpus(4))
    assert names(found) == ["G0", "G1", "G2", "G3", "G01", "G23", "G0123"]
    assert found[-1].vram == 320


def test_the_nearest_go_together():
    near = [(0, 2, nvlink(4)), (1, 3, nvlink(4)), (0, 1, PIX)]
    assert names(grouping.groups_of([profile(2)], gpus(4, near))) == ["G02", "G13"]


def test_the_best_sum_wins_over_the_best_pair():
    near = [(1, 2, nvlink(4)), (0, 1, nvlink(3)), (2, 3, nvlink(3))]
    assert names(grouping.groups_of([profile(2)], gpus(4, near))) == ["G01", "G23"]


def test_one_numa_node_decides_between_equals():
    cards = [
        Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80, numa=numa)
        for i, numa in enumerate([0, 1, 0, 1])
    ]
    assert names(grouping.groups_of([profile(2)], cards)) == ["G02", "G13"]


def test_the_far_one_is_left_out_where_not_all_fit():
    near = [(1, 2, nvlink(2))]
    assert names(grouping.groups_of([profile(2)], gpus(3, near))) == ["G12"]


def test_too_few_gpus_make_no_group_of_that_size():
    assert names(grouping.groups_of([profile(1), profile(2)], gpus(1))) == ["G0"]


def test_listed_groups_replace_the_formed_ones_of_their_size_only():
    listed = {"mine": (0, 3)}
    found = grouping.groups_of([profile(1), profile(2)], gpus(4), listed)
    assert names(found) == ["G0", "G1", "G2", "G3", "mine"]
    assert found[-1].gpus == (0, 3)


def test_seats_are_numbered_within_their_group():
    (group,) = grouping.groups_of([profile(2, seats=3)], gpus(2))
    assert [seat.id for seat in group.seats()] == ["G01/0", "G01/1", "G01/2"]


@pytest.mark.parametrize(
    ("indices", "name"),
    [
        pytest.param([1, 0], "G01", id="sorted"),
        pytest.param([12], "G-12", id="two-digits"),
        pytest.param([1, 2], "G12", id="pair"),
        pytest.param([8, 10], "G-8-10", id="mixed"),
    ],
)
def test_a_group_is_named_for_its_gpus(indices, name):
    assert group_name(indices) == name


@given(st.sets(st.frozensets(st.integers(0, 20), min_size=1, max_size=4), max_size=30))
def test_no_two_groups_share_a_name(sets):
    assert len({group_name(one) for one in sets}) == len(sets)


@st.composite
def nodes(draw):
    count = draw(st.integers(1, 8))
    pairs = [(a, b) for a in range(count) for b in range(a)]
    ranks = st.sampled_from([SYS, NODE, PIX, nvlink(1), nvlink(4)])
    return gpus(count, [(a, b, draw(ranks)) for a, b in pairs])


@given(nodes(), st.integers(1, 4))
def test_formed_groups_are_disjoint_and_as_many_as_fit(cards, size):
    found = grouping.groups_of([profile(size)], cards)
    used = [index for group in found for index in group.gpus]
    assert len(used) == len(set(used)) == (len(cards) // size) * size
    assert found == grouping.groups_of([profile(size)], list(reversed(cards)))


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        pytest.param([Health.HEALTHY, Health.HEALTHY], Health.HEALTHY, id="well"),
        pytest.param([Health.HEALTHY, Health.UNKNOWN], Health.UNKNOWN, id="unknown"),
        pytest.param([Health.UNKNOWN, Health.UNHEALTHY], Health.UNHEALTHY, id="sick"),
        pytest.param([Health.HEALTHY], Health.UNKNOWN, id="absent"),
    ],
)
def test_a_group_is_as_well_as_its_sickest_gpu(healths, expected):
    (group,) = grouping.groups_of([profile(2)], gpus(2))
    seen = [
        Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=80, health=health)
        for i, health in enumerate(healths)
    ]
    assert grouping.group_health(group, seen) is expected


def test_the_topology_reads_as_nvidia_smi_prints_it():
    cards = gpus(2, [(0, 1, nvlink(4))], numa=1)
    groups = grouping.groups_of([profile(1), profile(2)], cards)
    assert grouping.topology_table(cards, groups).splitlines() == [
        "      GPU0  GPU1  NUMA  Groups",
        "GPU0  X     NV4   1     G0 G01",
        "GPU1  NV4   X     1     G1 G01",
    ]


@pytest.mark.parametrize("word", ["NV1", "NV18", "PIX", "PXB", "PHB", "NODE", "SYS"])
def test_a_link_is_read_as_it_is_written(word):
    assert link_word(parse_link(word)) == word


@pytest.mark.parametrize("word", ["NV0", "NV", "", "pix", "NV-1"])
def test_an_unknown_link_is_refused(word):
    with pytest.raises(ValueError, match="NV1"):
        parse_link(word)
