"""A switch that ends in a fault of ours leaves nobody on their way for ever."""

from types import SimpleNamespace
from typing import Any

import pytest

from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import SwitchPlan
from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.testing.builders import a_group
from nodeagent.disk.records import Mark
from nodeagent.lives.life import Life, Lives
from nodeagent.stories.stage import Stage
from nodeagent.turns.switching import GpuLocks, Switches

Desk = Any  # tests/nodeagent/conftest.py


class Heard:
    """What the coordinator is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Happening]] = []
        self.ended = False

    def happened(self, life: Life, happening: Happening) -> bool:
        self.told.append((life.key.name, happening))
        return True

    def switched(self, _: SwitchPlan) -> None:
        self.ended = True


def test_holders_that_were_not_reached_are_active_as_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    lives, heard = Lives(), Heard()
    keys = [WorkloadKey("default", name) for name in "ab"]
    for key in keys:
        record = desk.record(Mark.ACTIVE, key=key, uid=PodUid(key.name))
        lives.add(Life(record=record, group=a_group(0), uuids={0: GpuUuid("GPU-0")}))
    nobody: Any = SimpleNamespace()
    stage = Stage(tools=desk.tools, feed=nobody, teller=nobody, bandwidths=nobody)
    switches = Switches(stage=stage, lives=lives, locks=GpuLocks([0]), teller=nobody)
    monkeypatch.setattr("nodeagent.turns.switching.ThreadPoolExecutor", no_more)
    plan = SwitchPlan(park=tuple(keys), resume=None, gpus=(0,), why="a test")
    switches.carry_out(plan, heard)  # type: ignore[arg-type]
    assert set(heard.told) == {("a", Happening.PARK_FAILED), ("b", Happening.PARK_FAILED)}
    assert heard.ended
