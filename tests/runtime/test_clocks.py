"""The fake clock moves only when told; the real one moves."""

import threading

import pytest

from kybernate.runtime.clock import Clock, SystemClock
from kybernate.testing.clock import FakeClock


def test_a_fake_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(now=100.0, skew=5.0)
    assert (clock.now(), clock.monotonic()) == (105.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (107.5, 2.5)


def test_whoever_waits_is_let_go_when_the_time_has_passed() -> None:
    clock, event = FakeClock(), threading.Event()
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(clock.wait(event, 10.0)))
    waiter.start()
    clock.wait_for_waiters()
    clock.advance(9.9)
    assert results == []
    clock.advance(0.1)
    waiter.join(10)
    assert results == [False]


def test_an_event_ends_the_wait() -> None:
    clock, event = FakeClock(), threading.Event()
    event.set()
    assert clock.wait(event, 10.0)


def test_nobody_waiting_is_said() -> None:
    with pytest.raises(TimeoutError, match="0 of 1 threads"):
        FakeClock().wait_for_waiters(timeout=0.01)


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["real", "fake"])
def test_both_are_clocks(clock: Clock) -> None:
    assert clock.monotonic() <= clock.monotonic()
    assert clock.now() > 1_600_000_000
    assert clock.wait(threading.Event(), 0.0) is False
