"""The guests' counts as a signal. Faked: the guests, time."""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.model.demand import SILENT
from kybernate.testing.clock import FakeClock
from nodeagent.demand.calls import Submitted
from nodeagent.lives.life import Life
from nodeagent.mechanisms import guestwire
from nodeagent.mechanisms.guestwire import Answer, Calls, Verb


class Guests:
    """What they tell."""

    def __init__(self) -> None:
        self.told: tuple[Calls, ...] | None = ()
        self.clock = FakeClock()
        self.signal = Submitted(lambda _: True, lambda _: self.told, self.clock)


@pytest.fixture
def guests() -> Guests:
    return Guests()


def test_calls_since_the_last_look_are_work(a_life: Callable[..., Life], guests: Guests) -> None:
    life = a_life("a")

    def after(seconds: float, *told: Calls) -> Any:
        guests.clock.advance(seconds)
        guests.told = told
        return guests.signal.read(life)

    assert after(0.0, Calls(100, 0)).busy, "nobody knows how long ago they were"
    assert after(4.0, Calls(100, 0)).idle_for == pytest.approx(4.0)
    assert after(1.0, Calls(101, 0)).busy
    assert after(3.0, Calls(101, 1)).busy, "a call that is under way is work"
    assert after(3.0, Calls(101, 0), Calls(5, 0)).busy, "a second process began"
    assert after(9.0, Calls(101, 0), Calls(5, 0)).idle_for == pytest.approx(9.0)


def test_who_cannot_tell_says_nothing(a_life: Callable[..., Life], guests: Guests) -> None:
    guests.told = None
    assert guests.signal.read(a_life("a")) == SILENT
    guests.told = ()
    assert guests.signal.read(a_life("a")) == SILENT


@pytest.mark.parametrize(
    ("why", "calls"),
    [
        ("12 calls, 1 inside", Calls(12, 1)),
        ("", None),
        ("12 calls", None),
        ("-1 calls, 0 inside", None),
        ("9" * 40 + " calls, 0 inside", None),
    ],
)
def test_only_a_count_is_a_count(why: str, calls: Calls | None) -> None:
    answer = Answer(
        verb=Verb.LEFT, status=0, count=0, total=0, epoch=0, closed=False, nonce=b"", why=why
    )
    assert guestwire.calls(answer) == calls
