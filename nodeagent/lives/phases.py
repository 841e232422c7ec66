"""Where a switch's time went, by phase, with the rest that no phase accounts for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kybernate.clients.clock import Clock

UNACCOUNTED = "unaccounted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """One phase: seconds, and bytes of the card moved in it."""

    name: str
    seconds: float
    size: int = 0


class Stopwatch:
    """Times the phases of one story. A phase that comes twice is added up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._phases: dict[str, PhaseTime] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator["Stopwatch"]:
        """Time what is done inside, also when it fails."""
        began = self._clock.monotonic()
        try:
            yield self
        finally:
            self.add(name, self._clock.monotonic() - began)

    def add(self, name: str, seconds: float, size: int = 0) -> None:
        """Seconds or bytes more for a phase."""
        so_far = self._phases.get(name, PhaseTime(name=name, seconds=0.0))
        self._phases[name] = PhaseTime(
            name=name, seconds=so_far.seconds + seconds, size=so_far.size + size
        )

    def part(self, of: str, name: str, seconds: float) -> None:
        """So much of a phase was this one, over the same bytes; at most all of it."""
        whole = self._phases.get(of, PhaseTime(name=of, seconds=0.0))
        inside = min(seconds, whole.seconds)
        self._phases[of] = PhaseTime(name=of, seconds=whole.seconds - inside, size=whole.size)
        self.add(name, inside, whole.size)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock.monotonic() - self._began

    def of(self, name: str) -> PhaseTime | None:
        """One phase so far."""
        return self._phases.get(name)

    def phases(self) -> tuple[PhaseTime, ...]:
        """All phases in order, then the rest."""
        rest = max(0.0, self.seconds - sum(p.seconds for p in self._phases.values()))
        return (*self._phases.values(), PhaseTime(name=UNACCOUNTED, seconds=rest))
