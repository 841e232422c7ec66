"""
When a number that only counts up last moved, and how fast it goes. Pure: times are given.

Used by: the signals of steps and of calls into the driver.
"""

from dataclasses import dataclass, field

_WEIGHT = 0.3  # of the newest gap in the usual one


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """`usual` is seconds for one more, None before it ever moved under our eyes."""

    count: float
    moved_at: float
    usual: float | None = None

    def seen(self, count: float, now: float) -> "Lately":
        """After one more look. One that went back is of a program that began anew: it moved."""
        if count == self.count:
            return self
        gap = (now - self.moved_at) / max(1.0, count - self.count)
        usual = gap if self.usual is None else self.usual + _WEIGHT * (gap - self.usual)
        return Lately(count=count, moved_at=now, usual=usual)

    def still_for(self, now: float) -> float:
        """Seconds since it moved, or since it was first seen."""
        return max(0.0, now - self.moved_at)


@dataclass(slots=True)
class Counts:
    """One such number of each life, by its id."""

    _lately: dict[str, Lately] = field(default_factory=dict)

    def seen(self, life_id: str, count: float, now: float) -> Lately:
        """After one more look at this one."""
        before = self._lately.get(life_id, Lately(count=count, moved_at=now))
        self._lately[life_id] = before.seen(count, now)
        return self._lately[life_id]

    def forget(self, life_ids: set[str]) -> None:
        """Keep only these."""
        self._lately = {one: kept for one, kept in self._lately.items() if one in life_ids}
