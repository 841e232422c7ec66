"""Best first, ties broken and never widened, and the scores the scheduler is told."""

from typing import Any

import pytest

from kybernate.decisions import ranking, wording
from kybernate.decisions.placement import NEVER, Assessment
from kybernate.model.estimate import Item, Step
from kybernate.model.ids import GroupName, NodeName, PodUid, Revision
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.clock import START

SEED = ranking.seed_of(PodUid("a-pod"))


def found(node: str, seconds: float, **fields: Any) -> Assessment:
    whole: dict[str, Any] = {
        "node": NodeName(node),
        "group": GroupName("G0"),
        "not_before": 0.0,
        "steps": (Item(Step.PARK, seconds, "llama-b"),),
        "seconds_after": seconds,
        "spread": 0.0,
        "penalty": 0.0,
        "misfit": 0,
        "waiting": 0,
        "valid_until": NEVER,
        "ring": 0,
    }
    return Assessment(**{**whole, **fields})


def names(ranked: list[Assessment]) -> list[str]:
    return [one.node for one in ranked]


def test_the_sooner_the_better() -> None:
    ranked = ranking.rank([found("c", 9), found("a", 3), found("b", 5)], START, SEED)
    assert names(ranked) == ["a", "b", "c"]


def test_waiting_for_a_holder_counts() -> None:
    ranked = ranking.rank([found("a", 1, not_before=START + 10), found("b", 5)], START, SEED)
    assert names(ranked) == ["b", "a"]


def test_within_the_uncertainty_the_best_fit_wins_then_the_shorter_queue() -> None:
    ranked = ranking.rank(
        [
            found("sooner", 4.0, spread=1.0, misfit=40),
            found("fits", 4.9, misfit=0, waiting=2),
            found("fits-and-free", 5.0, misfit=0, waiting=1),
            found("late", 5.1, misfit=0),
        ],
        START,
        SEED,
    )
    assert names(ranked) == ["fits-and-free", "fits", "sooner", "late"]


def test_equals_are_spread_by_pod_and_node() -> None:
    same = [found(f"n{at}", 4, ring=at << 24) for at in range(200)]
    firsts = {
        ranking.rank(same, START, ranking.seed_of(PodUid(f"pod-{at}")))[0].node for at in range(50)
    }
    assert len(firsts) > 25
    again = ranking.rank(list(reversed(same)), START, SEED)
    assert names(again) == names(ranking.rank(same, START, SEED))


def test_scores_are_whole_and_relative_to_the_best() -> None:
    ranked = ranking.rank(
        [
            found("best", 4.0, spread=0.5),
            found("worse-fit", 4.2, misfit=1),
            found("twice", 9.0),
            found("ten-times", 45.0),
            found("never", 4500.0),
        ],
        START,
        SEED,
    )
    scores = ranking.scores(ranked, START)
    assert scores == {"best": 10, "worse-fit": 9, "twice": 4, "ten-times": 1, "never": 0}
    assert all(type(score) is int for score in scores.values())


def test_nothing_ranked_nothing_scored() -> None:
    assert ranking.rank([], START, SEED) == []
    assert ranking.scores([], START) == {}


def test_a_start_that_takes_no_time_is_the_best() -> None:
    ranked = ranking.rank([found("now", 0.0), found("later", 3.0)], START, SEED)
    assert ranking.scores(ranked, START) == {"now": 10, "later": 0}


@pytest.mark.parametrize(
    ("revision", "end"),
    [
        pytest.param("", "", id="without-policy"),
        pytest.param("sha256:0123", "; policy sha256:0123", id="with-policy"),
    ],
)
def test_a_placement_reads_as_seconds(revision: str, end: str) -> None:
    ranked = [found("node-b", 2.0), found("node-a", 4.1, penalty=5.0)]
    text = wording.placed(NodeName("node-a"), ranked, START, Revision(revision))
    assert text == (
        "node-a 4.1 s = park llama-b 4.1, policy adds 5.0 s; node-b 2.0 s = park llama-b 2.0" + end
    )


def test_refusals_are_counted_by_text() -> None:
    denied = Refusal(reason=Reason.POLICY_DENIED, detail="quota")
    refused = {
        NodeName("a"): denied,
        NodeName("b"): Refusal(reason=Reason.NO_SUCH_SEAT),
        NodeName("c"): denied,
    }
    assert wording.refused(refused, Revision("")) == (
        "no node: 2 policy denies this node (quota), 1 node has no seat of this size"
    )
