"""
Waiting, and running a part of the controller on an API server in memory.

Faked: the API server, the clock where a test says so. Real: watches, queues, threads.
Rule: no test sleeps for a fixed time; it looks again until a deadline.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`eventually(check)` answers the first true answer of `check`, or fails after `within` s."""

    def wait(check: Callable[[], T], within: float = 60.0) -> T:
        pause = threading.Event()
        deadline = time.monotonic() + within
        while not (answer := check()):
            assert time.monotonic() < deadline, f"not within {within:g} s"
            pause.wait(0.01)
        return answer

    return wait


@pytest.fixture
def running() -> Callable[..., Any]:
    """`with running(part): ...` starts its watches, waits for their lists, then its duty."""

    @contextmanager
    def run(part: Any) -> Iterator[Any]:
        for watch in part.watches:
            watch.start()
        assert all(watch.wait_synced(10) for watch in part.watches)
        part.duty.start()
        yield part
        part.duty.stop()
        for watch in part.watches:
            watch.stop()

    return run
