"""What only the leader does: threads that look at keys from a queue, for as long as it leads.

A duty is told of keys that may differ at any time, leader or not. When it starts it looks at all
keys, because somebody else led before.
"""

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from controller import workqueue
from controller.workqueue import WorkQueue
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, Conflict, NotFound, Retry
from kybernate.runtime.logs import get_logger

K = TypeVar("K", bound=Hashable)

# Longer than any look takes, but for one that follows an agent or a hung request: these end by
# themselves, and do no harm when they do.
_JOIN_S = 5.0


class Duty(Generic[K]):
    """One kind of work. `start` and `stop` may alternate, as leadership does."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        look: Callable[[K], float | None],
        keys: Callable[[], Iterable[K]],
        threads: int = 1,
    ) -> None:
        self.name = name
        self._clock, self._look, self._keys = clock, look, keys
        self._count = threads
        self.observe: Callable[[str, str], None] = lambda _duty, _outcome: None
        """Called after each look with our name and `done` or `failed`, for metrics."""
        self._queue: WorkQueue[K] | None = None
        self._threads: list[threading.Thread] = []
        self._log = get_logger(duty=name)

    @property
    def pending(self) -> int:
        """Keys that wait for a look, now or later; 0 while we do not lead."""
        queue = self._queue
        return 0 if queue is None else len(queue)

    @property
    def started(self) -> bool:
        """Whether we lead: a look that takes long stops when this ends."""
        return self._queue is not None

    def touch(self, key: K) -> None:
        """Look at this key soon, if we lead."""
        queue = self._queue
        if queue is not None:
            queue.add(key)

    def start(self) -> None:
        """Look at every key, then at those that are touched. Returns at once."""
        queue = self._queue = WorkQueue[K](self._clock)
        self._threads = [
            threading.Thread(target=self._work, args=(queue,), name=f"{self.name}-{n}", daemon=True)
            for n in range(self._count)
        ]
        for key in self._keys():
            queue.add(key)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no further look, and wait for those under way, all together for a few seconds."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.close()
        deadline = self._clock.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    def _work(self, queue: WorkQueue[K]) -> None:
        workqueue.work(queue, self._looked, self._troubled)

    def _looked(self, key: K) -> float | None:
        again = self._look(key)
        self.observe(self.name, "done")
        return again

    def _troubled(self, key: K, trouble: Exception, pause: float) -> None:
        self.observe(self.name, "failed")
        fields = {"key": str(key), "detail": str(trouble), "retry_seconds": round(pause, 3)}
        if isinstance(trouble, Conflict | AlreadyExists | NotFound):
            self._log.info("somebody else was faster", **fields)
        elif isinstance(trouble, Retry):
            self._log.warning("not now", **fields)
        else:
            self._log.error("this key fails", exc_info=trouble, **fields)
