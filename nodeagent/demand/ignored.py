"""
Whose connections say nothing, by policy's data; asked for again and again, for data changes.

Read by `sockets`. Rule: while policy is away, what it said last holds; before it ever answered,
nobody is ignored, so that nobody waits in vain.
"""

from kybernate.clients.clock import Clock
from kybernate.clients.policy import Policy
from kybernate.model.callers import NOBODY, Callers
from kybernate.model.verdict import Refusal
from nodeagent.looking import Looking

_EVERY_S = 5.0


class Ignored:
    """`start` and `stop` once each."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._known = NOBODY
        self._looking = Looking("ignored callers", self._ask, clock, _EVERY_S)

    def start(self) -> None:
        """Begin; returns at once."""
        self._looking.start()

    def stop(self) -> None:
        """End."""
        self._looking.stop()

    def callers(self) -> Callers:
        """As policy said last."""
        return self._known

    def _ask(self) -> float:
        answer = self._policy.ignored_callers()
        if not isinstance(answer, Refusal):
            self._known = answer
        return _EVERY_S
