"""Small values: seats, keys, estimates, groups, and what they print."""

import pytest

from kybernate.model.estimate import Estimate, Item, Step
from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName, WorkloadKey
from kybernate.model.tier import Bandwidth, Room
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.builders import GIB, SEAT_1X, a_group, a_node


def test_a_seat_is_written_as_the_kubelet_knows_it_and_read_back() -> None:
    seat = Seat(GroupName("G01"), 2)
    assert seat.id == "G01/2"
    assert Seat.parse(seat.id) == seat


@pytest.mark.parametrize("text", ["", "G01", "/2", "G01/", "G01/x", "G01/-1"])
def test_anything_else_is_no_seat(text: str) -> None:
    with pytest.raises(ValueError, match="like G01/2"):
        Seat.parse(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [("team/a", WorkloadKey("team", "a")), ("a", WorkloadKey("default", "a"))],
)
def test_a_key_is_namespace_and_name(text: str, key: WorkloadKey) -> None:
    assert WorkloadKey.parse(text) == key
    assert WorkloadKey.parse(str(key)) == key


def test_an_estimate_is_the_sum_of_its_items_and_says_so() -> None:
    estimate = Estimate(
        (
            Item(Step.PARK, 1.2, "llama-b"),
            Item(Step.FETCH, 2.1, "nvme 40 GiB"),
            Item(Step.RESUME, 0.8),
            Item(Step.WAIT, 0.01),
        )
    )
    assert estimate.seconds == pytest.approx(4.11)
    assert str(estimate) == "4.1 s = park llama-b 1.2 + fetch nvme 40 GiB 2.1 + resume 0.8"


def test_an_estimate_of_nothing_is_zero_seconds() -> None:
    assert str(Estimate(())) == "0.0 s"


def test_groups_overlap_when_they_share_a_card() -> None:
    assert a_group(0, 1).overlaps(a_group(1, 2))
    assert not a_group(0).overlaps(a_group(1))


def test_a_group_has_the_seats_of_its_profile() -> None:
    assert [seat.id for seat in a_group(0, 1, seats=3).seats()] == ["G01/0", "G01/1", "G01/2"]


def test_a_node_finds_groups_by_what_they_give_out() -> None:
    node = a_node(groups=[a_group(1), a_group(0), a_group(0, 1)])
    assert [group.name for group in node.groups_of(SEAT_1X)] == ["G0", "G1"]


def test_room_is_never_negative() -> None:
    assert Room(capacity=10, used=3).free == 7
    assert Room(capacity=10, used=30).free == 0


def test_seconds_are_bytes_over_rate() -> None:
    assert Bandwidth(bytes_per_second=2 * GIB).seconds(40 * GIB) == 20.0


def test_a_refusal_is_its_constant_reason_with_the_numbers_after_it() -> None:
    assert str(Refusal(reason=Reason.PROTECTED)) == "policy protects the holder"
    detailed = Refusal(reason=Reason.VRAM_TOO_SMALL, detail="90 GiB of 80 GiB")
    assert str(detailed).endswith(": 90 GiB of 80 GiB")


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_hold_no_number_because_every_new_text_requeues_the_pod(reason: Reason) -> None:
    assert not any(character.isdigit() for character in reason)
