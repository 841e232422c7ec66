"""The agent's metrics: switches by outcome, seconds by phase, who is in which state."""

from collections.abc import Callable

from kybernate.model.workload import State
from kybernate.runtime.metrics import Metrics
from nodeagent.lives.feed import Update
from nodeagent.lives.phases import UNACCOUNTED
from nodeagent.turns.coordinator import Coordinator


class Measures:
    """Attached to the feed; gauges read the coordinator."""

    def __init__(self, metrics: Metrics, coordinator: Coordinator) -> None:
        self._ended = metrics.counter(
            "agent_stories", "Starts, parks and resumes that ended.", ["state", "outcome"]
        )
        self._seconds = metrics.histogram(
            "agent_phase_seconds", "Seconds of each phase of a switch.", ["phase"]
        )
        self._bytes = metrics.counter("agent_moved_bytes", "VRAM contents moved.", ["phase"])
        for state in State:
            metrics.observed(
                f"agent_workloads_{state.value.lower()}",
                f"Workloads that are {state.value}.",
                _count(coordinator, state),
            )
        metrics.observed(
            "agent_decision_passes", "How often it was decided.", lambda: float(coordinator.passes)
        )

    def put(self, update: Update) -> None:
        """From the feed."""
        ended = update.ended
        if ended is None:
            return
        outcome = "ok" if ended.ok else (ended.reason.name.lower() if ended.reason else "failed")
        self._ended.labels(update.state.value, outcome).inc()
        for phase in ended.phases:
            if phase.name != UNACCOUNTED or phase.seconds > 0:
                self._seconds.labels(phase.name).observe(phase.seconds)
            if phase.size:
                self._bytes.labels(phase.name).inc(phase.size)


def _count(coordinator: Coordinator, state: State) -> Callable[[], float]:
    def count() -> float:
        return float(sum(1 for t in coordinator.books.tenancies.values() if t.state is state))

    return count
