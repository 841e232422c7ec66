"""
Verdicts kept while the policies that gave them are known to be in force.

Used by: `clients/opa.py`, for placement. Rule 1: a verdict is valid for the revision it came with.
Rule 2: somebody must have seen that revision lately, or a changed policy would never be noticed;
so at most one question a `fresh_s` goes to OPA for the sake of asking.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from kybernate.model.ids import NO_REVISION, Revision

V = TypeVar("V")


class Answers(Generic[V]):
    """The latest verdicts by question, the least used leaving first. Thread safe."""

    def __init__(self, fresh_s: float, limit: int, monotonic: Callable[[], float]) -> None:
        self._fresh_s = fresh_s
        self._limit = limit
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._revision = NO_REVISION
        self._seen_at = 0.0
        self._verdicts: OrderedDict[bytes, V] = OrderedDict()

    def get(self, question: bytes) -> V | None:
        """The verdict, where it still holds."""
        with self._lock:
            if self._monotonic() - self._seen_at > self._fresh_s:
                return None
            if question in self._verdicts:
                self._verdicts.move_to_end(question)
            return self._verdicts.get(question)

    def seen(self, revision: Revision) -> None:
        """Some answer came from this revision; verdicts of another one are forgotten."""
        with self._lock:
            if revision != self._revision:
                self._verdicts.clear()
            self._revision = revision
            self._seen_at = self._monotonic()

    def keep(self, question: bytes, verdict: V, revision: Revision) -> None:
        """Remember a verdict; one without a revision could never be seen to have changed."""
        with self._lock:
            if revision == self._revision != NO_REVISION:
                self._verdicts[question] = verdict
                self._verdicts.move_to_end(question)
                while len(self._verdicts) > self._limit:
                    self._verdicts.popitem(last=False)

    def forget(self) -> None:
        """Nobody knows what is in force any more."""
        with self._lock:
            self._verdicts.clear()
