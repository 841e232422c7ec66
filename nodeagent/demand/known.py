"""
What policy's data says of demand: whose connections say nothing, what programs' numbers are called.
Asked for again and again, for data changes.

Read by `sockets` and `engine`. Rule: while policy is away, what it said last holds; before it ever
answered, `first`: nobody is ignored, so that nobody waits in vain.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from kybernate.clients.clock import Clock
from kybernate.model.verdict import Refusal
from nodeagent.looking import Looking

_EVERY_S = 5.0
T = TypeVar("T")


class Known(Generic[T]):
    """`start` and `stop` once each; `now` is what policy said last."""

    def __init__(self, name: str, ask: Callable[[], T | Refusal], first: T, clock: Clock) -> None:
        self._ask, self._known = ask, first
        self._looking = Looking(name, self._look, clock, _EVERY_S)

    def start(self) -> None:
        """Begin; returns at once."""
        self._looking.start()

    def stop(self) -> None:
        """End."""
        self._looking.stop()

    def now(self) -> T:
        """As policy said last."""
        return self._known

    def _look(self) -> float:
        answer = self._ask()
        if not isinstance(answer, Refusal):
            self._known = answer
        return _EVERY_S
