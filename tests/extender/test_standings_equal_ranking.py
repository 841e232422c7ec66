"""The quick way to the best of many nodes gives what looking at each of them gives."""

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extender.standings import Standings
from kybernate.decisions import ranking
from kybernate.decisions.placement import NEVER, Assessment
from kybernate.model.ids import GroupName, NodeName
from kybernate.testing.clock import START


@st.composite
def assessments(draw: Any, node: str) -> Assessment:
    # Whole seconds: so that adding them in another order is exact.
    ends = START + draw(st.integers(-5, 20))
    return Assessment(
        node=NodeName(node),
        group=GroupName("G0"),
        not_before=ends,
        steps=(),
        seconds_after=float(draw(st.integers(0, 30))),
        spread=float(draw(st.integers(0, 12))),
        penalty=float(draw(st.integers(0, 3))),
        misfit=draw(st.integers(0, 2)),
        waiting=draw(st.integers(0, 2)),
        valid_until=ends if ends > START else NEVER,
        ring=draw(st.integers(0, 2**32 - 1)),
    )


def nodes(count: int) -> Any:
    return st.tuples(*(assessments(f"n{at:03d}") for at in range(count)))


def filled(found: Iterable[Assessment], now: float) -> Standings:
    standings = Standings()
    standings.fill(list(found), now)
    return standings


@given(
    found=nodes(12),
    asked=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 2**32 - 1),
    limit=st.integers(1, 12),
)
def test_best_is_the_beginning_of_the_ranking(
    found: tuple[Assessment, ...], asked: set[int], seed: int, limit: int
) -> None:
    names = {found[at].node for at in asked}
    expected = ranking.rank([one for one in found if one.node in names], START, seed)[:limit]
    assert filled(found, START).best(names, START, seed, limit) == expected


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_node_by_node_changes_give_the_same_as_starting_afresh(data: Any, seed: int) -> None:
    standings = filled(data.draw(nodes(8)), START)
    now = {name: standings.get(NodeName(name)) for name in (f"n{at:03d}" for at in range(8))}
    for at in data.draw(st.lists(st.integers(0, 9), max_size=12)):
        name = f"n{at:03d}"
        if data.draw(st.booleans()):
            standings.drop(NodeName(name))
            now.pop(name, None)
        else:
            now[name] = data.draw(assessments(name))
            standings.put(now[name], START)
    kept = [one for one in now.values() if one]
    names = {one.node for one in kept}
    assert standings.best(names, START, seed, 5) == ranking.rank(kept, START, seed)[:5]


def test_many_ties_are_walked_and_not_sorted() -> None:
    same = [
        Assessment(
            node=NodeName(f"n{at:04d}"),
            group=GroupName("G0"),
            not_before=0.0,
            steps=(),
            seconds_after=5.0,
            spread=1.0,
            penalty=0.0,
            misfit=at % 3,
            waiting=at % 2,
            valid_until=NEVER,
            ring=(at * 2654435761) % 2**32,
        )
        for at in range(1000)
    ]
    names = {one.node for one in same if one.node[-1] != "0"}
    kept = [one for one in same if one.node in names]
    for seed in (0, 12345, 2**32 - 1):
        expected = ranking.rank(kept, START, seed)[:32]
        assert filled(same, START).best(names, START, seed, 32) == expected


def test_what_time_changes_is_named_once() -> None:
    one = Assessment(
        node=NodeName("a"),
        group=GroupName("G0"),
        not_before=START + 5,
        steps=(),
        seconds_after=1.0,
        spread=0.0,
        penalty=0.0,
        misfit=0,
        waiting=0,
        valid_until=START + 5,
        ring=0,
    )
    standings = filled([one], START)
    standings.put(one, START)
    assert standings.expired(START + 4) == []
    assert standings.expired(START + 5) == ["a"]
    assert standings.expired(START + 6) == []
