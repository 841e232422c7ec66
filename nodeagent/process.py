"""
The parts of the node agent, put together, started and stopped in order. Called by `__main__`.

Order of a start: cards, journal and pool, recovery; then the servers, the watches, the coordinator.
Nothing waits for the API server. Order of a stop: no new work, switches under way end, the last
statuses are written. Workloads run on; parked ones stay parked.
"""

import os
import signal
from collections.abc import Sequence

from kybernate.clients import runtimecalls
from kybernate.clients.clock import Clock
from kybernate.clients.decisions import DecisionRecorder
from kybernate.clients.events import EventRecorder
from kybernate.clients.kube import Kube
from kybernate.clients.leases import LeaseHeartbeat
from kybernate.clients.opa import OpaPolicy
from kybernate.decisions.books import Books
from kybernate.decisions.grouping import groups_of, missing
from kybernate.model.ids import NodeName, Revision
from kybernate.model.tier import Tier
from kybernate.model.workload import Wishes
from kybernate.runtime import serving
from kybernate.runtime.health import Health
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.tls import TlsFiles
from nodeagent import checkpointing, neighbours, processes, recovery
from nodeagent.announcements import Announcements
from nodeagent.api.agent_service import AgentService, Serving
from nodeagent.api.runtime_socket import RuntimeSocket
from nodeagent.api.servers import Servers
from nodeagent.api.tickets import Tickets
from nodeagent.bandwidth import Bandwidths
from nodeagent.cards import CardWatch
from nodeagent.cgroups import Cgroups
from nodeagent.changes import Changes
from nodeagent.checkpointing import LastSealing
from nodeagent.checkpoints.artifacts import Artifacts, Place
from nodeagent.coexistence import Finding
from nodeagent.containers import Containers, Node
from nodeagent.coordinator import Coordinator
from nodeagent.feed import Feed
from nodeagent.freezer import Freezer
from nodeagent.journal import BreakingJournal, FileJournal, Journal
from nodeagent.keeping import Keeper
from nodeagent.lifelines import Lifelines
from nodeagent.lives import Lives
from nodeagent.measures import Measures
from nodeagent.mechanisms.none import NoMechanism
from nodeagent.neighbours import Neighbours, Surroundings
from nodeagent.newcomers import Place as Newcomers
from nodeagent.podresources import KubeletAway, KubeletSeats
from nodeagent.policychange import PolicyChange
from nodeagent.pool import Pool
from nodeagent.probing import wiring as probing
from nodeagent.probing.notes import FOLDER, Notes
from nodeagent.probing.prober import Prober
from nodeagent.recovery import Recovered
from nodeagent.relearning import Relearner
from nodeagent.reporting.standing import Measured
from nodeagent.reporting.teller import KubeTeller
from nodeagent.reporting.writer import Sources, Writer
from nodeagent.settings import Settings
from nodeagent.sources import Cards, mechanism_of
from nodeagent.stage import Stage
from nodeagent.steady import ByTheWall, SteadyClock
from nodeagent.stories import Limits, Tools
from nodeagent.switching import GpuLocks, Switches
from nodeagent.watching import Watching

CONTROLLER = "kyb.ai/nodeagent"
NAMESPACE = "kyb-system"
# A switch that waits for work to drain ends within the drain limit; what comes after, copies
# included, within this.
SETTLE = 30.0
FAULT = "KYB_FAULT"  # before:MARK or after:MARK, for crash tests: see `journal.BreakingJournal`


class Process:
    """One running agent."""

    def __init__(self, settings: Settings, cards: Cards, clock: Clock) -> None:
        self._settings, self._clock, self._cards = settings, clock, cards
        self._steady = SteadyClock(clock, settings.state_dir, processes.boot_id())
        self._node = NodeName(settings.node)
        self._kube = Kube.connect(settings.kubeconfig)
        self._policy = OpaPolicy(settings.opa_url)
        formed = groups_of(cards.file.profiles, cards.gpus, cards.file.listed)
        self._incomplete = {g.name: g for g in formed if missing(g, cards.gpus)}
        self._groups = {g.name: g for g in formed if g.name not in self._incomplete}
        self._uuids = {gpu.index: gpu.uuid for gpu in cards.gpus}
        self._lives, self._feed, self._bandwidths = Lives(), Feed(), Bandwidths()
        self._artifacts = self._make_artifacts()
        self._build_tools()
        self._build_telling()
        self._build_coordination()
        self._build_serving()

    def _make_artifacts(self) -> Artifacts:
        settings = self._settings
        place = Place(
            folder=settings.checkpoint_dir or settings.state_dir / "checkpoints",
            limit=settings.checkpoint_limit,
            keys=settings.checkpoint_keys,
            client_tls=settings.client_tls_dir,
        )
        return Artifacts(place, self._kube, self._node, self._clock)

    def _build_tools(self) -> None:
        settings, clock = self._settings, self._clock
        cgroups = Cgroups()
        freezer = Freezer(clock, cgroups)
        self._file_journal = FileJournal(settings.state_dir / "journal")
        self._pool = Pool(settings.pool_dir or settings.state_dir / "pool", settings.pool_limit)
        self._watch = CardWatch(
            self._cards.inventory,
            self._groups,
            self._lives,
            clock,
            cgroups,
            lambda: (self._pool.room().free, self._bandwidths.bus()),
        )
        self._tools = Tools(
            journal=_breaking(self._file_journal),
            pool=self._pool,
            mechanism=mechanism_of(settings, freezer, cgroups),
            cards=self._watch,
            clock=self._steady,
            freezer=freezer,
            limits=Limits(drain=settings.drain_limit),
        )

    def _build_telling(self) -> None:
        self._events = EventRecorder(self._kube, CONTROLLER, self._node, self._clock)
        self._decisions = DecisionRecorder(self._kube, self._events, self._clock)
        self._teller = KubeTeller(
            self._node,
            self._decisions,
            self._events,
            lambda: self._coordinator.revision,
            self._clock,
            self._steady,
        )

    def _build_coordination(self) -> None:
        stage = Stage(
            tools=self._tools, feed=self._feed, teller=self._teller, bandwidths=self._bandwidths
        )
        self._switches = Switches(
            stage=stage, lives=self._lives, locks=GpuLocks(self._uuids), teller=self._teller
        )
        books = Books(
            memory={gpu.index: gpu.memory for gpu in self._cards.gpus},
            groups=self._groups,
            pool_free=self._pool.room().free,
            switch_seconds=self._settings.switch_seconds,
        )
        self._coordinator = Coordinator(
            books,
            ByTheWall(self._policy, self._clock),
            self._switches,
            self._watch.look,
            self._teller,
            self._steady,
        )
        parts = checkpointing.Parts(
            node=self._node,
            kube=self._kube,
            cards=self._cards,
            artifacts=self._artifacts,
            stage=stage,
            lives=self._lives,
            coordinator=self._coordinator,
            criu_plugins=self._settings.criu_plugins,
            wall=self._clock,
        )
        self._sealings = checkpointing.sealings_of(parts)
        self._keeper = Keeper(self._lives, self._tools.journal, lambda: self._coordinator.books)
        self._lifelines = Lifelines()
        self._seats = KubeletSeats(self._settings.podresources_socket)
        self._watching = Watching(self._kube, self._node, self._nudge, self._coordinator.desire)
        boot = processes.boot_id()
        node = Node(
            groups=self._groups,
            uuids=self._uuids,
            place=Newcomers(
                uuids=self._uuids,
                boot=boot,
                clock=self._steady,
                parkable=self._tools.mechanism.name != NoMechanism.name,
            ),
            seats=self._seats,
            journal=self._tools.journal,
            announcements=Announcements(self._settings.state_dir / "announced", boot),
            pool=self._pool,
            clock=self._steady,
            pod_of=self._watching.pod,
            pods=self._watching.pods,
            synced=lambda: self._watching.synced,
            desired_of=self._watching.desired,
            forget=lambda life: self._tools.mechanism.forget(life.body),
        )
        self._containers = Containers(
            node, self._lives, self._lifelines, self._coordinator, self._teller
        )
        woken = self._settings.state_dir / "woken"
        self._wakings = checkpointing.wakings_of(parts, node, self._containers, woken)

    def _build_serving(self) -> None:
        clock, coordinator = self._clock, self._coordinator
        tickets = Tickets(clock)
        self.metrics, self.health = Metrics(), Health()
        self._feed.attach(tickets)
        self._feed.attach(Measures(self.metrics, coordinator))
        agent = AgentService(
            Serving(
                node=self._node,
                coordinator=coordinator,
                feed=self._feed,
                tickets=tickets,
                pool=self._pool,
                bandwidths=self._bandwidths,
                sealings=self._sealings,
                clock=self._steady,
                unseated=self._unseated,
            )
        )
        runtime = RuntimeSocket(self._containers, coordinator, self._prober(), self._wakings)
        self.servers = Servers(agent, runtime, self._artifacts.lending)
        self._relearner = Relearner(
            self._settings.runtime_root, runtime.answer, self._tools.freezer, clock
        )
        notes = runtimecalls.beside(self._settings.socket).with_name(FOLDER)
        self._notes = Notes(notes, lambda: coordinator.books)
        self._neighbours = Neighbours(
            Surroundings(
                inventory=self._cards.inventory,
                picture=lambda: coordinator.picture,
                kubelet=self._settings.podresources_socket.parent.parent,
                incomplete=tuple(self._incomplete.values()),
            ),
            clock,
            self._found,
        )
        self._writer = Writer(
            self._kube,
            Sources(
                node=self._node,
                coordinator=coordinator,
                lives=self._lives,
                mechanism=self._tools.mechanism.name,
                endpoint=self._settings.advertise,
                driver=self._cards.driver,
                measured=self._measured,
                uid_of=self._watching.uid_of,
                conditions=self._neighbours.conditions,
                wall=self._steady.to_wall,
                incomplete=self._incomplete,
            ),
            clock,
        )
        self._policy_change = PolicyChange(self._policy.revision, self._policy_changed, self._clock)
        self._heartbeat = LeaseHeartbeat(
            self._kube, NAMESPACE, f"kyb-agent-{self._node}", self._node, clock
        )
        coordinator.on_change(Changes(self._feed).changed)
        coordinator.on_change(self._keeper.changed)
        coordinator.on_change(lambda *_: self._writer.nudge())
        coordinator.on_change(lambda *_: self._notes.refresh())
        coordinator.on_change(self._sealings.changed)
        self.health.ready("gpus", lambda: None if coordinator.picture else "not seen yet")
        self._telemetry = serving.telemetry(
            self._settings.metrics_listen, self.health, self.metrics
        )

    def _prober(self) -> Prober:
        return probing.prober_of(
            probing.Agent(
                kube=self._kube,
                lives=self._lives,
                coordinator=self._coordinator,
                containers=self._containers,
                watching=self._watching,
                sealing=LastSealing(self._sealings),
                teller=self._teller,
                clock=self._steady,
                wall=self._clock,
            ),
            self.metrics,
        )

    def start(self) -> None:
        """Recover, then serve and decide; returns when all of it has begun."""
        self._telemetry.start()
        self._lifelines.start()
        self._keeper.start()
        self._recover()
        self._probe()
        self._coordinator.start()
        self._policy_change.start()
        self._containers.start()
        self._notes.begin()
        tls = TlsFiles(self._settings.tls_dir) if self._settings.tls_dir else None
        self.servers.start(self._settings.socket, self._settings.listen, tls)
        self._watching.start()
        self._artifacts.start()
        self._heartbeat.start()
        self._writer.start()
        self._neighbours.start()
        self._relearner.start()
        get_logger(node=self._node, groups=sorted(self._groups)).info("serving")

    def stop(self) -> None:
        """Begin nothing more; end what is under way."""
        self._relearner.stop()
        self._neighbours.stop()
        self._feed.close()
        self._sealings.stop()
        self._wakings.stop()
        self.servers.stop()
        self._containers.stop()
        self._policy_change.stop()
        self._coordinator.stop(self._settings.drain_limit + SETTLE)
        self._watching.stop()
        self._artifacts.stop()
        self._keeper.stop()
        self._heartbeat.stop()
        self._writer.stop()
        self._decisions.stop()
        self._events.stop()
        self._lifelines.stop()
        self._telemetry.stop()
        self._cards.inventory.close()

    def _found(self, new: Sequence[Finding], over: Sequence[Finding]) -> None:
        neighbours.tell(self._events, self._node, new, over)
        self._writer.nudge()

    def _policy_changed(self, revision: Revision) -> None:
        self._coordinator.policy_changed(revision)
        self._writer.nudge()

    def _recover(self) -> None:
        found = recovery.recover(
            self._file_journal, self._tools, self._groups, self._uuids, processes.boot_id()
        )
        for life in found.lives:
            self._coordinator.restore(life.tenancy())
        for life in found.lives:
            self._containers.adopt(life)
        self._containers.remember()
        self._wakings.go_on(found.lives)
        recorded = {life.id for life in found.lives} | {one.container_id for one in found.stranded}
        self._relearner.thaw_others(recorded | {one.uid for one in found.corrupt})
        self._say(found)

    def _say(self, found: Recovered) -> None:
        log = get_logger()
        for life, why in found.lost:
            self._teller.quarantined(life, why)
        for one in found.corrupt:
            log.error(
                "a journal record is unreadable", uid=one.uid, why=one.why, kept=str(one.path)
            )
            self._containers.unreadable(one.uid, one.why)
        for left in found.stranded:
            log.error("stranded", workload=str(left.key), group=left.seat.group, mark=left.mark)
            self._teller.stranded(left)

    def _probe(self) -> None:
        """Begin the measurement of the bus: placement's first estimates depend on it."""
        for uuid in self._uuids.values():
            measured = self._tools.mechanism.probe(uuid)
            if measured is not None:
                self._bandwidths.measured(Tier.RAM, *measured)

    def _measured(self) -> Measured:
        rooms = {Tier.RAM: self._pool.room()}
        return Measured(rooms=rooms, bandwidths=self._bandwidths.all())

    def _nudge(self) -> None:
        self._containers.nudge()

    def _unseated(self, resource: str) -> tuple[Wishes, ...]:
        try:
            seated = set(self._seats.seats())
        except KubeletAway:
            seated = set()
        return self._watching.unseated(resource, seated)


def _breaking(journal: FileJournal) -> Journal:
    """The journal, or one that ends the process at a chosen point: fault injection."""
    point = os.environ.get(FAULT)
    if not point:
        return journal
    return BreakingJournal(journal, point, lambda: os.kill(os.getpid(), signal.SIGKILL))
