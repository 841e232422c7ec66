"""
The parts of the node agent, put together, started and stopped in order. Called by `__main__`.

The engine decides and carries out; here is whom it listens to and whom it tells. Order of a start:
recovery; then the servers, the watches, the coordinator. Nothing waits for the API server. Order of
a stop: no new work, switches under way end, the last statuses are written. Workloads run on; parked
ones stay parked.
"""

from collections.abc import Sequence

from kybernate.clients import runtimecalls
from kybernate.clients.clock import Clock
from kybernate.clients.leases import LeaseHeartbeat
from kybernate.model.ids import Revision
from kybernate.model.workload import Wishes
from kybernate.runtime import serving
from kybernate.runtime.health import Health
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.tls import TlsFiles
from nodeagent.api.agent_service import AgentService, Serving
from nodeagent.api.runtime_socket import RuntimeSocket
from nodeagent.api.servers import Servers
from nodeagent.api.tickets import Tickets
from nodeagent.checkpointing import LastSealing
from nodeagent.containers.podresources import KubeletAway
from nodeagent.containers.relearning import Relearner
from nodeagent.engine import Engine
from nodeagent.gpus import neighbours
from nodeagent.gpus.coexistence import Finding
from nodeagent.gpus.neighbours import Neighbours, Surroundings
from nodeagent.mechanisms.real import Real
from nodeagent.probing import wiring as probing
from nodeagent.probing.notes import FOLDER, Notes
from nodeagent.probing.prober import Prober
from nodeagent.reporting.obstacles import Eligibility, Parts
from nodeagent.reporting.standing import Measured
from nodeagent.reporting.writer import Sources, Writer
from nodeagent.settings import Settings
from nodeagent.sources import Cards
from nodeagent.truth.books import Deviation, deviations
from nodeagent.turns.measures import Measures
from nodeagent.turns.policychange import PolicyChange

NAMESPACE = "kyb-system"
BEHIND_S = 1.0  # our watch behind the kubelet's; the device plugin waits 2 s for a preference


class Process:
    """One running agent."""

    def __init__(self, settings: Settings, cards: Cards, clock: Clock) -> None:
        self._settings, self._clock, self._cards = settings, clock, cards
        self._engine = Engine(settings, cards, clock)
        self.metrics, self.health = Metrics(), Health()
        self._build_serving()
        self._build_reporting()
        coordinator = self._engine.coordinator
        self.health.ready("gpus", lambda: None if coordinator.picture else "not seen yet")
        self._telemetry = serving.telemetry(settings.metrics_listen, self.health, self.metrics)

    def _build_serving(self) -> None:
        engine, tickets = self._engine, Tickets(self._clock)
        engine.feed.attach(tickets)
        measures = Measures(self.metrics, engine.coordinator, engine.rooms)
        engine.feed.attach(measures)
        for tiering in engine.tierings:
            tiering.moved = measures.moved
        agent = AgentService(
            Serving(
                node=engine.node,
                coordinator=engine.coordinator,
                feed=engine.feed,
                tickets=tickets,
                rooms=engine.rooms,
                bandwidths=engine.bandwidths,
                sealings=engine.sealings,
                clock=engine.steady,
                told=engine.demand.told,
                unseated=self._unseated,
            )
        )
        runtime = RuntimeSocket(
            engine.containers, engine.coordinator, self._prober(), engine.wakings
        )
        self.servers = Servers(agent, runtime, engine.artifacts.lent_store, engine.artifacts.copies)
        self._relearner = Relearner(
            self._settings.runtime_root, runtime.answer, engine.tools.freezer, self._clock
        )
        notes = runtimecalls.beside(self._settings.socket).with_name(FOLDER)
        self._notes = Notes(notes, lambda: engine.coordinator.books)
        self._policy_change = PolicyChange(
            engine.policy.revision, self._policy_changed, self._clock
        )

    def _build_reporting(self) -> None:
        engine, clock = self._engine, self._clock
        self._neighbours = Neighbours(
            Surroundings(
                inventory=self._cards.inventory,
                picture=lambda: engine.coordinator.picture,
                kubelet=self._settings.podresources_socket.parent.parent,
                incomplete=tuple(engine.incomplete.values()),
                deviations=self._deviations,
                driver=self._cards.driver if isinstance(engine.usual, Real) else str,
            ),
            clock,
            self._found,
        )
        self._writer = Writer(
            engine.kube,
            Sources(
                node=engine.node,
                coordinator=engine.coordinator,
                lives=engine.lives,
                mechanism=engine.tools.mechanism.name,
                endpoint=self._settings.advertise,
                driver=self._cards.driver,
                measured=self._measured,
                uid_of=engine.watching.uid_of,
                conditions=self._neighbours.conditions,
                wall=engine.steady.to_wall,
                incomplete=engine.incomplete,
            ),
            clock,
        )
        self._eligibility = self._eligible()
        self._heartbeat = LeaseHeartbeat(
            engine.kube, NAMESPACE, f"kyb-agent-{engine.node}", engine.node, clock
        )
        engine.coordinator.on_change(lambda *_: self._writer.nudge())
        engine.coordinator.on_change(lambda *_: self._notes.refresh())

    def _deviations(self) -> tuple[Deviation, ...]:
        engine = self._engine
        return deviations(engine.coordinator.books.tenancies.values(), engine.steady.now())

    def _eligible(self) -> Eligibility | None:
        """None where nothing is real: what is simulated can always be parked."""
        engine = self._engine
        if not isinstance(engine.usual, Real):
            return None
        parts = Parts(
            lives=engine.lives.all,
            left=engine.usual.left,
            decisions=engine.decisions,
            patch=self._writer.patch_status,
        )
        return Eligibility(parts, self._clock)

    def _prober(self) -> Prober:
        engine = self._engine
        return probing.prober_of(
            probing.Agent(
                kube=engine.kube,
                lives=engine.lives,
                coordinator=engine.coordinator,
                containers=engine.containers,
                watching=engine.watching,
                sealing=LastSealing(engine.sealings),
                teller=engine.teller,
                clock=engine.steady,
                wall=self._clock,
            ),
            self.metrics,
        )

    def start(self) -> None:
        """Recover, then serve and decide; returns when all of it has begun."""
        self._telemetry.start()
        self._relearner.thaw_others(self._engine.recover())
        self._engine.start()
        self._policy_change.start()
        self._notes.begin()
        tls = TlsFiles(self._settings.tls_dir) if self._settings.tls_dir else None
        self.servers.start(self._settings.socket, self._settings.listen, tls)
        self._engine.watching.start()
        self._engine.artifacts.start()
        self._heartbeat.start()
        self._writer.start()
        self._neighbours.start()
        if self._eligibility:
            self._eligibility.start()
        self._relearner.start()
        get_logger(node=self._engine.node, groups=sorted(self._engine.groups)).info("serving")

    def stop(self) -> None:
        """Begin nothing more; end what is under way."""
        engine = self._engine
        self._relearner.stop()
        self._neighbours.stop()
        if self._eligibility:
            self._eligibility.stop()
        engine.feed.close()
        engine.sealings.stop()
        engine.wakings.stop()
        self.servers.stop()
        self._policy_change.stop()
        engine.stop()
        engine.watching.stop()
        engine.artifacts.stop()
        self._heartbeat.stop()
        self._writer.stop()
        engine.finish()
        self._telemetry.stop()

    def _found(self, new: Sequence[Finding], over: Sequence[Finding]) -> None:
        neighbours.tell(self._engine.events, self._engine.node, new, over)
        self._writer.nudge()

    def _policy_changed(self, revision: Revision) -> None:
        self._engine.coordinator.policy_changed(revision)
        self._writer.nudge()

    def _measured(self) -> Measured:
        return Measured(rooms=self._engine.rooms(), bandwidths=self._engine.bandwidths.all())

    def _unseated(self, resource: str) -> tuple[Wishes, ...]:
        try:
            seated = set(self._engine.seats.seats())
        except KubeletAway:
            seated = set()
        return self._engine.watching.unseated(resource, seated, behind=BEHIND_S)
