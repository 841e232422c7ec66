"""The agent's metrics: switches by outcome, seconds by phase, who is in which state."""

from collections.abc import Callable, Mapping

from kybernate.model.tier import Room, Tier
from kybernate.model.workload import State
from kybernate.runtime.metrics import Metrics
from nodeagent.lives.feed import Update
from nodeagent.lives.phases import UNACCOUNTED
from nodeagent.turns.coordinator import Coordinator


class Measures:
    """Attached to the feed; gauges read the coordinator."""

    def __init__(
        self,
        metrics: Metrics,
        coordinator: Coordinator,
        rooms: Callable[[], Mapping[Tier, Room]] = dict,
    ) -> None:
        self._ended = metrics.counter(
            "agent_stories", "Starts, parks and resumes that ended.", ["state", "outcome"]
        )
        self._seconds = metrics.histogram(
            "agent_phase_seconds", "Seconds of each phase of a switch.", ["phase"]
        )
        self._bytes = metrics.counter("agent_moved_bytes", "VRAM contents moved.", ["phase"])
        self._moves = metrics.counter(
            "agent_tier_moves", "Demotions and promotions that ended.", ["to", "outcome"]
        )
        self._moved = metrics.counter(
            "agent_tier_moved_bytes", "VRAM contents demoted and promoted.", ["to"]
        )
        self._move_seconds = metrics.histogram(
            "agent_tier_move_seconds", "Seconds of a demotion or promotion.", ["to"]
        )
        for state in State:
            metrics.observed(
                f"agent_workloads_{state.value.lower()}",
                f"Workloads that are {state.value}.",
                _count(coordinator, state),
            )
        for tier in rooms():
            metrics.observed(
                f"agent_tier_{tier}_used_bytes",
                f"VRAM contents of parked workloads in the tier {tier}.",
                _used(rooms, tier),
            )
            metrics.observed(
                f"agent_tier_{tier}_capacity_bytes",
                f"VRAM contents that the tier {tier} may hold.",
                _capacity(rooms, tier),
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

    def moved(self, to: Tier, outcome: str, size: int, seconds: float) -> None:
        """From the tiering: one move ended."""
        self._moves.labels(to.value, outcome).inc()
        self._moved.labels(to.value).inc(size)
        self._move_seconds.labels(to.value).observe(seconds)


def _count(coordinator: Coordinator, state: State) -> Callable[[], float]:
    def count() -> float:
        return float(sum(1 for t in coordinator.books.tenancies.values() if t.state is state))

    return count


def _used(rooms: Callable[[], Mapping[Tier, Room]], tier: Tier) -> Callable[[], float]:
    return lambda: float(rooms().get(tier, Room(capacity=0)).used)


def _capacity(rooms: Callable[[], Mapping[Tier, Room]], tier: Tier) -> Callable[[], float]:
    return lambda: float(rooms().get(tier, Room(capacity=0)).capacity)
