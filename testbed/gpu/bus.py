"""
How long a copy takes: one lane per card and direction, shared by all who copy.

Called by: `device`, once per chunk, before it counts as moved.
Rule: bytes are those of the pretended card. A lane is never faster than its rate, whatever the
number of copies; a copy that is late by a little catches up, so that it takes the bus's time and
not the bus's time plus the noise of this machine.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# What a copy may catch up, seconds: some rounds of a busy scheduler, too little to fake a rate.
SLACK_S = 0.1


@dataclass
class Lane:
    """One direction of one card's bus. Thread safe."""

    bytes_per_second: float
    monotonic: Callable[[], float] = time.monotonic
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def book(self, size: int, after: float) -> float:
        """Take the lane for `size` bytes; the moment it is done with them.

        `after` is when the same copy's last bytes were done, or its start.
        """
        with self._lock:
            start = max(self._free_at, after, self.monotonic() - SLACK_S)
            self._free_at = start + size / self.bytes_per_second
            return self._free_at


class Transfer:
    """One copy on a lane. `wait` pauses for seconds and returns True when it was woken early."""

    def __init__(self, lane: Lane, wait: Callable[[float], bool]) -> None:
        self._lane = lane
        self._wait = wait
        self._done_at = lane.monotonic()

    def move(self, size: int) -> bool:
        """Be `size` bytes further when this returns. False when the copy was given up meanwhile."""
        self._done_at = self._lane.book(size, self._done_at)
        seconds = self._done_at - self._lane.monotonic()
        return not self._wait(max(0.0, seconds))
