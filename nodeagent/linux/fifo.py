"""
Letting a held container go: its first process waits in `open` of the exec FIFO for a reader.

As `runc start` does: open for reading, take what the process writes there, remove the FIFO.
"""

import os
import select
from contextlib import suppress
from pathlib import Path

from kybernate.clients.errors import Retry
from nodeagent.linux import processes


class NotReleased(Retry):
    """Nobody came to the FIFO in time."""


# How often it is looked whether the process still lives while nobody comes to the FIFO.
_LOOK_S = 0.25


def let_go(path: Path, pid: int, limit: float) -> None:
    """Returns when the process goes on, or went on before. Raises NotReleased after `limit` s."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return  # released before: whoever did removed it
    try:
        _await_writer(descriptor, pid, limit)
    finally:
        os.close(descriptor)
    with suppress(FileNotFoundError):
        path.unlink()


def _await_writer(descriptor: int, pid: int, limit: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    for _ in range(max(1, round(limit / _LOOK_S))):
        if poll.poll(_LOOK_S * 1000):
            with suppress(BlockingIOError):
                os.read(descriptor, 64)
            return
        if processes.started(pid) is None:
            raise NotReleased("the held process is gone")
    raise NotReleased(f"nobody came to the exec FIFO within {limit:.0f} s")
