"""Now and then the leader has an agent collect the object store; whoever cannot, says so."""

from collections.abc import Iterator
from typing import Any

import pytest

from controller.emptying import AGAIN, FIRST, Emptying, Terms
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.copies import Collected
from kybernate.clients.events import EventRecorder
from kybernate.clients.resources import EVENTS
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.metrics import Metrics
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

DAY, GRACE = 86_400.0, 7200.0


class Agents:
    """What each answers; what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.says: dict[str, Exception | list[Collected]] = {
            "node-a": AgentRefused("this agent was given no store"),
            "node-b": AgentAway("it does not answer"),
            "node-c": [Collected(domain="default", named=5)],
            "node-d": [],
        }

    def collect(self, node: str, grace: float) -> Iterator[Collected]:
        self.asked.append((node, grace))
        said = self.says[node]
        if isinstance(said, Exception):
            raise said
        yield from said


class Scene:
    def __init__(self, every: float = DAY) -> None:
        self.agents, self.clock, self.kube = Agents(), FakeClock(), FakeKube()
        self.recorder = EventRecorder(self.kube, "kyb.ai/controller", "me", SystemClock())
        terms, nodes = Terms(every=every, grace=GRACE), self.agents.says
        self.part = Emptying(self.clock, terms, self.agents, lambda: nodes, self.recorder)
        self.part.duty._queue = object()  # type: ignore[assignment]  # we lead

    def look(self, after: float) -> float | None:
        self.clock.advance(after)
        return self.part.look("store")

    def told(self) -> list[dict[str, Any]]:
        assert self.recorder.flush(30)
        return self.kube.list(EVENTS)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.recorder.stop()


def test_the_first_agent_that_can_does_it_once_in_a_while(scene: Scene) -> None:
    assert scene.look(0) == FIRST
    assert scene.agents.asked == []
    assert scene.look(FIRST) == DAY
    assert scene.agents.asked == [(f"node-{one}", GRACE) for one in "abc"]
    assert scene.look(DAY - 1) == 1
    assert len(scene.agents.asked) == 3
    assert scene.look(1) == DAY
    assert len(scene.agents.asked) == 6
    assert scene.told() == []  # nothing went


def test_where_nobody_can_it_is_tried_again_sooner(scene: Scene) -> None:
    scene.agents.says = {"node-a": AgentRefused("no store")}
    scene.part._nodes = lambda: scene.agents.says
    scene.look(0)
    assert scene.look(FIRST) == AGAIN
    assert "kyb_controller_store_collected_at 0.0" in measured(scene)


def test_never_is_never() -> None:
    never = Scene(every=0)
    assert never.look(1e9) is None
    assert never.agents.asked == []
    never.recorder.stop()


def test_what_went_and_what_was_left_alone_is_told(scene: Scene) -> None:
    scene.agents.says["node-c"] = [
        Collected(domain="default", gone=3, size=96 << 20),
        Collected(domain="team", alone="manifests/team/x: it is not signed"),
    ]
    scene.look(0)
    scene.look(FIRST)
    first, second = sorted(scene.told(), key=lambda one: str(one["reason"]))
    assert (first["reason"], first["type"]) == ("StoreCollected", "Normal")
    assert first["note"] == "3 packs that nothing names went from the object store: 96 MiB"
    assert first["regarding"]["kind"] == "GpuNode"
    assert first["regarding"]["name"] == "node-c"
    assert (second["reason"], second["type"]) == ("StoreLeftAlone", "Warning")
    assert "team: manifests/team/x: it is not signed" in second["note"]
    found = measured(scene)
    assert "kyb_controller_store_freed_packs 3.0" in found
    (freed,) = [one for one in found.splitlines() if one.startswith("kyb_controller_store_freed_b")]
    assert float(freed.split()[1]) == 96 << 20
    assert "kyb_controller_store_domains_left_alone 1.0" in found


def test_who_leads_no_more_ends_it(scene: Scene) -> None:
    scene.part.duty._queue = None
    scene.look(0)
    assert scene.look(FIRST) == DAY  # node-d has nothing to tell
    assert scene.told() == []


def measured(scene: Scene) -> str:
    metrics = Metrics()
    scene.part.measure(metrics)
    return metrics.text().decode()
