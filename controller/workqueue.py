"""Keys that need a look, each worked on by one thread at a time, and again later when that failed.

Level-based: an entry says *that* something may differ, never what; the work looks at the present
state. A key added while it is worked on is worked on again afterwards, so no change is missed, and
ten changes of one object cost one or two looks.
"""

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from kybernate.runtime.clock import Clock

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE = 0.1  # seconds after the first failure; doubled each time
LONGEST_PAUSE = 60.0  # often enough that a cured fault is gone within a minute


class WorkQueue(Generic[K]):
    """A set of due keys, and of keys that become due. Thread safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready = threading.Condition()
        self._due: dict[K, None] = {}  # insertion order, each key once
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []  # a heap; entries that `_at` denies are dead
        self._at: dict[K, float] = {}  # one future look for each key, so that looks never multiply
        self._tie = itertools.count()
        self._failures: dict[K, int] = {}
        self._closed = False

    def add(self, key: K) -> None:
        """Look at this key soon."""
        with self._ready:
            self._enqueue(key)
            self._ready.notify()

    def add_after(self, key: K, seconds: float) -> None:
        """Look at this key in some seconds; an earlier look stays."""
        at = self._clock.monotonic() + seconds
        with self._ready:
            if at < self._at.get(key, math.inf):
                self._at[key] = at
                heapq.heappush(self._later, (at, next(self._tie), key))
                self._ready.notify()

    def failed(self, key: K) -> float:
        """The look failed: look again after a pause that doubles. Returns the pause in seconds."""
        with self._ready:
            count = self._failures[key] = self._failures.get(key, 0) + 1
        # the exponent is bounded because a key may fail for weeks
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count - 1, 32))
        self.add_after(key, pause)
        return pause

    def succeeded(self, key: K) -> None:
        """The look succeeded: the next failure starts with the first pause again."""
        with self._ready:
            self._failures.pop(key, None)

    def take(self) -> K | None:
        """The next due key, waiting for one; None once the queue is closed. Give it to `done`."""
        with self._ready:
            while not self._closed:
                pause = self._move_due()
                if self._due:
                    key = next(iter(self._due))
                    del self._due[key]
                    self._running.add(key)
                    return key
                self._ready.wait(pause)
            return None

    def done(self, key: K) -> None:
        """The look at this key is over."""
        with self._ready:
            self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._due[key] = None
                self._ready.notify()

    def close(self) -> None:
        """Let every `take` return None."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def __len__(self) -> int:
        with self._ready:
            return len(self._due) + len(self._at)

    def _enqueue(self, key: K) -> None:
        if key in self._running:
            self._again.add(key)
        else:
            self._due[key] = None

    def _move_due(self) -> float | None:
        """Move what became due; seconds until the next one does, None where there is none."""
        now = self._clock.monotonic()
        while self._later:
            at, _, key = self._later[0]
            if self._at.get(key) != at:
                heapq.heappop(self._later)
            elif at > now:
                return at - now
            else:
                heapq.heappop(self._later)
                del self._at[key]
                self._enqueue(key)
        return None


def work(
    queue: WorkQueue[K],
    look: Callable[[K], float | None],
    troubled: Callable[[K, Exception, float], None],
) -> None:
    """Look at keys until the queue is closed.

    `look` returns the seconds after which to look again, None where only a change calls for it.
    What it raises goes to `troubled` with the pause until the next try: one broken object must not
    stop the work on all others.
    """
    while (key := queue.take()) is not None:
        try:
            again = look(key)
            queue.succeeded(key)
            if again is not None:
                queue.add_after(key, again)
        except Exception as trouble:
            troubled(key, trouble, queue.failed(key))
        finally:
            queue.done(key)
