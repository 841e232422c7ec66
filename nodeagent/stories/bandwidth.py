"""
How fast bytes move between tiers, measured on the agent's own copies.

Called by the switches after every copy, read by whoever estimates. The newest copy counts a
quarter: after about eight copies nothing of a wrong first value is left, and one disturbed copy
does not throw the estimate over.
"""

import threading
from dataclasses import dataclass, field

from kybernate.model.tier import Bandwidth, Tier

NEWEST_COUNTS = 0.25
# What a first measurement may be off by; a probe is small and nothing else runs.
FIRST_SPREAD = 0.25
# Shorter copies measure latency, not the bus.
SMALLEST = 64 * 2**20


@dataclass(slots=True)
class _Average:
    rate: float
    spread: float = FIRST_SPREAD

    def take(self, rate: float) -> None:
        off = abs(rate - self.rate) / self.rate
        self.spread += NEWEST_COUNTS * (off - self.spread)
        self.rate += NEWEST_COUNTS * (rate - self.rate)


@dataclass(slots=True)
class Bandwidths:
    """By tier: from it to the next hotter one. Thread safe."""

    _averages: dict[Tier, _Average] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def measured(self, tier: Tier, size: int, seconds: float) -> None:
        """A copy of `size` bytes took so long."""
        if size < SMALLEST or seconds <= 0.0:
            return
        with self._lock:
            rate = size / seconds
            known = self._averages.get(tier)
            if known is None:
                self._averages[tier] = _Average(rate)
            else:
                known.take(rate)

    def all(self) -> dict[Tier, Bandwidth]:
        """What is known so far."""
        with self._lock:
            return {
                tier: Bandwidth(bytes_per_second=one.rate, spread=one.spread)
                for tier, one in self._averages.items()
            }

    def bus(self) -> Bandwidth | None:
        """RAM to VRAM and back."""
        return self.all().get(Tier.RAM)
