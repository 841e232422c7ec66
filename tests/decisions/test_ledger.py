"""Bytes on the cards: what is booked, what is left, who fits."""

from typing import Any

import pytest

from kybernate.decisions.ledger import Ledger, too_many
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group, Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from kybernate.testing.builders import GIB, a_group

CARDS = {0: 80 * GIB, 1: 80 * GIB}


def _tenancy(name: str, group: Group, vram: int, state: State, **fields: Any) -> Tenancy:
    return Tenancy(
        key=WorkloadKey("default", name), uid=PodUid(name), group=group,
        seat=Seat(group.name, 0), vram=vram * GIB, state=state, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "booked"),
    [
        pytest.param(State.WAITING, 0, id="waiting"),
        pytest.param(State.ACTIVATING, 40, id="on its way in"),
        pytest.param(State.ACTIVE, 40, id="active"),
        pytest.param(State.PARKING, 40, id="on its way out"),
        pytest.param(State.PARKED, 1, id="parked, with its residue"),
        pytest.param(State.QUARANTINED, 0, id="quarantined and off the card"),
    ],
)
def test_a_state_entitles_to_bytes(state: State, booked: int) -> None:
    tenancy = _tenancy("a", a_group(0), 40, state, residue=GIB)
    assert Ledger(memory=CARDS, tenancies=(tenancy,)).booked(0) == booked * GIB


def test_a_group_of_two_books_half_on_each_card() -> None:
    tenancy = _tenancy("a", a_group(0, 1), 81, State.ACTIVE)
    ledger = Ledger(memory=CARDS, tenancies=(tenancy,))
    assert ledger.booked(0) == ledger.booked(1) == 81 * GIB // 2


def test_who_holds_more_than_it_asked_for_is_booked_for_what_it_holds() -> None:
    tenancy = _tenancy("a", a_group(0), 40, State.ACTIVE, held={0: 50 * GIB})
    assert Ledger(memory=CARDS, tenancies=(tenancy,)).free(0) == 30 * GIB


def test_bytes_of_a_quarantined_workload_stay_booked_where_they_are_seen() -> None:
    tenancy = _tenancy("a", a_group(0), 40, State.QUARANTINED, held={0: 10 * GIB})
    assert Ledger(memory=CARDS, tenancies=(tenancy,)).free(0) == 70 * GIB


def test_foreign_bytes_are_nobodys_to_give() -> None:
    ledger = Ledger(memory=CARDS, foreign={0: 50 * GIB})
    refusal = ledger.room_for(_tenancy("a", a_group(0), 40, State.WAITING))
    assert refusal is not None
    assert refusal.reason is Reason.VRAM_NOT_FREE
    assert refusal.detail == "GPU 0 has 30.0 GiB left, 40.0 GiB are needed"


def test_a_parked_holders_residue_stays_in_the_way() -> None:
    holder = _tenancy("a", a_group(0), 60, State.ACTIVE, residue=GIB)
    ledger = Ledger(memory=CARDS, tenancies=(holder,))
    whole = _tenancy("b", a_group(0), 80, State.WAITING)
    assert ledger.without([holder.key]).room_for(whole) is not None
    assert (
        ledger.without([holder.key]).room_for(_tenancy("c", a_group(0), 79, State.WAITING)) is None
    )


def test_its_own_bytes_are_never_in_its_way() -> None:
    tenancy = _tenancy("a", a_group(0), 80, State.PARKED, residue=GIB)
    assert Ledger(memory=CARDS, tenancies=(tenancy,)).room_for(tenancy) is None


def test_overlapping_groups_share_a_gpu_only_if_both_allow_more_than_one() -> None:
    generous, strict = a_group(0, active=2), a_group(0, 1)
    there = _tenancy("a", generous, 10, State.ACTIVE)
    assert not too_many([there], _tenancy("b", generous, 10, State.WAITING))
    assert too_many([there], _tenancy("c", strict, 10, State.WAITING))
