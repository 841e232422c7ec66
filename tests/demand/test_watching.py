"""
When workloads are looked at, and what is made of it.

Faked: the coordinator, namespaces (a pipe for a tap), signals. Real: the watch and its thread.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kybernate.decisions.books import Books
from kybernate.model.demand import Demand
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import Desired
from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for
from kybernate.testing.builders import GIB, a_group
from nodeagent.demand.lines import Line
from nodeagent.demand.watch import ACTIVE_S, DemandWatch
from nodeagent.disk.records import Mark
from nodeagent.lives.life import Life, Lives

GROUP = a_group(0)
WANTED = Demand(wanted=True, why="somebody came")


class Pipes:
    """Lines whose taps are ends of pipes."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[socket.socket, socket.socket]] = {}
        self.kept: list[tuple[set[int], set[int]]] = []
        self.gone: set[str] = set()
        self.on_host = False
        self.rounds: list[set[str]] = []

    def look_together(self, life_ids: Iterable[str]) -> None:
        self.rounds.append(set(life_ids))

    def namespace_of(self, life: Life) -> int:
        if life.id in self.gone:
            raise FileNotFoundError(life.id)
        return hash(life.id)

    def line(self, life: Life) -> Line:
        if self.on_host:
            return Line(shared=True)
        return Line(shared=False, tap=self.ends[life.id][0] if life.id in self.ends else None)

    def tap(self, life: Life) -> socket.socket | None:
        if self.on_host:
            return None
        if life.id not in self.ends:
            self.ends[life.id] = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.ends[life.id][0].setblocking(False)
        return self.ends[life.id][0]

    def keep(self, tapped: set[int], all_: set[int]) -> None:
        self.kept.append((tapped, all_))

    def close(self) -> None:
        for pair in self.ends.values():
            for end in pair:
                end.close()


class Says:
    """A signal that says what it is told to, or fails."""

    name = "says"

    def __init__(self) -> None:
        self.word: dict[str, Demand | Exception] = {}

    def read(self, life: Life) -> Demand:
        word = self.word.get(life.id, Demand())
        if isinstance(word, Exception):
            raise word
        return word


@dataclass
class Coordinator:
    """Keeps what it heard."""

    books: Books
    told: list[tuple[WorkloadKey, Demand]]
    event: threading.Event

    def heard(self, key: WorkloadKey, life: str, demand: Demand) -> None:
        self.told.append((key, demand))
        self.event.set()


class Rig:
    """A watch over these lives."""

    def __init__(self, lives: list[Life]) -> None:
        self.lives, self.pipes, self.says = Lives(), Pipes(), Says()
        for life in lives:
            self.lives.add(life)
        books = Books(memory={0: 80 * GIB}, groups={GROUP.name: GROUP})
        for life in lives:
            books = books.having(life.tenancy())
        self.coordinator = Coordinator(books, [], threading.Event())
        self.watch = DemandWatch(
            self.lives, self.coordinator, [self.says], self.pipes, SystemClock()
        )

    def change(self, key: WorkloadKey, **facts: Any) -> None:
        before = self.coordinator.books
        tenancy = replace(before.tenancies[key], **facts)
        self.coordinator.books = before.having(tenancy)
        self.watch.changed(before, self.coordinator.books)

    def await_word(self, key: WorkloadKey, demand: Demand) -> None:
        wait_for(lambda: (key, demand) in self.coordinator.told, f"{key} is heard of")


@pytest.fixture
def rig(a_life: Callable[..., Life]) -> Iterator[Rig]:
    """Two parked, one active; not started."""
    made = Rig([
        a_life("a", mark=Mark.PARKED), a_life("b", mark=Mark.PARKED), a_life("c"),
    ])  # fmt: skip
    yield made
    made.watch.stop()


def key(name: str) -> WorkloadKey:
    return WorkloadKey("default", name)


def test_parked_ones_of_a_former_agent_are_looked_at_without_anything_happening(rig: Rig) -> None:
    rig.says.word["id-b"] = WANTED
    rig.watch.start()
    rig.await_word(key("b"), WANTED)


def test_a_packet_has_that_pod_looked_at(rig: Rig) -> None:
    rig.watch.start()
    wait_for(lambda: {"id-a", "id-b"} <= rig.pipes.ends.keys(), "both are tapped")
    rig.says.word["id-a"] = WANTED
    rig.pipes.ends["id-a"][1].send(b"x")
    rig.await_word(key("a"), WANTED)


def test_a_lost_hint_costs_time_only(rig: Rig) -> None:
    rig.watch.start()
    wait_for(lambda: len(rig.coordinator.told) >= 3, "all were looked at")
    rig.says.word["id-a"] = WANTED
    rig.await_word(key("a"), WANTED)


def test_an_active_one_is_looked_at_again_and_again_and_never_tapped(rig: Rig) -> None:
    rig.watch.start()
    wait_for(lambda: [k for k, _ in rig.coordinator.told].count(key("c")) > 1, "twice")
    assert "id-c" not in rig.pipes.ends


def test_an_active_one_that_somebody_waits_for_is_looked_at_sooner(rig: Rig) -> None:
    rig.watch.start()
    rig.change(key("a"), wanted_since=0.0)
    heard = rig.coordinator.told
    wait_for(
        lambda: [one for one, _ in heard].count(key("c")) >= 10, "ten looks", 10 * ACTIVE_S / 2
    )


def test_all_that_are_parked_on_the_host_are_looked_at_in_the_same_rounds(rig: Rig) -> None:
    rig.pipes.on_host = True
    rig.watch.start()
    parked = {life.id for life in rig.lives.all() if life.record.mark is Mark.PARKED}
    wait_for(lambda: rig.pipes.rounds.count(parked) >= 3, "three rounds of both")


def test_who_is_asked_about_all_the_time_keeps_nobody_else_on_the_host_from_being_seen(
    rig: Rig,
) -> None:
    rig.pipes.on_host = True
    rig.watch.start()

    def both() -> bool:
        rig.watch.look_at([key("a")])
        heard = [one for one, _ in rig.coordinator.told]
        return heard.count(key("b")) >= 3

    wait_for(both, "b is looked at again and again")


def test_who_is_to_stay_parked_is_left_alone(rig: Rig) -> None:
    rig.says.word["id-a"] = WANTED
    rig.change(key("a"), desired=Desired.PARKED)
    rig.watch.start()
    rig.says.word["id-b"] = WANTED
    rig.await_word(key("b"), WANTED)
    assert (key("a"), WANTED) not in rig.coordinator.told


def test_a_signal_that_fails_silences_neither_others_nor_other_workloads(rig: Rig) -> None:
    rig.says.word["id-a"] = OSError("no such namespace")
    rig.says.word["id-b"] = WANTED
    rig.watch.start()
    rig.await_word(key("b"), WANTED)
    rig.says.word["id-a"] = WANTED
    rig.await_word(key("a"), WANTED)


def test_a_namespace_that_is_gone_is_nobodys_misfortune_but_its_own(rig: Rig) -> None:
    rig.pipes.gone.add("id-a")
    rig.says.word["id-b"] = WANTED
    rig.watch.start()
    rig.await_word(key("b"), WANTED)


def test_who_waits_for_its_turn_is_tapped_no_more(rig: Rig) -> None:
    rig.watch.start()
    wait_for(lambda: {"id-a", "id-b"} <= rig.pipes.ends.keys(), "both are tapped")
    rig.change(key("a"), wanted_since=1.0)
    wait_for(lambda: hash("id-a") not in rig.pipes.kept[-1][0], "its tap is closed")
    assert hash("id-b") in rig.pipes.kept[-1][0]
    os.fstat(rig.pipes.ends["id-b"][0].fileno())
