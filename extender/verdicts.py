"""
What policy says of placements, remembered until the policy changes.

Called by: `placing.py`, before it takes the view's lock: this is the only question that may go over
the network while the scheduler waits.
Rule: replicas are one question, so it names the namespace and not the pod.
Rule: policy that does not answer is neutral here: nobody is denied and nothing costs more.
"""

import threading
from dataclasses import dataclass
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.model.ids import NO_REVISION, Revision, WorkloadKey
from kybernate.model.policy import NodeClass, PlacementQuestion, PlacementVerdict
from kybernate.model.verdict import Refusal
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger

NEUTRAL = PlacementVerdict()
POLL_SECONDS = 1.0
"""How long a changed policy may go unnoticed; also how long its silence is believed."""
_KEPT = 4096  # questions; far more than a cluster has kinds of workloads


_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    verdict: PlacementVerdict
    until: float  # monotonic; infinity for an answer


class NoPolicy:
    """Where placement is meant to be without policy: everything is allowed and free."""

    def placement(self, _: PlacementQuestion) -> PlacementVerdict:
        """The neutral verdict."""
        return NEUTRAL

    def revision(self) -> None:
        """There is none."""
        return


class PlacementPolicy(Protocol):
    """The part of the policy port that is asked here."""

    def placement(self, question: PlacementQuestion, /) -> PlacementVerdict | Refusal:
        """As the port says."""
        ...

    def revision(self) -> Revision | None:
        """As the port says."""
        ...


class Verdicts:
    """A cache in front of the policy port. Safe for several threads."""

    def __init__(self, policy: PlacementPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._log = get_logger()
        self._kept: dict[_Key, _Kept] = {}
        self._revision: Revision = NO_REVISION
        self._lock = threading.Lock()  # of the two above
        self.available = True
        """Whether policy answered last time."""

    def of(self, workload: Workload, classes: tuple[NodeClass, ...]) -> PlacementVerdict:
        """The verdict; the neutral one where policy does not answer."""
        question = ask(workload, classes)
        key = _key(question)
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() < kept.until:
            return kept.verdict
        verdict, answered = self._asked(question)
        with self._lock:
            # An answer may come in while the policy changes: only one of the policy that was last
            # seen in force is believed until `refresh` says otherwise.
            lasts = answered and verdict.revision == self._revision != NO_REVISION
            until = float("inf") if lasts else self._clock.monotonic() + POLL_SECONDS
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = _Kept(verdict, until)
        return verdict

    def refresh(self) -> None:
        """Forget everything when the policy has changed."""
        revision = self._policy.revision() or NO_REVISION
        with self._lock:
            if revision != self._revision:
                self._revision = revision
                self._kept.clear()

    def follow(self, stop: threading.Event) -> None:
        """`refresh` until `stop` is set; for a thread of its own."""
        while not self._clock.wait(stop, POLL_SECONDS):
            try:
                self.refresh()
            except Exception:  # whatever it was: verdicts that nobody refreshes are kept for ever
                self._log.exception("the policy in force is not known")

    def _asked(self, question: PlacementQuestion) -> tuple[PlacementVerdict, bool]:
        answer = self._policy.placement(question)
        available = not isinstance(answer, Refusal)
        if available != self.available:
            self.available = available
            self._log.warning("policy answers again" if available else "policy does not answer")
        return (NEUTRAL, False) if isinstance(answer, Refusal) else (answer, True)


def ask(workload: Workload, classes: tuple[NodeClass, ...]) -> PlacementQuestion:
    """The question for this kind of workload."""
    return PlacementQuestion(
        key=WorkloadKey(workload.key.namespace, ""),
        workload_class=workload.wishes.workload_class,
        priority=workload.priority,
        vram=workload.wishes.vram,
        resource=workload.resource,
        classes=classes,
    )


def _key(question: PlacementQuestion) -> _Key:
    """The question without what makes it unhashable: a class's id stands for its content."""
    return (
        question.key.namespace,
        question.workload_class,
        question.priority,
        question.vram,
        question.resource,
        tuple(found.id for found in question.classes),
    )
