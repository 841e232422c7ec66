"""
What is counted: requests by the tier their model came from, how long they waited, what was refused.

Called by: `queues`, `desk`; read by `view` and /metrics. In one thread, the loop's.
"""

from collections import Counter, deque

from activator.models import TIERS
from activator.page import Board
from kybernate.runtime.metrics import Metrics

_LAST = 2048  # waits that percentiles are of


class Figures:
    """The counts of one activator since it started."""

    def __init__(self, metrics: Metrics, board: Board) -> None:
        self.board = board
        self.tiers: Counter[str] = Counter(dict.fromkeys(TIERS, 0))
        self.refusals: Counter[str] = Counter()
        self.waits: deque[float] = deque(maxlen=_LAST)
        self.seconds: deque[float] = deque(maxlen=_LAST)
        self.left = 0
        self.wakes = 0
        self.wakes_failed = 0
        self._requests = metrics.counter(
            "activator_requests", "Requests answered, by the tier their model was in", ("tier",)
        )
        self._by_tier = {tier: self._requests.labels(tier) for tier in TIERS}
        self._waited = metrics.histogram("activator_waited_seconds", "Held for a model")
        self._refused = metrics.counter(
            "activator_refused", "Requests answered by us, by status", ("status",)
        )

    def answered(self, model: str, tier: str, waited: float, seconds: float) -> None:
        """One request has its answer from its model."""
        self.board.answered(model)
        self.tiers[tier] += 1
        self.waits.append(waited)
        self.seconds.append(seconds)
        self._by_tier[tier].inc()
        self._waited.observe(waited)

    def refused(self, status: str) -> None:
        """One request was answered by us."""
        self.refusals[status] += 1
        self._refused.labels(status).inc()


def percentiles(values: "deque[float]") -> dict[str, float]:
    """p50, p95, p99 and the longest of the last ones, in seconds."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "longest": 0.0}
    last = len(ordered) - 1
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}
    found = {name: round(ordered[round(last * part)], 6) for name, part in parts.items()}
    return {"count": len(ordered), **found}
