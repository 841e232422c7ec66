"""Placement verdicts are answered from memory while their policies are known to be in force."""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.clients.opa import FRESH_S, OpaPolicy, Outcome
from kybernate.clients.opa_answers import Answers
from kybernate.model.ids import NO_REVISION, Revision
from kybernate.testing.clock import FakeClock
from testbed.opa import Opa

OLD, NEW = Revision("sha256:aaaaaaaaaaaa"), Revision("sha256:bbbbbbbbbbbb")


@pytest.fixture
def clock() -> FakeClock:
    """Moves only when told."""
    return FakeClock()


@pytest.fixture
def answers(clock: FakeClock) -> Answers[str]:
    """Two verdicts at most, fresh for a second."""
    return Answers(1.0, 2, clock.monotonic)


def test_replicas_share_an_answer(
    opa_server: Opa, clock: FakeClock, a_placement: Callable[..., Any]
) -> None:
    outcomes: list[Outcome] = []
    policy = OpaPolicy(
        opa_server.url,
        timeout_s=10.0,
        observe=lambda _, outcome, __: outcomes.append(outcome),
        monotonic=clock.monotonic,
    )
    first = policy.placement(a_placement("llama-0"))
    assert policy.placement(a_placement("llama-1")) is first
    policy.placement(a_placement("llama-0", priority=1))
    assert outcomes == [Outcome.VERDICT, Outcome.REMEMBERED, Outcome.VERDICT]


def test_after_a_while_somebody_has_to_ask(
    opa_server: Opa, clock: FakeClock, a_placement: Callable[..., Any]
) -> None:
    outcomes: list[Outcome] = []
    policy = OpaPolicy(
        opa_server.url,
        timeout_s=10.0,
        observe=lambda _, outcome, __: outcomes.append(outcome),
        monotonic=clock.monotonic,
    )
    policy.placement(a_placement())
    clock.advance(FRESH_S + 0.1)
    policy.placement(a_placement())
    policy.placement(a_placement())
    assert outcomes == [Outcome.VERDICT, Outcome.VERDICT, Outcome.REMEMBERED]


def test_other_policies_make_it_forget(answers: Answers[str]) -> None:
    answers.seen(OLD)
    answers.keep(b"q", "yes", OLD)
    assert answers.get(b"q") == "yes"
    answers.seen(NEW)
    assert answers.get(b"q") is None


def test_a_late_answer_of_older_policies_is_not_kept(answers: Answers[str]) -> None:
    answers.seen(NEW)
    answers.keep(b"q", "yes", OLD)
    assert answers.get(b"q") is None


def test_a_verdict_without_revision_is_not_kept(answers: Answers[str]) -> None:
    answers.seen(NO_REVISION)
    answers.keep(b"q", "yes", NO_REVISION)
    assert answers.get(b"q") is None


def test_the_least_used_leaves_first(answers: Answers[str]) -> None:
    answers.seen(OLD)
    answers.keep(b"1", "one", OLD)
    answers.keep(b"2", "two", OLD)
    answers.get(b"1")
    answers.keep(b"3", "three", OLD)
    assert [answers.get(key) for key in (b"1", b"2", b"3")] == ["one", None, "three"]


def test_what_is_in_force_is_unknown_while_nobody_answers(answers: Answers[str]) -> None:
    answers.seen(OLD)
    answers.keep(b"q", "yes", OLD)
    answers.forget()
    assert answers.get(b"q") is None
