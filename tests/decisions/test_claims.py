"""Claims by compare-and-swap: whatever happens in whatever order, a state is woken from once."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.decisions import claims
from kybernate.decisions.claims import Nothing, Write
from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.builders import a_checkpoint

MINE = Claim(pod_uid=PodUid("u1"), node=NodeName("a"), pod="llama-0")
THEIRS = Claim(pod_uid=PodUid("u2"), node=NodeName("b"), pod="llama-1")


def test_an_empty_claim_is_filled_and_ones_own_stays() -> None:
    assert claims.take(a_checkpoint(), MINE) == Write(MINE)
    assert claims.take(a_checkpoint(claim=MINE), MINE) == Nothing()


def test_a_claim_of_somebody_else_is_a_refusal_that_says_whose() -> None:
    refused = claims.take(a_checkpoint(claim=THEIRS), MINE)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.CHECKPOINT_CLAIMED
    assert "llama-1 on b" in refused.detail


def test_a_gold_image_needs_no_claim() -> None:
    assert claims.take(a_checkpoint(gold=True), MINE) == Nothing()


def test_another_namespace_wakes_from_a_gold_image_only() -> None:
    assert claims.take(a_checkpoint(gold=True), MINE, afar=True) == Nothing()
    for claim in (None, MINE):
        refused = claims.take(a_checkpoint(claim=claim), MINE, afar=True)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.CHECKPOINT_NOT_SHARED


def test_what_is_not_ready_is_refused_gold_or_not() -> None:
    for gold in (False, True):
        refused = claims.take(a_checkpoint(gold=gold, ready=False), MINE)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.CHECKPOINT_NOT_READY


def test_only_the_holder_gives_back() -> None:
    assert claims.give_back(a_checkpoint(claim=MINE), MINE) == Write(None)
    assert claims.give_back(a_checkpoint(claim=THEIRS), MINE) == Nothing()
    assert claims.give_back(a_checkpoint(), MINE) == Nothing()


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(None, True, id="gone"),
        pytest.param({"metadata": {"uid": "u9"}}, True, id="another-life-of-the-name"),
        pytest.param(
            {"metadata": {"uid": "u1"}, "status": {"phase": "Succeeded"}}, False, id="over"
        ),
        pytest.param({"metadata": {"uid": "u1", "deletionTimestamp": "x"}}, False, id="ending"),
    ],
)
def test_a_claim_is_orphaned_when_its_pod_is_gone(
    pod: dict[str, dict[str, str]] | None, expected: bool
) -> None:
    assert claims.orphaned(a_checkpoint(claim=MINE), pod) is expected


def test_where_there_is_no_claim_nothing_is_orphaned() -> None:
    assert not claims.orphaned(a_checkpoint(), None)
    assert not claims.orphaned(a_checkpoint(claim=replace(MINE, pod="")), None)


PODS = [Claim(pod_uid=PodUid(f"u{n}"), node=NodeName(f"n{n % 2}"), pod=f"p{n}") for n in range(4)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["read", "write", "die", "free"]), st.integers(0, 3))))
def test_at_no_time_two_living_pods_wake_from_one_state(steps: list[tuple[str, int]]) -> None:
    """Agents read and write at any distance in time; the API server takes a write only on what was
    read; pods die; the controller frees what it looked up."""
    stored: tuple[int, Checkpoint] = (0, a_checkpoint())
    seen: dict[int, tuple[int, Checkpoint]] = {}
    alive, woken = {0, 1, 2, 3}, set()
    for what, number in steps:
        version, checkpoint = stored
        if what == "read":
            seen[number] = stored
        elif what == "die":
            alive.discard(number)
            woken.discard(number)
        elif what == "free" and checkpoint.claim is not None:
            holder = next(n for n, one in enumerate(PODS) if one == checkpoint.claim)
            pod = {"metadata": {"uid": PODS[holder].pod_uid}} if holder in alive else None
            if claims.orphaned(checkpoint, pod):
                stored = (version + 1, replace(checkpoint, claim=None))
        elif what == "write" and number in seen and number in alive:
            read_version, read = seen.pop(number)
            step = claims.take(read, PODS[number])
            if isinstance(step, Write) and read_version == version:
                stored = (version + 1, replace(checkpoint, claim=step.claim))
                woken.add(number)
        assert len(woken) <= 1
