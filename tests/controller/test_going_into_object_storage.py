"""A CheckpointPolicy's `tiers.objectAfter`: what is due goes into object storage, by who can."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from controller.carriers import Carrier
from controller.cooling import REFUSED, Cooling
from controller.storing import Asks, StoreRoom, Unlimited
from kybernate.api import names, timestamps
from kybernate.clients.agents import AgentRefused
from kybernate.clients.copies import Moved, Told
from kybernate.clients.events import EventRecorder
from kybernate.clients.reflector import Key
from kybernate.clients.resources import CHECKPOINTPOLICIES, EVENTS, GPUCHECKPOINTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.storelimits import StoreLimits
from kybernate.runtime.clock import SystemClock
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy

Wait = Callable[..., Any]
GIB = 1 << 30
SEALED_AT = 1_700_000_000


class Agents(Carrier):
    """Those in `without` have no store."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube, self.asked = kube, list[tuple[str, str]]()
        self.without: set[str] = set()
        self.part: Any = None

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        self.asked.append((one.name, node))
        if node in self.without:
            raise AgentRefused("this agent was given no store")
        told(0, one.size, 1.0)
        copies = [{"node": node, "tier": "nvme"}, {"tier": "object"}]
        self.kube.patch(
            GPUCHECKPOINTS, one.name, {"status": {"copies": copies}}, one.namespace,
            subresource="status",
        )  # fmt: skip
        return Moved(size=40 * GIB, seconds=80.0, put=2 * GIB)


def checkpoint(name: str, *nodes: str, app: str = "llama", at: int = SEALED_AT) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {
            "sizeBytes": 40 * GIB,
            "sealedAt": timestamps.rfc3339(at),
            "signature": f"ed25519:aa:{name}",
            "copies": [{"node": node, "tier": "nvme"} for node in nodes],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Sealed"}],
        },
    }


def policy(after: str | None, app: str = "llama", name: str = "safe") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CheckpointPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "tiers": {"objectAfter": after} if after else {},
        },
    }


def stored(kube: FakeKube, name: str) -> bool:
    copies = kube.get(GPUCHECKPOINTS, name, "default")["status"]["copies"]
    return {"tier": "object"} in copies


@pytest.fixture
def leading(running: Wait) -> Callable[..., Any]:
    """`with leading(kube, clock) as agents: ...`: a leader at work."""

    @contextmanager
    def run(
        kube: FakeKube, clock: FakeClock, *without: str, policy: Asks | None = None
    ) -> Iterator[Agents]:
        agents = Agents(kube)
        agents.without = set(without)
        events = EventRecorder(kube, "kyb.ai/controller", "test", SystemClock())

        def known() -> Mapping[Key, Checkpoint] | None:
            return agents.part.checkpoints()

        room = StoreRoom(agents, policy or Unlimited(), known, clock)
        agents.part = Cooling(kube, clock, room, events)
        with running(agents.part):
            yield agents
            assert events.flush(30)
        events.stop()

    return run


def test_what_is_due_goes_and_what_is_not_waits(leading: Wait, eventually: Wait) -> None:
    clock = FakeClock(SEALED_AT + 3600.0)
    kube = FakeKube(
        checkpoint("due", "node-a"),
        checkpoint("later", "node-a", at=SEALED_AT + 1800),
        checkpoint("others", "node-a", app="other"),
        policy("1h"),
    )
    with leading(kube, clock) as agents:
        eventually(lambda: stored(kube, "due"))
        assert agents.part.look(("default", "later")) == 1800.0
        assert agents.part.look(("default", "others")) is None
        assert not stored(kube, "later")
        clock.advance(1800.0)
        assert agents.part.look(("default", "later")) is None
        assert stored(kube, "later")
        assert set(agents.asked) == {("due", "node-a"), ("later", "node-a")}
    notes = sorted(event["note"] for event in kube.list(EVENTS))
    assert notes[0] == (
        "copy in object storage from node-a: 40.0 GiB in 80.0 s, 2.0 GiB of them new there"
    )


def test_of_several_policies_the_earliest_counts_and_none_asks_for_nothing(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(SEALED_AT + 120.0)
    kube = FakeKube(checkpoint("one", "node-a"), policy("24h"), policy(None, name="quiet"))
    with leading(kube, clock) as agents:
        eventually(lambda: not agents.asked)
        kube.create(CHECKPOINTPOLICIES, policy("1m", name="soon"), "default")
        eventually(lambda: stored(kube, "one"))


def test_an_agent_that_can_is_found_and_where_none_can_an_event_says_so(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(SEALED_AT + 3600.0)
    kube = FakeKube(checkpoint("one", "node-a", "node-b"), policy("1h"))
    with leading(kube, clock, "node-a") as agents:
        eventually(lambda: stored(kube, "one"))
        assert agents.asked == [("one", "node-a"), ("one", "node-b")]
    kube = FakeKube(checkpoint("one", "node-a"), policy("1h"))
    with leading(kube, clock, "node-a") as agents:
        eventually(lambda: agents.asked)
        assert agents.part.look(("default", "one")) == REFUSED
        agents.without = set()
        assert agents.part.look(("default", "one")) is None
        assert stored(kube, "one")
    reasons = {event["reason"] for event in kube.list(EVENTS)}
    assert reasons == {"DemoteFailed", "Demoted"}


def test_a_full_store_takes_no_more_an_event_says_so_and_room_is_used_when_there_is_some(
    leading: Wait, eventually: Wait
) -> None:
    clock, policy_ = FakeClock(SEALED_AT + 3600.0), FakePolicy()
    policy_.store = StoreLimits(whole=100 * GIB)
    kube = FakeKube(
        checkpoint("a", "node-a"), checkpoint("b", "node-a"), policy("1h"),
        checkpoint("c", "node-a", "node-b", app="other"),
    )  # fmt: skip
    with leading(kube, clock, policy=policy_) as agents:
        eventually(lambda: stored(kube, "a") and stored(kube, "b"))
        kube.create(CHECKPOINTPOLICIES, policy("1h", app="other", name="also"), "default")
        eventually(lambda: agents.part.look(("default", "c")) == REFUSED)
        assert not stored(kube, "c")
        assert ("c", "node-a") not in agents.asked
        policy_.store = StoreLimits(whole=120 * GIB)
        assert agents.part.look(("default", "c")) is None
        assert stored(kube, "c")
    [full] = {e["note"] for e in kube.list(EVENTS) if e["reason"] == "DemoteFailed"}
    assert full == (
        "not in object storage yet: no room in object storage: it keeps 80.0 of 100.0 GiB, and c "
        "has 40.0 GiB"
    )
