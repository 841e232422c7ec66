"""Wishes are written down as they are, whatever order their changes are heard in."""

from typing import Any

import pytest

from kybernate.decisions.books import Books
from kybernate.model.ids import GpuUuid
from kybernate.testing.agentnode import wait_for
from kybernate.testing.builders import a_group
from nodeagent.disk.records import Mark
from nodeagent.lives.keeping import Keeper
from nodeagent.lives.life import Life, Lives

Desk = Any  # tests/nodeagent/conftest.py
GROUP = a_group(0)


@pytest.fixture
def life(desk: Desk) -> Life:
    return Life(record=desk.record(Mark.PARKED), group=GROUP, uuids={0: GpuUuid("GPU-0")})


@pytest.fixture
def books(life: Life) -> list[Books]:
    """What was and what is: the workload was wanted, and is to be parked since."""
    none = Books(memory={0: 80 * 2**30}, groups={GROUP.name: GROUP}).having(life.tenancy())
    wanted = none.change(life.key, wanted_since=5.0)
    return [none, wanted, wanted.change(life.key, wanted_since=None, asked_to_park=True)]


def test_the_older_of_two_changes_heard_last_does_not_win(
    desk: Desk, life: Life, books: list[Books]
) -> None:
    none, wanted, now = books
    lives = Lives()
    lives.add(life)
    keeper = Keeper(lives, desk.journal, lambda: now)
    keeper.start()
    keeper.changed(wanted, now)
    wait_for(lambda: life.record.asked_to_park, "the newest is written")
    keeper.changed(none, wanted)
    keeper.stop()
    ((record,), _) = desk.journal.read_all()
    assert (record.asked_to_park, record.wanted_since) == (True, None)
