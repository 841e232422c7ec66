"""What is put into an outbox is delivered, or counted as dropped."""

import threading
from typing import Any

import pytest

from kybernate.clients.backoff import Backoff, Pace
from kybernate.clients.errors import Unavailable
from kybernate.clients.outbox import NotYet, Outbox, Patience
from kybernate.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def away() -> Unavailable:
    return Unavailable(0, "Network", "away")


def test_items_are_delivered_in_order(clock: FakeClock) -> None:
    got: list[int] = []
    outbox = Outbox("test", clock, got.append)
    for item in range(100):
        outbox.put(item)
    assert outbox.flush(10)
    outbox.stop()
    assert got == list(range(100))
    assert (outbox.delivered, outbox.dropped) == (100, 0)


def test_an_outage_holds_everything_up_in_order(clock: FakeClock, until: Any) -> None:
    got: list[int] = []
    failures = [away() for _ in range(5)]

    def deliver(item: int) -> None:
        if failures:
            raise failures.pop()
        got.append(item)

    outbox = Outbox("test", clock, deliver)
    outbox.put(1)
    outbox.put(2)
    until(lambda: clock.advance(10.0) or outbox.flush(0.01))
    outbox.stop()
    assert got == [1, 2]


def test_an_item_that_is_not_yet_deliverable_lets_others_pass(clock: FakeClock, until: Any) -> None:
    got: list[int] = []
    ready = threading.Event()

    def deliver(item: int) -> None:
        if item == 1 and not ready.is_set():
            raise NotYet("wait")
        got.append(item)

    outbox = Outbox("test", clock, deliver)
    for item in (1, 2, 3):
        outbox.put(item)
    until(lambda: got == [2, 3])
    ready.set()
    until(lambda: clock.advance(1.0) or outbox.flush(0.01))
    outbox.stop()
    assert got == [2, 3, 1]


def test_what_grows_too_old_is_lost_and_said(clock: FakeClock, until: Any) -> None:
    lost: list[int] = []

    def deliver(_: int) -> None:
        raise away()

    outbox = Outbox("test", clock, deliver, lost=lost.append, patience=Patience(seconds=60.0))
    outbox.put(1)
    until(lambda: clock.advance(10.0) or bool(lost))
    outbox.stop()
    assert (lost, outbox.dropped) == ([1], 1)


def test_what_does_not_fit_is_lost_at_once(clock: FakeClock) -> None:
    lost: list[int] = []
    hold = threading.Event()
    outbox: Outbox[int] = Outbox(
        "test", clock, lambda _: hold.wait(10) and None, lost=lost.append, patience=Patience(size=2)
    )
    for item in range(5):
        outbox.put(item)
    assert len(lost) >= 2
    hold.set()
    outbox.stop()
    assert outbox.delivered + outbox.dropped == 5


def test_a_bug_in_delivery_drops_one_item(clock: FakeClock) -> None:
    got: list[int] = []

    def deliver(item: int) -> None:
        if item == 1:
            raise ZeroDivisionError
        got.append(item)

    outbox = Outbox("test", clock, deliver)
    outbox.put(1)
    outbox.put(2)
    assert outbox.flush(10)
    outbox.stop()
    assert (got, outbox.dropped) == ([2], 1)


def test_after_its_end_nothing_is_taken(clock: FakeClock) -> None:
    outbox: Outbox[int] = Outbox("test", clock, lambda _: None)
    outbox.put(1)
    outbox.stop()
    outbox.put(2)
    assert (outbox.delivered, outbox.dropped) == (1, 1)


def test_one_that_was_never_used_has_no_thread(clock: FakeClock) -> None:
    outbox: Outbox[int] = Outbox("never-used", clock, lambda _: None)
    outbox.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "never-used"]


def test_pauses_double_up_to_their_longest_and_start_again() -> None:
    backoff = Backoff(Pace(first=1.0, longest=8.0))
    for whole in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert whole / 2 <= backoff.next() <= whole
    assert backoff.next(at_least=100.0) == 100.0
    backoff.reset()
    assert backoff.next() <= 1.0
    for _ in range(2000):
        assert backoff.next() <= 8.0
