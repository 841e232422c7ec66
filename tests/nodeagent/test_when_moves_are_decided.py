"""When the next move of parked contents is decided: what is seen, and what is left alone.

Real: the looks. Faked: what they decide, who has the workload.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kybernate.decisions.books import Books
from kybernate.decisions.tiers import Decided, Move
from kybernate.model.ids import WorkloadKey
from kybernate.model.tier import Tier
from kybernate.testing.clock import FakeClock
from nodeagent import tiering
from nodeagent.gpus.cards import Below

GIB = 2**30
KEY = WorkloadKey("default", "a")


@pytest.mark.parametrize("tier", ["pool_free", "nvme_free", "object_free"])
def test_room_that_grows_is_noticed(tier: str) -> None:
    below = Below(pool_free=GIB, nvme_free=GIB, object_free=GIB)
    assert replace(below, **{tier: 2 * GIB}).matters() != below.matters()
    books = Books(memory={}, groups={}, pool_free=GIB, nvme_free=GIB, object_free=GIB)
    grown = replace(books, **{tier: 2 * GIB})
    assert tiering._matters(grown) != tiering._matters(books)


@pytest.mark.parametrize("life", [None, SimpleNamespace(record=None)], ids=["gone", "busy"])
def test_a_workload_that_somebody_has_is_not_asked_about_again_and_again(
    monkeypatch: pytest.MonkeyPatch, life: Any
) -> None:
    asked, clock = [], FakeClock()

    def decide(*args: Any, **_: Any) -> Decided:
        asked.append(left_alone := args[4])
        move = Move(key=KEY, of=Tier.RAM, to=Tier.NVME, why="", value=0.0)
        return Decided() if KEY in left_alone else Decided(move=move)

    monkeypatch.setattr(tiering.tiers, "decide", decide)
    stage: Any = SimpleNamespace(
        tools=SimpleNamespace(clock=clock),
        story=lambda *_: None,
        run_aside=lambda *_: False,
    )
    books = Books(memory={}, groups={})
    coordinator: Any = SimpleNamespace(books=books, short=0, revision=0)
    lives: Any = SimpleNamespace(get=lambda _: life, all=lambda: ())
    none: Any = None
    moves = tiering.Tiering(
        stage=stage, lives=lives, coordinator=coordinator, asks=none, teller=none
    )
    moves._failed[KEY] = tiering._Failed(times=2000, until=clock.now() - 1)
    assert moves.look() == 0.0
    assert [moves.look() for _ in range(5)] == [tiering.LOOK_S] * 5
    assert len(asked) == 2
    clock.advance(tiering.BUSY_S)
    assert moves.look() == 0.0
    moves._leave_alone(KEY, tiering.AGAIN_FIRST_S)
    assert moves._failed[KEY].until == clock.now() + tiering.AGAIN_MOST_S
