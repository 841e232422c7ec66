"""The life of a workload: every state is in the table, every pair moves or raises."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.decisions.lifecycle import TRANSITIONS, Happening, IllegalTransition, after
from kybernate.model.workload import State

PAIRS = [
    pytest.param(state, happening, id=f"{state}-{happening}".replace(" ", "-"))
    for state in State
    for happening in Happening
]


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_happening_is_in_the_table() -> None:
    assert {happening for row in TRANSITIONS.values() for happening in row} == set(Happening)


@pytest.mark.parametrize(("state", "happening"), PAIRS)
def test_every_pair_moves_or_raises(state: State, happening: Happening) -> None:
    if happening in TRANSITIONS[state]:
        assert after(state, happening) is TRANSITIONS[state][happening]
    else:
        with pytest.raises(IllegalTransition) as caught:
            after(state, happening)
        assert (caught.value.state, caught.value.happening) == (state, happening)
        assert state in str(caught.value)


def test_every_life_can_end() -> None:
    for state in State:
        if state is not State.ABSENT:
            assert after(state, Happening.GONE) is State.ABSENT


def test_every_state_is_reached_from_the_beginning() -> None:
    assert _reached_from(State.ABSENT) == set(State)


def test_only_an_end_leads_out_of_quarantine() -> None:
    assert set(TRANSITIONS[State.QUARANTINED]) == {Happening.GONE}


def test_nothing_becomes_active_without_being_granted_the_gpu() -> None:
    """ACTIVATING is the only way in, save for a park that was undone, or never begun."""
    ways = {
        (state, happening)
        for state, row in TRANSITIONS.items()
        for happening, to in row.items()
        if to is State.ACTIVE
    }
    assert ways == {
        (State.ACTIVATING, Happening.RUNS),
        (State.PARKING, Happening.PARK_FAILED),
        (State.PARKING, Happening.KEPT),
    }
    granted = {state for state, row in TRANSITIONS.items() if Happening.GRANTED in row}
    assert granted == {State.WAITING, State.PARKED}


@pytest.mark.parametrize(
    ("state", "happening", "ends"),
    [
        (State.ACTIVATING, Happening.ACTIVATION_FAILED, State.PARKED),
        (State.ACTIVATING, Happening.START_FAILED, State.WAITING),
        (State.PARKING, Happening.PARK_FAILED, State.ACTIVE),
        (State.SEALING, Happening.SEAL_FAILED, State.PARKED),
        (State.WAKING, Happening.WAKE_FAILED, State.WAITING),
    ],
)
def test_a_failure_goes_back_to_where_the_contents_are_whole(
    state: State, happening: Happening, ends: State
) -> None:
    assert after(state, happening) is ends


@pytest.mark.parametrize(
    ("story", "ends"),
    [
        pytest.param("started granted runs park parked granted runs", State.ACTIVE, id="a-switch"),
        pytest.param("wake woken granted runs", State.ACTIVE, id="woken-elsewhere"),
        pytest.param("wake wake-failed granted runs gone", State.ABSENT, id="cold-after-all"),
        pytest.param(
            "started granted runs park parked seal sealed gone", State.ABSENT, id="sealed"
        ),
        pytest.param("started granted lost gone", State.ABSENT, id="lost"),
    ],
)
def test_ordinary_lives(story: str, ends: State) -> None:
    state = State.ABSENT
    for word in story.split():
        state = after(state, Happening(word.replace("-", " ")))
    assert state is ends


@given(st.lists(st.sampled_from(Happening)))
def test_whatever_happens_the_state_is_one_of_the_table(happenings: list[Happening]) -> None:
    state = State.ABSENT
    for happening in happenings:
        try:
            state = after(state, happening)
        except IllegalTransition:
            continue
    assert state in TRANSITIONS


def _reached_from(start: State) -> set[State]:
    seen, fresh = {start}, [start]
    while fresh:
        following: Iterable[State] = TRANSITIONS[fresh.pop()].values()
        for state in following:
            if state not in seen:
                seen.add(state)
                fresh.append(state)
    return seen
