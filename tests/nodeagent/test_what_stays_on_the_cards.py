"""Bytes that stay on the cards, though they were to leave, are the parked one's in the books."""

from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from kybernate.clients.errors import Retry
from kybernate.decisions.switching import SwitchPlan
from kybernate.model.ids import GpuUuid
from kybernate.testing.builders import GIB, a_group
from nodeagent.disk.records import Mark
from nodeagent.lives.feed import Feed
from nodeagent.lives.life import Life, Lives
from nodeagent.stories.bandwidth import Bandwidths
from nodeagent.stories.stage import Stage
from nodeagent.turns.switching import GpuLocks, Switches

Desk = Any  # tests/nodeagent/conftest.py


class Cards:
    """A context that stays once all is released; told by nobody while `away`."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self.away = desk, False

    def free(self, uuid: GpuUuid) -> int:
        return self._desk.tools.cards.free(uuid)  # type: ignore[no-any-return]

    def held_by(self, body: Any) -> int:
        if any(part.backed for part in self._desk.mechanism.parts(body)):
            return self._desk.tools.cards.held_by(body)  # type: ignore[no-any-return]
        if self.away:
            raise Retry("the inventory is away")
        return GIB


@pytest.fixture
def park(desk: Desk) -> Any:
    """Parks a workload; what the coordinator was told of it."""

    def run(*, shallow: bool = False, away: bool = False) -> MagicMock:
        lives, books, cards = Lives(), MagicMock(), Cards(desk)
        cards.away = away
        record = desk.record(Mark.ACTIVE)
        life = Life(record=record, group=a_group(0), uuids={0: GpuUuid("GPU-0")})
        lives.add(life)
        stage = Stage(
            tools=replace(desk.tools, cards=cards), feed=Feed(), teller=MagicMock(),
            bandwidths=Bandwidths(),
        )  # fmt: skip
        switches = Switches(stage=stage, lives=lives, locks=GpuLocks([0]), teller=MagicMock())
        keep = (life.key,) if shallow else ()
        switches.carry_out(
            SwitchPlan(park=(life.key,), resume=None, gpus=(0,), why="a test", shallow=keep), books
        )
        assert life.record.mark is Mark.PARKED
        return books

    return run


def test_what_could_not_leave_is_told(park: Any) -> None:
    (told,) = park().stays.call_args_list
    assert told.args[1] == GIB


def test_what_was_to_stay_is_no_news(park: Any) -> None:
    assert not park(shallow=True).stays.called


def test_cards_that_cannot_be_seen_then_tell_nothing(park: Any) -> None:
    assert not park(away=True).stays.called
