"""What all signals together say, and what activators tell. Pure, but for a clock that is set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.decisions.asking import joined
from kybernate.model.demand import SILENT, Demand
from kybernate.testing.clock import FakeClock
from nodeagent.demand.told import MOST_REPORTERS, Told, TooManyReporters

demands = st.builds(
    Demand,
    wanted=st.booleans(),
    busy=st.booleans(),
    in_flight=st.none() | st.integers(0, 9),
    idle_for=st.none() | st.floats(0, 1e6),
    why=st.sampled_from(["", "a", "b"]),
    doubt=st.booleans(),
)


@given(st.lists(demands, max_size=6), st.randoms())
def test_the_order_of_signals_does_not_matter_nor_does_silence(said, dice) -> None:
    shuffled = [*said, SILENT]
    dice.shuffle(shuffled)
    assert joined(shuffled) == joined(said)


@given(st.lists(demands, max_size=6))
def test_one_signal_is_enough_to_be_wanted_or_busy_and_nobody_busy_is_idle(said) -> None:
    all_ = joined(said)
    assert all_.wanted == any(one.wanted for one in said)
    assert all_.busy == any(one.busy for one in said)
    if all_.busy:
        assert all_.idle_for == 0.0
    assert all(
        (all_.idle_for or 0.0) <= one.idle_for for one in said if one.idle_for is not None
    ), "never idle for longer than the last sign of life"
    assert (all_.in_flight is None) == all(one.in_flight is None for one in said)
    if any(one.doubt for one in said) and not all_.busy:
        assert all_.idle_for is None, "who should know cannot be asked: nobody calls it idle"


@given(st.lists(demands, max_size=6), demands)
def test_joining_again_changes_nothing_that_is_counted(said, more) -> None:
    at_once, in_steps = joined([*said, more]), joined([joined(said), more])
    assert (at_once.wanted, at_once.busy) == (in_steps.wanted, in_steps.busy)
    assert (at_once.in_flight, at_once.idle_for) == (in_steps.in_flight, in_steps.idle_for)


def test_requests_in_several_activators_are_added_up_until_their_reports_are_old(a_life) -> None:
    clock, life = FakeClock(), a_life("a")
    told = Told(clock)
    assert told.read(life) == SILENT
    told.report("one", {life.key: (None, 2)}, 10.0)
    told.report("two", {life.key: (life.record.uid, 1)}, 20.0)
    assert told.read(life).in_flight == 3
    assert told.read(life).why == "3 requests came through an activator"
    told.report("one", {life.key: (None, 0)}, 10.0)
    assert told.read(life).in_flight == 1
    clock.advance(15.0)
    assert told.read(life).wanted, "the second's word holds still"
    clock.advance(10.0)
    assert told.read(life) == SILENT


def test_requests_for_another_pod_of_the_name_are_not_counted(a_life) -> None:
    told, life = Told(FakeClock()), a_life("a")
    told.report("one", {life.key: ("another", 5)}, 10.0)
    assert told.read(life) == SILENT


def test_a_crowd_of_reporters_is_refused() -> None:
    told = Told(FakeClock())
    for number in range(MOST_REPORTERS):
        told.report(f"r{number}", {}, 10.0)
    told.report("r0", {}, 10.0)
    with pytest.raises(TooManyReporters):
        told.report("one more", {}, 10.0)
