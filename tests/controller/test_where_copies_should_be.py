"""TierPlacements: copies come and go until they are where they should be; the last one stays."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import tier_plan
from controller.storing import StoreRoom
from controller.tier_plan import Bring, Copies, Demote, Remove, Rest, Withdraw
from controller.tiers import NotWanted, Tiers
from kybernate.api import names, timestamps
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.tierplacements import Others, Placed, TierPlacement, read_placement, write_status
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.copies import Moved, Told
from kybernate.clients.events import EventRecorder
from kybernate.clients.resources import EVENTS, GPUCHECKPOINTS, TIERPLACEMENTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.storelimits import NO_LIMITS, StoreLimits
from kybernate.model.tier import Tier
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_checkpoint
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy

Wait = Callable[..., Any]
GIB = 1 << 30


class Nodes:
    """The agents: a copy that comes or goes is written into the object, as agents do."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube, self.asked = kube, list[tuple[str, str]]()
        self.trouble: Exception | None = None
        self.without_store: set[str] = set()
        self.moving: Callable[[Told], None] = lambda _: None

    def bring(self, node: NodeName, one: Checkpoint, sources: Copies, told: Told) -> Moved:
        self.asked.append(("bring", node))
        self._trouble()
        self._write(one, {*one.copies, node}, one.in_object_storage)
        source = min(sources.nodes) if sources.nodes else "object"
        return Moved(size=40 * GIB, seconds=2.0, source=source)

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        self.asked.append(("demote", node))
        if node in self.without_store:
            raise AgentRefused("this agent was given no store for checkpoints")
        self._trouble()
        self.moving(told)
        self._write(one, set(one.copies), stored=True)
        return Moved(size=40 * GIB, seconds=80.0, put=2 * GIB)

    def withdraw(self, node: NodeName, one: Checkpoint) -> Moved:
        self.asked.append(("withdraw", node))
        self._trouble()
        self._write(one, set(one.copies), stored=False)
        return Moved(size=40 * GIB, seconds=0.1)

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        self.asked.append(("remove", node))
        self._trouble()
        self._write(one, set(one.copies) - {node}, one.in_object_storage)
        return Moved(size=40 * GIB, seconds=0.1)

    def _trouble(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _write(self, one: Checkpoint, nodes: set[NodeName], stored: bool) -> None:
        copies = [{"node": node, "tier": "nvme"} for node in sorted(nodes)]
        copies += [{"tier": "object"}] if stored else []
        self.kube.patch(
            GPUCHECKPOINTS, one.name, {"status": {"copies": copies}}, one.namespace,
            subresource="status",
        )  # fmt: skip


def checkpoint(*nodes: str, ready: str = "True") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": "llama-1", "namespace": "default"},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {
            "sizeBytes": 40 * GIB,
            "sealedAt": timestamps.rfc3339(1_700_000_000),
            "signature": "ed25519:aa:1",
            "copies": [_copy(node) for node in nodes],
            "conditions": [{"type": "Ready", "status": ready, "reason": "Sealed"}],
        },
    }


def _copy(node: str) -> dict[str, str]:
    return {"tier": "object"} if node == "object" else {"node": node, "tier": "nvme"}


def placement(*nodes: str, name: str = "warm", others: str = "Keep") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "TierPlacement",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "checkpoint": "llama-1",
            "copies": [_copy(node) for node in nodes],
            "others": others,
        },
    }


def told(kube: FakeKube, name: str = "warm") -> dict[str, Any]:
    status = kube.get(TIERPLACEMENTS, name, "default").get("status") or {}
    return (status.get("conditions") or [{}])[0]


def copies(kube: FakeKube) -> list[str]:
    status = kube.get(GPUCHECKPOINTS, "llama-1", "default")["status"]
    return [one.get("node") or one["tier"] for one in status["copies"]]


@pytest.fixture
def reconciled(running: Wait) -> Callable[..., Any]:
    """`with reconciled(kube) as nodes: ...`: a leader at work."""

    @contextmanager
    def run(kube: FakeKube, limits: StoreLimits = NO_LIMITS) -> Any:
        nodes, clock = Nodes(kube), SystemClock()
        events = EventRecorder(kube, "kyb.ai/controller", "test", clock)

        def known() -> dict[tuple[str, str], Checkpoint]:
            found = map(read_checkpoint, kube.list(GPUCHECKPOINTS))
            return {(one.namespace, one.name): one for one in found}

        room = StoreRoom(nodes, FakePolicy(store=limits), known, clock)
        with running(Tiers(kube, clock, room, events)):
            yield nodes
            assert events.flush(30)
        events.stop()

    return run


def test_a_copy_comes_where_one_should_be_and_an_event_says_so(
    reconciled: Wait, eventually: Wait
) -> None:
    kube = FakeKube(checkpoint("node-a"), placement("node-a", "node-b"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("status") == "True")
        assert copies(kube) == ["node-a", "node-b"]
        assert nodes.asked == [("bring", "node-b")]
    assert told(kube)["reason"] == "AsAsked"
    status = kube.get(TIERPLACEMENTS, "warm", "default")["status"]
    assert (status["wanted"], status["there"]) == (2, 2)
    [event] = kube.list(EVENTS)
    assert event["reason"] == "Promoted"
    assert event["note"] == "copy on node-b (nvme) from node-a: 40.0 GiB in 2.0 s"
    assert event["related"]["name"] == "llama-1"


def test_others_go_after_all_that_should_be_are_there(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a", "node-c"), placement("node-b", others="Remove"))
    with reconciled(kube) as nodes:
        eventually(lambda: copies(kube) == ["node-b"])
        eventually(lambda: told(kube).get("status") == "True")
        assert nodes.asked == [("bring", "node-b"), ("remove", "node-a"), ("remove", "node-c")]
    reasons = sorted(event["reason"] for event in kube.list(EVENTS))
    assert reasons == ["Demoted", "Demoted", "Promoted"]


def test_what_another_placement_asks_for_stays(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(
        checkpoint("node-a"),
        placement("node-b", others="Remove"),
        placement("node-a", name="also"),
    )
    with reconciled(kube):
        eventually(lambda: told(kube).get("status") == "True")
        eventually(lambda: told(kube, "also").get("status") == "True")
        assert copies(kube) == ["node-a", "node-b"]
        kube.delete(TIERPLACEMENTS, "also", "default")
        eventually(lambda: copies(kube) == ["node-b"])


def test_a_copy_that_is_lost_comes_again(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a", "node-b"), placement("node-b"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("status") == "True")
        lost = {"status": {"copies": [{"node": "node-a", "tier": "nvme"}]}}
        kube.patch(GPUCHECKPOINTS, "llama-1", lost, "default", subresource="status")
        eventually(lambda: copies(kube) == ["node-a", "node-b"])
        assert nodes.asked == [("bring", "node-b")]


def test_where_the_store_is_full_the_placement_and_one_event_say_so(
    reconciled: Wait, eventually: Wait
) -> None:
    kube = FakeKube(checkpoint("node-a"), placement("object", others="Remove"))
    limits = StoreLimits(whole=400 * GIB, default=100 * GIB, namespaces={"default": 39 * GIB})
    with reconciled(kube, limits) as nodes:
        eventually(lambda: told(kube).get("reason") == "StoreFull")
        assert nodes.asked == []
    assert told(kube)["message"] == (
        "the namespace's quota of object storage is used up: namespace default keeps 0.0 of 39.0 "
        "GiB, and llama-1 has 40.0 GiB"
    )
    assert copies(kube) == ["node-a"]
    [event] = kube.list(EVENTS)
    assert event["reason"] == "DemoteFailed"


def test_a_copy_comes_into_object_storage_before_one_goes(
    reconciled: Wait, eventually: Wait
) -> None:
    kube = FakeKube(checkpoint("node-a"), placement("object", others="Remove"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("status") == "True")
        assert copies(kube) == ["object"]
        assert nodes.asked == [("demote", "node-a"), ("remove", "node-a")]
    notes = sorted(event["note"] for event in kube.list(EVENTS))
    assert notes[0].startswith(
        "copy in object storage from node-a: 40.0 GiB in 80.0 s, 2.0 GiB of them new there"
    )
    status = kube.get(TIERPLACEMENTS, "warm", "default")["status"]
    assert (status["wanted"], status["there"]) == (1, 1)


def test_a_node_gets_its_copy_from_object_storage_where_no_node_has_one(
    reconciled: Wait, eventually: Wait
) -> None:
    kube = FakeKube(checkpoint("object"), placement("node-b"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("status") == "True")
        assert nodes.asked == [("bring", "node-b")]
        assert copies(kube) == ["node-b", "object"]
    [event] = kube.list(EVENTS)
    assert "from object storage" in event["note"]


def test_an_agent_without_a_store_is_passed_over(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a", "node-b"))
    with reconciled(kube) as nodes:
        nodes.without_store = {"node-a"}
        kube.create(TIERPLACEMENTS, placement("object"), "default")
        eventually(lambda: told(kube).get("status") == "True")
        assert nodes.asked == [("demote", "node-a"), ("demote", "node-b")]


def test_object_storage_lets_go_of_what_nobody_asks_for(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a", "object"), placement("node-a", others="Remove"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("status") == "True")
        assert nodes.asked == [("withdraw", "node-a")]
        assert copies(kube) == ["node-a"]


def test_how_far_it_is_stands_in_the_condition(
    reconciled: Wait, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.tiers.TOLD_EVERY", 0.0)
    go_on = threading.Event()

    def moving(said: Told) -> None:
        said(10 * GIB, 40 * GIB, 60.0)
        go_on.wait(30)

    kube = FakeKube(checkpoint("node-a"))
    with reconciled(kube) as nodes:
        nodes.moving = moving
        kube.create(TIERPLACEMENTS, placement("object"), "default")
        eventually(lambda: "25 %, 60 s left" in told(kube).get("message", ""))
        go_on.set()
        eventually(lambda: told(kube).get("status") == "True")


def test_what_nobody_asks_for_any_more_is_called_off(reconciled: Wait, eventually: Wait) -> None:
    ended = threading.Event()

    def moving(said: Told) -> None:
        while True:
            try:
                said(10 * GIB, 40 * GIB, 60.0)
            except NotWanted:
                ended.set()
                raise

    kube = FakeKube(checkpoint("node-a"))
    with reconciled(kube) as nodes:
        nodes.moving = moving
        kube.create(TIERPLACEMENTS, placement("object"), "default")
        eventually(lambda: nodes.asked)
        kube.delete(TIERPLACEMENTS, "warm", "default")
        eventually(ended.is_set)
    assert copies(kube) == ["node-a"]


def test_what_an_agent_refuses_is_said(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a"))
    with reconciled(kube) as nodes:
        nodes.trouble = AgentRefused("FAILED_PRECONDITION: 40 GiB needed, 1 GiB left of the limit")
        kube.create(TIERPLACEMENTS, placement("node-b"), "default")
        eventually(lambda: told(kube).get("reason") == "AgentRefused")
    assert "node-b: FAILED_PRECONDITION: 40 GiB needed, 1 GiB left" in told(kube)["message"]
    assert copies(kube) == ["node-a"]


def test_an_agent_that_is_away_is_asked_again(reconciled: Wait, eventually: Wait) -> None:
    kube = FakeKube(checkpoint("node-a"))
    with reconciled(kube) as nodes:
        nodes.trouble = AgentAway("no agent has reported from node node-b")
        kube.create(TIERPLACEMENTS, placement("node-b"), "default")
        eventually(lambda: told(kube).get("reason") == "AgentAway")
        nodes.trouble = None
        eventually(lambda: told(kube).get("status") == "True")


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ([], "NoSuchCheckpoint"),
        ([checkpoint("node-a", ready="False")], "NotReady"),
        ([checkpoint()], "NoCopy"),
    ],
    ids=["no-checkpoint", "not-ready", "no-copy"],
)
def test_what_it_waits_for_is_said(
    reconciled: Wait, eventually: Wait, there: list[Any], reason: str
) -> None:
    kube = FakeKube(*there, placement("node-b"))
    with reconciled(kube) as nodes:
        eventually(lambda: told(kube).get("reason") == reason)
        assert nodes.asked == []


NODES = st.frozensets(st.sampled_from([NodeName(name) for name in "abcd"]))


COPIES = st.builds(Copies, NODES, st.booleans())


@given(
    here=COPIES,
    wanted=COPIES.filter(len),
    others=COPIES,
    remove=st.sampled_from(list(Others)),
    ready=st.booleans(),
)
def test_whatever_is_asked_it_ends_as_asked_and_no_copy_is_lost(
    here: Copies,
    wanted: Copies,
    others: Copies,
    remove: Others,
    ready: bool,
) -> None:
    asked = TierPlacement(
        key=("default", "p"), uid="u", generation=1, checkpoint="c",
        nodes=wanted.nodes, stored=wanted.stored, others=remove,
    )  # fmt: skip
    at, kept = here, Copies(wanted.nodes | others.nodes, wanted.stored or others.stored)
    for _ in range(12):
        copies = dict.fromkeys(at.nodes, Tier.NVME)
        one = a_checkpoint("c", ready=ready, copies=copies, in_object_storage=at.stored)
        step = tier_plan.plan(asked, one, kept)
        if isinstance(step, Rest):
            break
        assert ready
        assert wanted.without(at) or not isinstance(step, Bring | Demote)
        match step:
            case Bring(node, sources):
                assert sources == at
                at = Copies(at.nodes | {node}, at.stored)
            case Demote(nodes):
                assert set(nodes) == at.nodes
                at = Copies(at.nodes, stored=True)
            case Remove(node):
                assert node not in kept.nodes
                at = Copies(at.nodes - {node}, at.stored)
            case Withdraw(nodes):
                assert set(nodes) == at.nodes
                assert not kept.stored
                at = Copies(at.nodes, stored=False)
        if isinstance(step, Remove | Withdraw):
            assert not wanted.without(at)
        assert len(at)
    else:
        raise AssertionError("it does not end")
    if len(here) and ready:
        assert step.placed.holds
        assert not wanted.without(at)
        assert not (remove is Others.REMOVE and at.without(kept))


def test_a_condition_keeps_its_time_where_only_words_change() -> None:
    obj = placement("node-b")
    first = write_status(read_placement(obj), Placed(holds=False, reason="NoCopy"), 1000.0)
    again = write_status(
        read_placement({**obj, "status": first}), Placed(holds=False, reason="NotReady"), 2000.0
    )
    times = [one["conditions"][0]["lastTransitionTime"] for one in (first, again)]
    assert times[0] == times[1]
