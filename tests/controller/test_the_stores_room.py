"""How much goes into object storage: what is there counts, and what is on its way.

Faked: who demotes, policy, the clock.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.storing import SEEN_WITHIN, StoreFull, StoreRoom, Unlimited
from controller.tier_plan import Copies
from kybernate.clients.agents import AgentAway
from kybernate.clients.copies import Moved, Told
from kybernate.decisions import storing
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.storelimits import StoreLimits
from kybernate.model.verdict import Reason
from kybernate.testing.builders import a_checkpoint
from kybernate.testing.clock import FakeClock
from kybernate.testing.policy import FakePolicy

GIB = 1 << 30
NODE = NodeName("node-a")


def stored(name: str, size: int = 40, namespace: str = "default") -> Checkpoint:
    return a_checkpoint(name, namespace=namespace, size=size * GIB, in_object_storage=True)


class TestDeciding:
    def test_each_counts_whole_and_exactly_full_is_not_over(self) -> None:
        one = a_checkpoint("new", size=20 * GIB)
        there = [stored("a"), stored("b", namespace="lab")]
        assert storing.refused(one, there, StoreLimits(whole=100 * GIB)) is None
        no = storing.refused(one, there, StoreLimits(whole=100 * GIB - 1))
        assert no is not None
        assert no.reason is Reason.NO_STORE_ROOM
        assert no.detail == "it keeps 80.0 of 100.0 GiB, and new has 20.0 GiB"

    def test_a_namespaces_own_word_goes_before_the_defaults(self) -> None:
        one, there = a_checkpoint("new", size=GIB), [stored("a"), stored("b", namespace="lab")]
        limits = StoreLimits(default=40 * GIB)
        no = storing.refused(one, there, limits)
        assert no is not None
        assert no.reason is Reason.STORE_QUOTA
        for own in (None, 41 * GIB):
            own_limits = StoreLimits(default=40 * GIB, namespaces={"default": own})
            assert storing.refused(one, there, own_limits) is None
        assert storing.refused(one, there, StoreLimits(namespaces={"lab": 0})) is None

    @given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 300), st.integers(0, 300))
    def test_however_they_come_no_limit_is_ever_passed(
        self, sizes: list[int], whole: int, quota: int
    ) -> None:
        limits, there = StoreLimits(whole=whole * GIB, namespaces={"x0": quota * GIB}), []
        for number, size in enumerate(sizes):
            one = stored(f"c{number}", size, f"x{number % 2}")
            if storing.refused(one, there, limits) is None:
                there.append(one)
        kept = storing.kept(there)
        assert kept.total() <= whole * GIB
        assert kept["x0"] <= quota * GIB


class Slow:
    """Demotes when it is let; writes nothing anywhere."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.trouble: Exception | None = None

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        self.begun.release()
        assert self.go.wait(30)
        if self.trouble:
            raise self.trouble
        return Moved(size=one.size, seconds=1.0, put=one.size)

    def bring(self, node: NodeName, one: Checkpoint, sources: Copies, told: Told) -> Moved:
        raise NotImplementedError

    def withdraw(self, node: NodeName, one: Checkpoint) -> Moved:
        raise NotImplementedError

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        raise NotImplementedError


class Room:
    """What a test tells of the cluster, and the room."""

    def __init__(self, limits: StoreLimits) -> None:
        self.known: dict[tuple[str, str], Checkpoint] | None = {}
        self.agents, self.clock = Slow(), FakeClock()
        self.policy = FakePolicy(store=limits)
        self.room = StoreRoom(self.agents, self.policy, lambda: self.known, self.clock)

    def demote(self, one: Checkpoint) -> Moved:
        return self.room.demote(NODE, one, lambda *_: None)


@pytest.fixture
def full_with_two() -> Room:
    """Two of 40 GiB fit."""
    return Room(StoreLimits(whole=80 * GIB))


def test_what_is_on_its_way_counts_until_it_is_seen_there(full_with_two: Room) -> None:
    room = full_with_two
    with ThreadPoolExecutor(2) as threads:
        under_way = [threads.submit(room.demote, a_checkpoint(name)) for name in ("a", "b")]
        for _ in under_way:
            assert room.agents.begun.acquire(timeout=30)
        with pytest.raises(StoreFull, match=r"keeps 80\.0 of 80\.0 GiB"):
            room.demote(a_checkpoint("c"))
        room.agents.go.set()
        for one in under_way:
            one.result(30)
    with pytest.raises(StoreFull):  # done, and the agents' word has not come yet
        room.demote(a_checkpoint("c"))
    room.known = {("default", "a"): stored("a"), ("default", "b"): stored("b")}
    with pytest.raises(StoreFull):  # counted once
        room.demote(a_checkpoint("c"))
    room.known = {("default", "a"): stored("a")}  # b was withdrawn
    room.clock.advance(SEEN_WITHIN)
    room.demote(a_checkpoint("c"))


def test_one_that_failed_gives_its_room_back(full_with_two: Room) -> None:
    room = full_with_two
    room.agents.go.set()
    room.agents.trouble = AgentAway("gone")
    for _ in range(3):
        with pytest.raises(AgentAway):
            room.demote(a_checkpoint("a"))
    room.agents.trouble = None
    room.demote(a_checkpoint("b"))
    room.demote(a_checkpoint("c"))


def test_a_try_that_failed_takes_no_room_from_a_newer_one(full_with_two: Room) -> None:
    room, one = full_with_two, a_checkpoint("a")
    room.agents.go.set()
    older = room.room._counted(one)
    older.__enter__()
    with room.room._counted(one):
        assert not older.__exit__(AgentAway, AgentAway("gone"), None)
        room.demote(a_checkpoint("b"))
        with pytest.raises(StoreFull):
            room.demote(a_checkpoint("c"))


def test_one_that_goes_on_is_not_counted_beside_itself(full_with_two: Room) -> None:
    room = full_with_two
    room.agents.go.set()
    room.demote(a_checkpoint("a"))
    room.demote(a_checkpoint("a"))
    room.demote(a_checkpoint("b"))


def test_where_it_is_not_known_nothing_is_put(full_with_two: Room) -> None:
    room = full_with_two
    room.known = None
    with pytest.raises(StoreFull, match="not known yet"):
        room.demote(a_checkpoint("a"))
    room.known, room.policy.away = {}, True
    with pytest.raises(StoreFull, match="limits are not known"):
        room.demote(a_checkpoint("a"))


def test_without_an_opa_there_is_no_limit() -> None:
    known: Any = {("default", f"c{n}"): stored(f"c{n}", 10**6) for n in range(9)}
    agents = Slow()
    agents.go.set()
    room = StoreRoom(agents, Unlimited(), lambda: known, FakeClock())
    assert room.demote(NODE, a_checkpoint("a"), lambda *_: None).size == 40 * GIB
