"""
Whether somebody asks for a workload, and whether it works: signals behind one port.

Read by `watch`, which joins them (`decisions.asking.joined`) and tells the coordinator. Rules:
1. A signal that cannot tell says so by what it leaves out; it never guesses.
2. Reading is quick, changes nothing, and a fault in one signal must not silence the others.
"""

from typing import Protocol

from kybernate.model.demand import Demand
from nodeagent.lives.life import Life


class Signal(Protocol):
    """One source. `name` is for people and metrics."""

    name: str

    def read(self, life: Life) -> Demand:
        """What it knows of this workload now."""
