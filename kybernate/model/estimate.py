"""Estimates: seconds until running, itemised."""

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What the seconds are spent on, in the order it happens."""

    WAIT = "wait"  # for the holder's minimum runtime
    PARK = "park"  # the holder
    FETCH = "fetch"  # contents up to RAM, of a checkpoint or of one that was demoted
    RESUME = "resume"  # RAM to VRAM
    COLD = "cold start"  # where there is nothing to resume from


@dataclass(frozen=True, slots=True)
class Item:
    """One step's seconds. `what` names its object: `llama-b`, `nvme 40 GiB`."""

    step: Step
    seconds: float
    what: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.step, self.what, f"{self.seconds:.1f}") if part)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds until running, and how far off that may be (`spread`, seconds)."""

    items: tuple[Item, ...]
    spread: float = 0.0

    @property
    def seconds(self) -> float:
        """The sum of the items."""
        return sum(item.seconds for item in self.items)

    def __str__(self) -> str:
        parts = " + ".join(str(item) for item in self.items if item.seconds >= 0.05)
        return f"{self.seconds:.1f} s" + (f" = {parts}" if parts else "")
