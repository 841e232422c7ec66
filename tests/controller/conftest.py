"""
Running a part of the controller on an API server in memory.

Faked: the API server, the clock where a test says so. Real: watches, queues, threads.
Rule: no test sleeps for a fixed time; it looks again until a deadline.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


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
