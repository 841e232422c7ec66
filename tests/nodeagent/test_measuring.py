"""Bandwidths from the agent's own copies, and what the cards show in the agent's terms."""

import os
from typing import Any

import pytest

from kybernate.clients.gpus import GpuProcess, InventoryAway
from kybernate.model.gpu import Gpu, Health
from kybernate.model.ids import GpuUuid, GroupName
from kybernate.model.tier import Tier
from kybernate.testing.builders import GIB, a_gpu, a_group
from kybernate.testing.clock import FakeClock
from nodeagent.gpus.cards import DRIVERS_OWN, FOREIGN_GRACE, CardWatch
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life, Lives
from nodeagent.stories.bandwidth import Bandwidths

Desk = Any  # tests/nodeagent/conftest.py
GROUP = a_group(0)


class FakeInventory:
    """One card and whoever is on it."""

    def __init__(self) -> None:
        self.card = a_gpu(0)
        self.used = 0
        self.there: tuple[GpuProcess, ...] = ()
        self.away = False

    def gpus(self) -> tuple[Gpu, ...]:
        self._answer()
        return (self.card,)

    def usage(self) -> dict[GpuUuid, int]:
        self._answer()
        return {self.card.uuid: self.used}

    def processes(self) -> tuple[GpuProcess, ...]:
        self._answer()
        return self.there

    def driver(self) -> str:
        return "1"

    def close(self) -> None: ...

    def _answer(self) -> None:
        if self.away:
            raise InventoryAway("away")


@pytest.fixture
def inventory() -> FakeInventory:
    return FakeInventory()


def _watch(inventory: FakeInventory, lives: Lives | None = None, clock: Any = None) -> CardWatch:
    lives, clock = lives or Lives(), clock or FakeClock()
    return CardWatch(inventory, {GROUP.name: GROUP}, lives, clock, Cgroups())


def test_the_first_copy_is_believed_and_later_ones_move_it_by_a_quarter() -> None:
    rates = Bandwidths()
    rates.measured(Tier.RAM, 40 * GIB, 1.0)
    rates.measured(Tier.RAM, 20 * GIB, 1.0)
    bus = rates.bus()
    assert bus is not None
    assert bus.bytes_per_second == pytest.approx(35 * GIB)
    assert bus.spread == pytest.approx(0.25 + 0.25 * (0.5 - 0.25))


def test_small_copies_measure_latency_and_are_left_out() -> None:
    rates = Bandwidths()
    rates.measured(Tier.RAM, 1024, 0.01)
    rates.measured(Tier.RAM, 40 * GIB, 0.0)
    assert rates.all() == {}


def test_bytes_of_a_workloads_children_are_its_own(inventory: FakeInventory, desk: Desk) -> None:
    lives = Lives()
    record = desk.record(pid=os.getppid(), pid_started=processes.started(os.getppid()))
    lives.add(Life(record=record, group=GROUP, uuids={0: inventory.card.uuid}))
    inventory.used = 50 * GIB
    child = GpuProcess(pid=_any_child(), uuid=inventory.card.uuid, used=40 * GIB, idle_seconds=3.0)
    inventory.there = (child,)
    picture = _watch(inventory, lives).look()
    assert picture is not None
    assert picture.held == {record.key: {0: 40 * GIB}}
    assert picture.idle == {record.key: 3.0}
    assert picture.foreign == {0: 10 * GIB}


def _any_child() -> int:
    """A descendant of this process's parent that is not this process: its parent itself."""
    return os.getppid()


def test_foreign_bytes_make_a_group_unhealthy_only_when_they_stay(
    inventory: FakeInventory,
) -> None:
    clock = FakeClock()
    watch = _watch(inventory, clock=clock)
    inventory.used = GIB
    health = []
    for used, seconds in ((GIB, 0.0), (GIB, FOREIGN_GRACE), (0, 0.0)):
        inventory.used = used
        clock.advance(seconds)
        picture = watch.look()
        assert picture is not None
        health.append(picture.health[GroupName("G0")])
    assert health == [Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY]


@pytest.mark.parametrize(
    ("pid", "used", "health"),
    [
        pytest.param(0, DRIVERS_OWN, Health.HEALTHY, id="the-drivers-own"),
        pytest.param(0, DRIVERS_OWN + 1, Health.UNHEALTHY, id="unexplained"),
        pytest.param(1, 1, Health.UNHEALTHY, id="a-strangers-byte"),
        pytest.param(os.getpid(), GIB, Health.HEALTHY, id="the-agents-own"),
    ],
)
def test_only_strangers_and_what_nobody_explains_make_a_group_unhealthy(
    inventory: FakeInventory, pid: int, used: int, health: Health
) -> None:
    clock = FakeClock()
    watch = _watch(inventory, clock=clock)
    inventory.used = used
    if pid:
        inventory.there = (GpuProcess(pid=pid, uuid=inventory.card.uuid, used=used),)
    watch.look()
    clock.advance(FOREIGN_GRACE)
    picture = watch.look()
    assert picture is not None
    assert picture.health[GroupName("G0")] is health
    assert picture.foreign == {0: used}  # in no case can a workload have these bytes


def test_an_inventory_that_is_away_shows_nothing_rather_than_an_empty_card(
    inventory: FakeInventory,
) -> None:
    inventory.away = True
    watch = _watch(inventory)
    assert watch.look() is None
    with pytest.raises(InventoryAway):
        watch.free(inventory.card.uuid)


def test_room_is_what_the_card_shows_not_what_the_books_say(inventory: FakeInventory) -> None:
    inventory.used = 79 * GIB
    assert _watch(inventory).free(inventory.card.uuid) == GIB


def test_an_unknown_card_has_no_room(inventory: FakeInventory) -> None:
    assert _watch(inventory).free(GpuUuid("GPU-9")) <= 0
