"""The prober put together from the agent's parts. Called by `process`."""

from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State, Wishes
from kybernate.runtime.metrics import Metrics
from nodeagent.containers.learning import Containers
from nodeagent.lives.life import Lives
from nodeagent.lives.telling import Teller
from nodeagent.probing.actions import PodActions
from nodeagent.probing.leaving import Parting, Sealing
from nodeagent.probing.netns import Namespaces
from nodeagent.probing.prober import Node, Prober
from nodeagent.turns.coordinator import Coordinator
from nodeagent.watching import Watching


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What probes are answered from."""

    kube: Kube
    lives: Lives
    coordinator: Coordinator
    containers: Containers
    watching: Watching
    sealing: Sealing
    teller: Teller
    clock: Clock  # as the books count
    wall: Clock  # as the API server writes


def prober_of(agent: Agent, metrics: Metrics) -> Prober:
    """Answers from the parts as they stand at each question."""

    def state_of(key: WorkloadKey) -> State:
        tenancy = agent.coordinator.books.tenancies.get(key)
        return tenancy.state if tenancy else State.ABSENT

    def wishes(key: WorkloadKey, uid: PodUid) -> Wishes:
        pod = agent.watching.pod(key)
        return pod.wishes if pod is not None and pod.uid == uid else Wishes()

    parting = Parting(
        api=agent.kube,
        sealing=agent.sealing,
        pod_of=agent.watching.pod,
        state_of=state_of,
        went=agent.teller.went,
        clock=agent.wall,
    )
    node = Node(
        lives=agent.lives,
        books=lambda: agent.coordinator.books,
        announced=agent.containers.announced,
        wishes=wishes,
        actions=PodActions(Namespaces(), agent.clock),
        leaving=parting,
        clock=agent.clock,
    )
    return Prober(node, metrics)
