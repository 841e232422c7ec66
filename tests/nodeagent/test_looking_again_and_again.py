"""What looks from a thread of its own goes on, also after a fault, until it is stopped."""

import threading
from collections.abc import Iterator

import pytest

from kybernate.runtime.clock import SystemClock
from nodeagent.looking import Looking


class Looks:
    """Counts itself; every second look fails."""

    def __init__(self) -> None:
        self.count = 0
        self.enough = threading.Event()

    def __call__(self) -> float:
        self.count += 1
        if self.count >= 6:
            self.enough.set()
        if self.count % 2:
            raise RuntimeError("a fault")
        return 0.0


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def looking(looks: Looks) -> Iterator[Looking]:
    made = Looking("looks", looks, SystemClock(), after_fault=0.0)
    yield made
    made.stop()


def test_it_goes_on_after_a_fault(looks: Looks, looking: Looking) -> None:
    looking.start()
    assert looks.enough.wait(60)


def test_nothing_is_looked_at_once_it_was_stopped(looks: Looks, looking: Looking) -> None:
    looking.start()
    assert looks.enough.wait(60)
    looking.stop()
    before = looks.count
    assert not [one for one in threading.enumerate() if one.name == "looks"]
    assert looks.count == before


def test_stopping_one_that_never_began_is_fine(looking: Looking) -> None:
    looking.stop()
