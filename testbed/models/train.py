"""
A trainer: its step counter is in the card's memory, and at the end both must be right, the number
of steps and everything else in that memory.
"""

from collections.abc import Callable

from testbed.models.weights import Weights


def train(weights: Weights, steps: int, step_seconds: float, say: Callable[[str], None]) -> bool:
    """Go on from the step the card's memory says; whether all arrived whole at the end."""
    step = weights.counted()
    say(f"step {step}/{steps}")
    while step < steps:
        weights.busy(step_seconds)
        step = weights.count()
        say(f"step {step}/{steps}")
    intact = weights.intact()
    say(f"trained {step} steps, memory {'intact' if intact else 'DAMAGED'}")
    return intact and step == steps
