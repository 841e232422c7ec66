"""
What the extender's tests are made of.

Faked: the API server (changes are put into the view by hand), policy, the clock. Real: the view,
the decisions, the JSON. `tests/controlplane` has the real scheduler and API server.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from extender.metrics import ExtenderMetrics
from extender.placing import Options, Placement, Placing
from extender.service import Service
from extender.verdicts import NEUTRAL
from extender.view import View
from kybernate.model.ids import NodeName
from kybernate.model.node import NodeState
from kybernate.model.policy import NodeClass, PlacementVerdict
from kybernate.model.workload import Workload
from kybernate.testing.builders import a_node
from kybernate.testing.clock import FakeClock


@dataclass
class FixedJudge:
    """Policy that always says the same."""

    verdict: PlacementVerdict = NEUTRAL
    asked: int = 0

    def of(self, workload: Workload, classes: tuple[NodeClass, ...]) -> PlacementVerdict:
        self.asked += 1
        return self.verdict


@dataclass
class Told:
    """A recorder that only remembers."""

    placements: list[Placement] = field(default_factory=list)

    def decided(self, placement: Placement) -> None:
        self.placements.append(placement)


@dataclass
class Extender:
    """An extender without processes around it."""

    view: View = field(default_factory=View)
    judge: FixedJudge = field(default_factory=FixedJudge)
    clock: FakeClock = field(default_factory=FakeClock)
    told: Told = field(default_factory=Told)
    synced: bool = True
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        self.metrics = ExtenderMetrics()
        self.placing = Placing(self.view, self.judge, self.clock, self.options)
        self.service = Service(self.placing, self.told, self.metrics, lambda: self.synced)

    def with_nodes(self, *nodes: NodeState) -> "Extender":
        for node in nodes:
            self.view.put_state(node.name, node)
        return self

    def filter(self, workload: Workload, names: Sequence[str]) -> Placement:
        return self.placing.filter(workload, [NodeName(name) for name in names])


@pytest.fixture
def extender() -> Extender:
    """With nodes node-a and node-b, both empty."""
    return Extender().with_nodes(a_node("node-a"), a_node("node-b"))
