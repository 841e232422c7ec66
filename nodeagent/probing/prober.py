"""
The agent's answer to a probe or hook that `kybernate-runc` passes on.

Called by: the runtime's socket, in the caller's own thread, as many at once as the kubelet asks.
Rule: nothing is kept but what cannot be found again: how long a container has run, and whether an
action of its own was good once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter

from kybernate.api import probes
from kybernate.api.errors import Malformed
from kybernate.clients.clock import Clock
from kybernate.clients.runtimecalls import Call
from kybernate.decisions import probing
from kybernate.decisions.books import Books
from kybernate.decisions.probing import Standing
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.probing import Action, Asked, Kind, Outcome
from kybernate.model.workload import State, Wishes
from kybernate.runtime.metrics import Metrics
from nodeagent.disk.records import Mark
from nodeagent.lives.life import Lives
from nodeagent.probing.actions import Actions
from nodeagent.probing.courses import AT_ONCE, Courses
from nodeagent.probing.netns import Process

Reply = dict[str, str]
_RUN: Reply = {"ok": "run"}
_NOT_BEGUN = frozenset({Mark.HELD, Mark.STARTING})
_GOOD = "exit 0"
_HOOK_S = 30  # Kubernetes' own grace period


class Leaving(Protocol):
    """What is done when the pod is deleted, beside its own hook."""

    def leave(self, key: WorkloadKey, uid: PodUid, asked: Asked) -> Outcome:
        """Returns when nothing more is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What answers are made from."""

    lives: Lives
    books: Callable[[], Books]
    announced: Callable[[WorkloadKey, PodUid], bool]  # a container of it is held, not let in yet
    wishes: Callable[[WorkloadKey, PodUid], Wishes]
    actions: Actions
    leaving: Leaving
    clock: Clock


class Prober:
    """Thread safe."""

    def __init__(self, node: Node, metrics: Metrics) -> None:
        self._node = node
        self._courses = Courses()
        self._answers: Counter = metrics.counter(
            "probes",
            "Probes and hooks answered: alive without being asked (excused), or as they came out",
            ("kind", "answer"),
        )

    def answer(self, call: Call) -> Reply:
        """The reply. Raises Malformed for what nobody of us wrote."""
        among = f"{call.container_id}/{call.kind}"  # probes that hang keep no hook out
        if not self._courses.enter(among):
            return {"error": f"{AT_ONCE} probes of one container at once are enough"}
        try:
            return self._answer(call)
        finally:
            self._courses.leave(among)

    def _answer(self, call: Call) -> Reply:
        asked = _asked(call)
        answer = self._hook(asked, call) if asked.kind is Kind.PRESTOP else self._probe(asked, call)
        if answer is None:
            return _RUN
        return {"ok": "answered", "passed": "yes" if answer.passed else "no", "say": answer.say}

    def _probe(self, asked: Asked, call: Call) -> Outcome | None:
        before = self._standing(call)
        answer = probing.at_once(asked.kind, before) if not call.ended else None
        if answer is not None:
            return self._count(asked.kind, "excused" if answer.passed else "not ready", answer)
        outcome = self._acted(asked, call)
        if outcome is None:
            return None
        before = self._courses.began(call.container_id) or before if call.ended else before
        after, now = self._standing(call), self._node.clock.now()
        course = self._courses.course(call.container_id, after, now, passed=outcome.passed)
        answer = probing.judged(asked, outcome, before, after, course, now)
        if not answer.passed:
            return self._count(asked.kind, "failed", answer)
        return self._count(asked.kind, "passed" if outcome.passed else "excused", answer)

    def _count(self, kind: Kind, answer: str, said: Outcome) -> Outcome:
        self._answers.labels(kind.value, answer).inc()
        return said

    def _acted(self, asked: Asked, call: Call) -> Outcome | None:
        """What its action came to; None for one that is to be run in the container first."""
        if call.ended:
            return _ended(call.ended, asked.timeout)
        if asked.action is None:  # or in the container, which only the caller knows
            self._courses.begin(call.container_id, self._standing(call))
            return None
        return self._run(asked.action, call, float(max(1, asked.timeout)))

    def _run(self, action: Action, call: Call, seconds: float) -> Outcome:
        life = self._node.lives.get(call.pod)
        if life is None or life.id != call.container_id:
            return Outcome(passed=True, say="nothing is known of it")
        process = Process(life.record.pid, life.record.pid_started)
        return self._node.actions.run(action, process, seconds)

    # the hook

    def _hook(self, asked: Asked, call: Call) -> Outcome | None:
        """The pod's own hook first, then ours. One without its GPU can do nothing of its own."""
        if call.ended:
            own = _ended(call.ended, 0)
        elif self._standing(call).state not in probing.WITH_GPU:
            own = Outcome(passed=True)
        elif asked.action is None:
            return None  # or in the container, which only the caller knows
        else:
            own = self._run(asked.action, call, float(asked.grace or _HOOK_S))
        ours = self._node.leaving.leave(call.pod, call.uid, asked)
        said = "; ".join(one.say for one in (own, ours) if one.say)
        both = Outcome(passed=own.passed and ours.passed, say=said)
        return self._count(asked.kind, "passed" if both.passed else "failed", both)

    # how it stands

    def _standing(self, call: Call) -> Standing:
        tenancy = self._node.books().tenancies.get(call.pod)
        if tenancy is None or tenancy.uid != call.uid:
            held = self._node.announced(call.pod, call.uid)
            state = State.WAITING if held else State.ABSENT
            return Standing(key=call.pod, state=state, begun=not held)
        life = self._node.lives.get(call.pod)
        return Standing(
            key=call.pod,
            state=tenancy.state,
            begun=life is None or life.record.mark not in _NOT_BEGUN,
            active_since=tenancy.active_since,
            resumed=tenancy.last_active is not None,
            ready_only_active=self._node.wishes(call.pod, call.uid).readiness_active,
        )


def _asked(call: Call) -> Asked:
    try:
        kind = Kind(call.kind)
    except ValueError:
        kind = Kind.LIVENESS  # a word of somebody's own, as by hand
    try:
        return probes.read_spec(kind, call.spec)
    except Malformed:
        if call.ended:
            return Asked(kind=kind)
        raise


def _ended(ended: str, timeout: int) -> Outcome:
    if ended == _GOOD:
        return Outcome(passed=True)
    if ended == "timeout":
        return Outcome(passed=False, say=f"command timed out after {timeout} s")
    return Outcome(passed=False, say=ended)
