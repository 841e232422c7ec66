"""
How long to wait before trying again: doubling, capped, with jitter so that many do not return at
once after an outage.
"""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of the first and of the longest pause."""

    first: float = 0.2
    longest: float = 30.0


@dataclass(slots=True)
class Backoff:
    """The pauses of one series of failures; `reset` ends the series."""

    pace: Pace = Pace()
    _failures: int = 0
    _random: random.Random = field(default_factory=random.Random)

    def next(self, at_least: float | None = None) -> float:
        """Seconds until the next try: between half and the whole of the doubled pause."""
        # 2**16 pauses are far beyond any cap; the exponent stays small for ever
        whole = min(self.pace.longest, self.pace.first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return max(whole * self._random.uniform(0.5, 1.0), at_least or 0.0)

    def reset(self) -> None:
        """It worked."""
        self._failures = 0
