"""
Noticing the end of a process at once, whoever its parent is: one thread polls pidfds.

Called by containers and recovery. An end that the runtime tells too is noticed twice, which is
fine: whoever is told must not mind.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

from kybernate.runtime.logs import get_logger
from nodeagent.linux.processes import is_same

Ended = Callable[[], None]
# pidfd_open needs Linux 5.3; without it the process is looked at this often.
_LOOK_S = 1.0


class Lifelines:
    """Thread safe. `start` once."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._ends: dict[int, Ended] = {}
        self._looked_at: dict[tuple[int, int], Ended] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._poll.register(self._wake_read, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="lifelines", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End. Nobody is told any more."""
        self._stopping.set()
        self._nudge()
        if self._thread.is_alive():
            self._thread.join()
        for descriptor in self._ends:
            os.close(descriptor)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def watch(self, pid: int, started: int, ended: Ended) -> None:
        """Call `ended` once, in the watching thread, when that very process has ended."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            descriptor = -1
        if not is_same(pid, started):
            if descriptor >= 0:
                os.close(descriptor)
            ended()
            return
        with self._lock:
            if descriptor >= 0:
                self._ends[descriptor] = ended
                self._poll.register(descriptor, select.POLLIN)
            else:
                self._looked_at[pid, started] = ended
        self._nudge()

    def _nudge(self) -> None:
        with suppress(OSError):
            os.write(self._wake_write, b".")

    def _run(self) -> None:
        while not self._stopping.is_set():
            for descriptor, _ in self._poll.poll(_LOOK_S * 1000 if self._looked_at else None):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                else:
                    self._ended(descriptor)
            self._look()

    def _ended(self, descriptor: int) -> None:
        with self._lock:
            self._poll.unregister(descriptor)
            ended = self._ends.pop(descriptor)
        os.close(descriptor)
        _tell(ended)

    def _look(self) -> None:
        with self._lock:
            over = [one for one in self._looked_at if not is_same(*one)]
            ends = [self._looked_at.pop(one) for one in over]
        for ended in ends:
            _tell(ended)


def _tell(ended: Ended) -> None:
    """A fault of one listener must not keep the ends of all others from being heard."""
    try:
        ended()
    except Exception:
        get_logger().exception("an end was noticed and not taken in")
