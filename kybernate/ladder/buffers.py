"""
A few large pieces of memory, used again and again: what bounds a pipeline.

Called by: the pipelines here. Rule: whoever takes one gives it back; who finds none waits.
"""

import queue

from kybernate.ladder.progress import Course
from kybernate.stores.pages import taken

_LOOK_S = 0.2  # between two looks at whether to go on


class Buffers:
    """`count` of `size` bytes each, at addresses a disk can take them from."""

    def __init__(self, count: int, size: int) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(taken(size))

    def take(self, course: Course) -> memoryview:
        """Raises Ended."""
        while True:
            course.check()
            try:
                return self._free.get(timeout=_LOOK_S)
            except queue.Empty:
                continue

    def give(self, buffer: memoryview) -> None:
        """Back."""
        self._free.put(buffer)
