"""
The agent's answers to what `kybernate-runc` passes on. Real: codec, judging, counting. Faked, and
under the test's hand: the books, the lives, what actions come to, the hook's end, the clock.
"""

from types import SimpleNamespace

import pytest

from kybernate.api import probes
from kybernate.api.errors import Malformed
from kybernate.clients.runtimecalls import Call, Op
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.probing import Asked, HttpGet, Kind, Outcome, Sleep
from kybernate.model.workload import State, Wishes
from kybernate.runtime.metrics import Metrics
from kybernate.testing.clock import FakeClock
from nodeagent.disk.records import Mark
from nodeagent.probing.courses import AT_ONCE
from nodeagent.probing.netns import Process
from nodeagent.probing.prober import Node, Prober

KEY = WorkloadKey("default", "one")
HTTP = HttpGet(port=80)
REFUSED = Outcome(passed=False, say="refused")


class World:
    """One workload as the agent knows it."""

    def __init__(self):
        self.clock = FakeClock()
        self.state, self.since, self.resumed = State.ACTIVE, self.clock.now(), False
        self.mark, self.uid = Mark.ACTIVE, "u1"
        self.held = False
        self.wishes = Wishes()
        self.outcome, self.meanwhile = Outcome(passed=True), lambda: None
        self.ran, self.left = [], []
        self.leaving = Outcome(passed=True, say="sealed")
        self.metrics = Metrics()
        node = Node(
            lives=SimpleNamespace(get=lambda key: self.life()),
            books=self.books,
            announced=lambda key, uid: self.held,
            wishes=lambda key, uid: self.wishes,
            actions=self,
            leaving=self,
            clock=self.clock,
        )
        self.prober = Prober(node, self.metrics)

    def books(self):
        tenancy = SimpleNamespace(
            uid=self.uid,
            state=self.state,
            active_since=self.since if self.state is State.ACTIVE else None,
            last_active=1.0 if self.resumed else None,
        )
        return SimpleNamespace(tenancies={KEY: tenancy} if self.uid else {})

    def life(self):
        return SimpleNamespace(
            id="c1", record=SimpleNamespace(pid=7, pid_started=9, mark=self.mark)
        )

    def run(self, action, process, seconds):
        self.ran.append((action, process, seconds))
        self.meanwhile()
        return self.outcome

    def leave(self, key, uid, asked):
        self.left.append(asked)
        return self.leaving

    def ask(self, kind=Kind.LIVENESS, action=HTTP, ended="", **more):
        spec = probes.write_spec(Asked(kind=kind, action=action, **more))
        call = Call(
            op=Op.PROBE, pod=KEY, uid=PodUid("u1"), container_id="c1", kind=kind.value, spec=spec,
            ended=ended,
        )  # fmt: skip
        return self.prober.answer(call)

    def passes(self, *args, **more):
        return self.ask(*args, **more)["passed"] == "yes"

    def counted(self, kind, answer):
        found = self.metrics.registry.get_sample_value(
            "kyb_probes_total", {"kind": kind, "answer": answer}
        )
        return found or 0.0


@pytest.fixture
def world():
    return World()


def test_one_without_its_gpu_is_not_asked(world):
    world.state = State.PARKED
    answer = world.ask()
    assert answer == {
        "ok": "answered",
        "passed": "yes",
        "say": "alive: default/one is Parked: it does not have its GPU now",
    }
    assert world.ran == []
    assert world.counted("liveness", "excused") == 1


def test_one_that_was_announced_and_is_not_let_in_yet_is_alive_and_not_ready(world):
    world.uid, world.held = "", True
    assert world.passes(Kind.LIVENESS)
    assert not world.passes(Kind.READINESS)


def test_one_that_starts_was_never_ready(world):
    world.state, world.mark = State.ACTIVATING, Mark.STARTING
    assert not world.passes(Kind.READINESS)
    world.mark = Mark.RESUMING
    assert world.passes(Kind.READINESS)


def test_the_wish_to_be_ready_only_while_active_is_kept(world):
    world.state, world.wishes = State.PARKED, Wishes(readiness_active=True)
    assert not world.passes(Kind.READINESS)
    assert world.passes(Kind.LIVENESS)


def test_one_with_its_gpu_is_asked_within_its_own_timeout(world):
    assert world.passes(timeout=3)
    assert world.ran == [(HTTP, Process(7, 9), 3.0)]
    world.outcome = REFUSED
    assert world.ask() == {"ok": "answered", "passed": "no", "say": "refused"}
    assert (world.counted("liveness", "passed"), world.counted("liveness", "failed")) == (1, 1)


def test_one_that_is_parked_while_it_is_asked_has_not_failed(world):
    def park():
        world.state = State.PARKING

    world.outcome, world.meanwhile = REFUSED, park
    assert world.passes()


def test_a_users_command_is_run_by_the_caller_and_judged_after(world):
    assert world.ask(action=None) == {"ok": "run"}
    assert world.passes(action=None, ended="exit 0")
    world.ask(action=None)
    assert not world.passes(action=None, ended="exit 3")
    said = world.ask(action=None, ended="timeout", timeout=2)["say"]
    assert said == "command timed out after 2 s"


def test_a_users_command_that_a_park_caught_has_not_failed(world):
    world.ask(action=None)
    world.state = State.PARKED
    assert world.passes(action=None, ended="timeout")
    world.state, world.since = State.ACTIVE, world.clock.now() + 60
    world.clock.advance(120)
    assert world.passes(action=None, ended="signal 9")


def test_loading_counts_from_the_release_and_while_it_has_its_gpu(world):
    world.outcome = REFUSED
    world.clock.advance(50)
    assert world.passes(startup=60)
    world.state = State.PARKED
    world.clock.advance(1000)
    assert world.passes(startup=60)
    world.state, world.since, world.resumed = State.ACTIVE, world.clock.now(), True
    world.clock.advance(9.9)  # 59.9 s with its GPU in all
    assert world.passes(startup=60)
    world.clock.advance(10)
    assert not world.passes(startup=60)


def test_one_that_was_well_once_has_loaded(world):
    assert world.passes(startup=60)
    world.outcome = REFUSED
    assert not world.passes(startup=60)


def test_one_container_does_not_take_every_thread(world):
    answers = []
    world.meanwhile = lambda: answers.append(world.ask())  # asked again while it is asked
    world.ask()
    assert [("error" in one) for one in answers] == [True] + [False] * (AT_ONCE - 1)
    world.meanwhile = lambda: None
    assert world.passes()


def test_what_nobody_of_us_wrote_is_malformed(world):
    call = Call(
        op=Op.PROBE, pod=KEY, uid=PodUid("u1"), container_id="c1", kind="liveness", spec="{"
    )
    with pytest.raises(Malformed, match="spec"):
        world.prober.answer(call)


def test_a_hook_runs_the_pods_own_first_and_then_ours(world):
    answer = world.ask(Kind.PRESTOP, Sleep(seconds=5), grace=40, seal=True)
    assert answer == {"ok": "answered", "passed": "yes", "say": "sealed"}
    assert world.ran == [(Sleep(seconds=5), Process(7, 9), 40.0)]
    assert [(asked.grace, asked.seal) for asked in world.left] == [(40, True)]


def test_a_hook_of_a_command_is_run_by_the_caller_before_ours(world):
    assert world.ask(Kind.PRESTOP, None) == {"ok": "run"}
    assert world.left == []
    assert world.ask(Kind.PRESTOP, None, ended="exit 1")["say"] == "exit 1; sealed"
    assert len(world.left) == 1


def test_a_hook_of_one_without_its_gpu_is_ours_alone(world):
    world.state = State.PARKED
    assert world.passes(Kind.PRESTOP, Sleep(seconds=500))
    assert (world.ran, len(world.left)) == ([], 1)
