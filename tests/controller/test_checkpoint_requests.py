"""
CheckpointRequests carried out on an API server in memory, by an agent that a test speaks for.

Faked: the API server, the agent (`Agents`). Real: watches, queue, threads, clock.
"""

import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from controller import checkpoint_plan as plans
from controller.checkpointing import Checkpointing
from controller.sealers import Asked
from kybernate.api import checkpointrequests, gpuworkloads, names, timestamps
from kybernate.clients.agents import AgentAway, AgentRefused, Outcome, Progress
from kybernate.clients.errors import NotFound
from kybernate.clients.resources import CHECKPOINTREQUESTS, GPUCHECKPOINTS, GPUWORKLOADS
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_workload
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
KEY = WorkloadKey("default", "llama-a")
WELL = Outcome(ok=True, reason="", message="", seconds=1.5, phases=())


def refusal(reason: Reason) -> Outcome:
    return Outcome(ok=False, reason=reason.name, message=f"{reason}", seconds=0.1, phases=())


def progress(outcome: Outcome | None = None, **fields: Any) -> Progress:
    whole: dict[str, Any] = {"phase": "sealing", "done": 0, "total": 0, "seconds_left": 0.0}
    return Progress(
        key=KEY, uid=PodUid("u"), state=State.SEALING, message="", outcome=outcome,
        **{**whole, **fields},
    )  # fmt: skip


class Agents:
    """All agents. `asked` has what they were asked; each answer that was put is used once."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: queue.Queue[Progress | Exception] = queue.Queue()

    def answer(self, *answers: Outcome | Progress | Exception) -> None:
        for one in answers:
            self._answers.put(progress(one) if isinstance(one, Outcome) else one)

    def seal(self, asked: Asked) -> Iterator[Progress]:
        self.asked.append(asked)
        while True:
            answer = self._answers.get(timeout=60)
            if isinstance(answer, Exception):
                raise answer
            yield answer
            if answer.outcome is not None:
                return


@pytest.fixture
def agents() -> Agents:
    return Agents()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(clock=SystemClock())


def a_gpuworkload(state: State = State.ACTIVE, name: str = "llama-a") -> Mapping[str, Any]:
    status = gpuworkloads.Status(state=state, since=1.0, node="node-a", seat="G0/0")
    made = gpuworkloads.new_object(a_workload(name))
    return {**made, "status": gpuworkloads.write_status(status)}


def ask(kube: FakeKube, name: str = "one", **spec: Any) -> None:
    made = timestamps.rfc3339(SystemClock().now())
    kube.seed(
        {
            "apiVersion": names.API_VERSION,
            "kind": "CheckpointRequest",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": made},
            "spec": {"workload": "llama-a", "leave": "Running", **spec},
        }
    )


def status_of(kube: FakeKube, name: str = "one") -> checkpointrequests.CheckpointStatus:
    found = kube.get(CHECKPOINTREQUESTS, name, "default")
    return checkpointrequests.read_request(found).status


def gone(kube: FakeKube, name: str = "one") -> bool:
    try:
        kube.get(CHECKPOINTREQUESTS, name, "default")
    except NotFound:
        return True
    return False


@pytest.fixture
def part(kube: FakeKube, agents: Agents, running: Wait) -> Iterator[Checkpointing]:
    with running(Checkpointing(kube, SystemClock(), agents)) as started:
        yield started


def test_a_request_is_carried_out_by_the_agent_of_the_workloads_node(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube, leave="Parked", gold=True, name="one", within="5m")
    (asked,) = eventually(lambda: agents.asked)
    uid = kube.get(CHECKPOINTREQUESTS, "one", "default")["metadata"]["uid"]
    assert (asked.node, asked.workload, asked.pod_uid) == ("node-a", KEY, "uid-llama-a")
    assert (asked.idempotency_key, asked.parked, asked.gold) == (uid, True, True)
    assert 200 < asked.within <= 300
    assert status_of(kube).state == "Running"
    agents.answer(WELL)
    ended = eventually(lambda: (found := status_of(kube)).is_finished and found)
    assert (ended.state, ended.checkpoint) == ("Succeeded", asked.checkpoint)
    assert ended.message == "sealed in 1.5 s"
    assert ended.checkpoint.startswith("llama-a-2")


def test_progress_stands_in_the_status(
    kube: FakeKube, agents: Agents, running: Wait, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)

    class Quick(SystemClock):
        """Each look at it is two seconds later."""

        seconds = 0.0

        def monotonic(self) -> float:
            self.seconds += 2.0
            return self.seconds

    with running(Checkpointing(kube, Quick(), agents)):
        agents.answer(progress(done=30, total=120, seconds_left=9.0))
        seen = eventually(lambda: status_of(kube).progress)
        assert (seen.phase, seen.percent, seen.seconds_left) == ("sealing", 25, 9.0)
        agents.answer(WELL)
        eventually(lambda: status_of(kube).is_finished)


def test_what_the_agent_refuses_for_good_fails_with_its_words(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(refusal(Reason.NOT_PARKABLE))
    ended = eventually(lambda: (found := status_of(kube)).is_finished and found)
    assert (ended.state, ended.reason) == ("Failed", plans.NOT_SEALED)
    assert (ended.message, ended.checkpoint) == (str(Reason.NOT_PARKABLE), "")


def test_an_agent_that_does_not_understand_is_not_asked_again(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(AgentRefused("UNIMPLEMENTED: Method not found!"))
    ended = eventually(lambda: (found := status_of(kube)).is_finished and found)
    assert (ended.reason, len(agents.asked)) == (plans.REFUSED, 1)


def test_an_agent_that_is_away_is_asked_again_with_the_same_key_and_name(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(AgentAway("UNAVAILABLE: connection refused"))
    eventually(lambda: len(agents.asked) == 2)
    agents.answer(WELL)
    assert eventually(lambda: status_of(kube).state == "Succeeded")
    first, second = agents.asked
    assert (first.idempotency_key, first.checkpoint) == (
        second.idempotency_key,
        second.checkpoint,
    )


@pytest.mark.parametrize("published", [True, False])
def test_what_an_agent_sealed_before_it_died_counts_as_sealed(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait, published: bool
) -> None:
    """The next agent knows nothing of the request, but that there is one of the name."""
    kube.seed(a_gpuworkload())
    ask(kube)
    (asked,) = eventually(lambda: agents.asked)
    if published:
        body = {"metadata": {"name": asked.checkpoint}, "spec": {"workload": "llama"}}
        kube.create(GPUCHECKPOINTS, body, "default")
        eventually(lambda: part._checkpoints.get(("default", asked.checkpoint)))
    agents.answer(AgentAway("UNAVAILABLE: it died"), refusal(Reason.NAME_TAKEN))
    ended = eventually(lambda: (found := status_of(kube)).is_finished and found)
    assert ended.state == ("Succeeded" if published else "Failed")
    assert ended.checkpoint == (asked.checkpoint if published else "")


def test_that_the_agent_is_away_is_said_meanwhile(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(*[AgentAway("UNAVAILABLE: connection refused")] * 3)
    assert eventually(lambda: status_of(kube).reason == plans.AWAY)
    assert "does not answer, and is asked again" in status_of(kube).message
    agents.answer(WELL)
    eventually(lambda: status_of(kube).is_finished)


def test_a_busy_agent_is_asked_again(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(refusal(Reason.BUSY))
    eventually(lambda: status_of(kube).reason == plans.BUSY)
    agents.answer(WELL)
    assert eventually(lambda: status_of(kube).state == "Succeeded")


def test_two_requests_for_one_workload_are_served_one_after_the_other(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube, "one")
    eventually(lambda: len(agents.asked) == 1)
    ask(kube, "two")
    eventually(lambda: status_of(kube, "two").reason == plans.ANOTHER)
    assert "waits for checkpointrequest one" in status_of(kube, "two").message
    agents.answer(WELL, WELL)
    eventually(lambda: status_of(kube, "two").state == "Succeeded")
    assert len({asked.idempotency_key for asked in agents.asked}) == 2


def test_a_request_that_is_deleted_meanwhile_is_no_longer_followed(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    eventually(lambda: agents.asked)
    kube.delete(CHECKPOINTREQUESTS, "one", "default")
    ask(kube, "two")
    eventually(lambda: part._requests.get(("default", "one")) is None)
    agents.answer(progress(done=1, total=2), WELL)
    assert eventually(lambda: status_of(kube, "two").state == "Succeeded")


def test_a_pod_that_goes_while_its_agent_is_away_ends_the_request(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube)
    agents.answer(AgentAway("UNAVAILABLE: node is gone"))
    eventually(lambda: status_of(kube).reason in (plans.AWAY, plans.ASKED))
    kube.delete(GPUWORKLOADS, "llama-a", "default")
    agents.answer(*[AgentAway("UNAVAILABLE: node is gone")] * 20)
    ended = eventually(lambda: (found := status_of(kube)).is_finished and found)
    assert (ended.state, ended.reason) == ("Failed", plans.GONE)


def test_a_finished_request_is_removed_after_its_time(
    kube: FakeKube, agents: Agents, part: Checkpointing, eventually: Wait
) -> None:
    kube.seed(a_gpuworkload())
    ask(kube, forgetAfter="1s")
    agents.answer(WELL)
    assert eventually(lambda: gone(kube))
