"""Somebody sets the clock: turns go on as they were, and people read the time as it is now."""

from pathlib import Path
from typing import Any

import pytest

from kybernate.decisions import questions
from kybernate.model.ids import GroupName
from kybernate.model.policy import GroupFacts, TimesliceQuestion
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.builders import a_node, a_tenant
from kybernate.testing.clock import START, FakeClock
from nodeagent.reporting import standing
from nodeagent.steady import ByTheWall, SteadyClock

HOUR = 3600.0


@pytest.mark.parametrize("skew", [pytest.param(-HOUR, id="back"), pytest.param(HOUR, id="ahead")])
def test_what_is_counted_goes_on_when_the_clock_is_set(tmp_path: Path, skew: float) -> None:
    wall = FakeClock()
    steady = SteadyClock(wall, tmp_path, "boot")
    began = steady.now()
    assert began == START
    wall.advance(5.0)
    wall.skew = skew
    assert steady.now() == began + 5.0
    assert steady.to_wall(began) == START + skew


def test_the_next_agent_counts_on_from_where_the_last_one_was(tmp_path: Path) -> None:
    wall = FakeClock()
    SteadyClock(wall, tmp_path, "boot")
    wall.advance(60.0)
    wall.skew = -HOUR
    assert SteadyClock(wall, tmp_path, "boot").now() == START + 60.0


def test_after_a_reboot_it_begins_with_the_clock_as_it_is(tmp_path: Path) -> None:
    wall = FakeClock()
    SteadyClock(wall, tmp_path, "boot")
    wall.skew = -HOUR
    assert SteadyClock(wall, tmp_path, "next boot").now() == START - HOUR


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", '{"boot": "boot"}', '{"boot": "boot", "began": {}}']
)
def test_one_that_was_not_kept_whole_begins_anew(tmp_path: Path, kept: str) -> None:
    (tmp_path / "steady.json").write_text(kept)
    assert SteadyClock(FakeClock(), tmp_path, "boot").now() == START


def test_a_disk_that_is_full_costs_only_the_next_agents_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert SteadyClock(FakeClock(), tmp_path / "file" / "below", "boot").now() == START


def test_policys_windows_are_peoples_hours() -> None:
    asked: list[Any] = []

    class Asks:
        def timeslice(self, question: Any) -> Refusal:
            asked.append(question.calendar)
            return Refusal(reason=Reason.BUSY)

        preemption = tiering = timeslice

    wall = FakeClock(skew=2 * HOUR)
    asks = ByTheWall(Asks(), wall)
    question = _question()
    asks.timeslice(question)
    assert asked == [questions.calendar(START + 2 * HOUR)]
    assert question.calendar == questions.calendar(START)


def _question() -> TimesliceQuestion:
    group = GroupFacts(name=GroupName("G0"), gpus=(0,), vram=1, seats=4, waiting=0)
    calendar = questions.calendar(START)
    return TimesliceQuestion(group=group, holders=(), waiting=(), calendar=calendar)


def test_placement_is_told_by_the_wall_until_when_a_holder_is_protected() -> None:
    protected, free = a_tenant("a", min_runtime_until=START + 60.0), a_tenant("b")
    told = standing.by_the_wall(a_node(tenants=(protected, free)), lambda moment: moment + HOUR)
    assert [one.min_runtime_until for one in told.tenants] == [START + 60.0 + HOUR, 0.0]
