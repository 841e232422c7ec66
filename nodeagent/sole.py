"""
One agent at a time over a state folder: two would end and undo each other's stories.

Called by `__main__`, before anything is read or recovered. The kernel gives the lock back however
its holder ends; one that is still ending its switches is waited for.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kybernate.runtime.logs import get_logger

LOCK = "agent.lock"
_AGAIN_S = 0.1  # how long after the one before has gone the next begins


@contextmanager
def sole(folder: Path, stop: threading.Event) -> Iterator[bool]:
    """Within, nobody else is the agent of this folder. False when stopped before. Raises OSError
    where the folder cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _taken(descriptor, folder, stop)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, folder: Path, stop: threading.Event) -> bool:
    said = False
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                get_logger(folder=str(folder)).warning("another agent runs here; it is waited for")
            said = True
            stop.wait(_AGAIN_S)
        else:
            return True
    return False
