"""
Waiting, for the testbed's tests.

Rule: no test sleeps for a fixed time; it looks again until a deadline.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`eventually(check)` answers the first true answer of `check`, or fails after `within` s."""

    def wait(check: Callable[[], T], within: float = 60.0) -> T:
        pause = threading.Event()
        deadline = time.monotonic() + within
        while not (answer := check()):
            assert time.monotonic() < deadline, f"not within {within:g} s: {check}"
            pause.wait(0.02)
        return answer

    return wait
