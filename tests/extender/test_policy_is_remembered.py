"""Policy is asked once per kind of workload and revision, and its silence is neutral."""

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from extender.verdicts import POLL_SECONDS, Verdicts
from kybernate.model.ids import NodeName, Revision
from kybernate.model.policy import NodeClass, PlacementQuestion, PlacementVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.builders import a_workload
from kybernate.testing.clock import FakeClock

CLASSES = (NodeClass(id="c1", product="X", labels={"zone": "a"}, healthy=True),)
AWAY = Refusal(reason=Reason.POLICY_UNAVAILABLE)


@dataclass
class Scripted:
    """Policy that denies `c1` while it answers."""

    away: bool = False
    at: str = "sha256:1"
    asked: list[PlacementQuestion] = field(default_factory=list)

    def placement(self, question: PlacementQuestion) -> PlacementVerdict | Refusal:
        self.asked.append(question)
        return (
            AWAY if self.away else PlacementVerdict(deny={"c1": "no"}, revision=Revision(self.at))
        )

    def revision(self) -> Revision | None:
        return None if self.away else Revision(self.at)


@pytest.fixture
def policy() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def verdicts(policy: Scripted, clock: FakeClock) -> Verdicts:
    found = Verdicts(policy, clock)
    found.refresh()
    return found


def test_replicas_are_one_question(policy: Scripted, verdicts: Verdicts) -> None:
    for name in ("a", "b", "c"):
        assert verdicts.of(a_workload(name), CLASSES).deny == {"c1": "no"}
    assert [question.key.name for question in policy.asked] == [""]


def test_what_policy_can_tell_apart_is_another_question(
    policy: Scripted, verdicts: Verdicts
) -> None:
    verdicts.of(a_workload(), CLASSES)
    verdicts.of(a_workload(namespace="other"), CLASSES)
    verdicts.of(a_workload(priority=5), CLASSES)
    verdicts.of(a_workload(vram=1), CLASSES)
    verdicts.of(a_workload(), (*CLASSES, NodeClass(id="c2", product="", labels={}, healthy=True)))
    verdicts.of(a_workload(node=NodeName("n")), CLASSES)
    assert len(policy.asked) == 5


def test_an_answer_that_a_change_of_policy_overtook_is_not_kept(
    policy: Scripted, verdicts: Verdicts, clock: FakeClock
) -> None:
    answer = policy.placement

    def overtaken(question: PlacementQuestion) -> PlacementVerdict | Refusal:
        old = answer(question)
        policy.at = "sha256:2"
        verdicts.refresh()
        return old

    policy.placement = overtaken  # type: ignore[method-assign]
    assert verdicts.of(a_workload(), CLASSES).revision == "sha256:1"
    policy.placement = answer  # type: ignore[method-assign]
    clock.advance(POLL_SECONDS)
    verdicts.refresh()
    assert verdicts.of(a_workload(), CLASSES).revision == "sha256:2"


def test_a_changed_policy_is_asked_anew(policy: Scripted, verdicts: Verdicts) -> None:
    verdicts.of(a_workload(), CLASSES)
    verdicts.refresh()
    verdicts.of(a_workload(), CLASSES)
    policy.at = "sha256:2"
    verdicts.refresh()
    assert verdicts.of(a_workload(), CLASSES).revision == "sha256:2"
    assert len(policy.asked) == 2


def test_policy_that_does_not_answer_is_neutral_and_asked_again_soon(
    policy: Scripted, verdicts: Verdicts, clock: FakeClock
) -> None:
    policy.away = True
    for _ in range(3):
        assert verdicts.of(a_workload(), CLASSES) == PlacementVerdict()
    assert len(policy.asked) == 1
    assert not verdicts.available
    policy.away = False
    clock.advance(POLL_SECONDS)
    assert verdicts.of(a_workload(), CLASSES).deny == {"c1": "no"}
    assert verdicts.available


def test_a_fault_in_asking_for_the_revision_does_not_end_the_asking(
    policy: Scripted, verdicts: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([None, Revision("sha256:2")])

    def revision() -> Revision | None:
        found = next(told)
        if found is None:
            raise RuntimeError("not the answer it expected")
        return found

    verdicts.of(a_workload(), CLASSES)
    waits = iter([False, False, True])
    monkeypatch.setattr(policy, "revision", revision)
    monkeypatch.setattr(verdicts, "_clock", SimpleNamespace(wait=lambda *_: next(waits)))
    verdicts.follow(threading.Event())
    monkeypatch.undo()
    verdicts.of(a_workload(), CLASSES)
    assert len(policy.asked) == 2
