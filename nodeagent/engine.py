"""
What decides and carries out on a node, put together: tools, books, switches, sealing and waking.

Called by: `process`, which adds whom it listens to and whom it tells. Order of a start: recovery,
then the coordinator; what was half done is ended or undone before anything is decided.
"""

import os
import signal
from functools import partial

from kybernate.clients.clock import Clock
from kybernate.clients.decisions import DecisionRecorder
from kybernate.clients.events import EventRecorder
from kybernate.clients.kube import Kube
from kybernate.clients.opa import OpaPolicy
from kybernate.decisions.books import Books
from kybernate.decisions.grouping import groups_of, missing
from kybernate.model.ids import NodeName
from kybernate.model.tier import Room, Tier
from kybernate.runtime.logs import get_logger
from nodeagent import checkpointing
from nodeagent.checkpoints.artifacts import Artifacts, Place
from nodeagent.checkpoints.objects import Given
from nodeagent.containers.learning import Containers, Node
from nodeagent.containers.podresources import KubeletSeats
from nodeagent.demand import wiring as demand
from nodeagent.disk.announcements import Announcements
from nodeagent.disk.journal import BreakingJournal, FileJournal, Journal
from nodeagent.disk.woken import WokenNotes
from nodeagent.gpus.cards import Below, CardWatch
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.linux.lifelines import Lifelines
from nodeagent.lives.feed import Feed
from nodeagent.lives.keeping import Keeper
from nodeagent.lives.life import Life, Lives
from nodeagent.lives.newcomers import Place as Newcomers
from nodeagent.mechanisms.none import NoMechanism
from nodeagent.mechanisms.real import Real
from nodeagent.reporting.teller import KubeTeller
from nodeagent.settings import Settings
from nodeagent.sources import Cards, by_wish, cellar_of, depot_of, mechanism_of, pool_of
from nodeagent.steady import ByTheWall, SteadyClock
from nodeagent.stories import recovery
from nodeagent.stories.bandwidth import Bandwidths
from nodeagent.stories.recovery import Recovered
from nodeagent.stories.stage import Stage
from nodeagent.stories.story import Limits, Tools
from nodeagent.tiering import Tiering
from nodeagent.turns.changes import Changes
from nodeagent.turns.coordinator import Coordinator
from nodeagent.turns.switching import GpuLocks, Switches, how_it_lies
from nodeagent.watching import Watching

# A switch that waits for work to drain ends within the drain limit; what comes after, copies
# included, within this.
SETTLE = 30.0
CONTROLLER = "kyb.ai/nodeagent"
FAULT = "KYB_FAULT"  # before:MARK or after:MARK, for crash tests: see `journal.BreakingJournal`


class Engine:
    """What of the agent works without being asked. Its parts are there to be asked."""

    def __init__(self, settings: Settings, cards: Cards, clock: Clock) -> None:
        self._settings, self._clock, self._cards = settings, clock, cards
        self.steady = SteadyClock(clock, settings.state_dir, processes.boot_id())
        self.node = NodeName(settings.node)
        self.kube = Kube.connect(settings.kubeconfig)
        self.policy = OpaPolicy(settings.opa_url)
        formed = groups_of(cards.file.profiles, cards.gpus, cards.file.listed)
        self.incomplete = {g.name: g for g in formed if missing(g, cards.gpus)}
        self.groups = {g.name: g for g in formed if g.name not in self.incomplete}
        self._uuids = {gpu.index: gpu.uuid for gpu in cards.gpus}
        self.lives, self.feed, self.bandwidths = Lives(), Feed(), Bandwidths()
        self.artifacts = self._make_artifacts()
        self._build_tools()
        self._build_telling()
        self._build_coordination()
        self.demand = demand.of(self._demand_parts())
        self.coordinator.on_change(Changes(self.feed).changed)
        self.coordinator.on_change(self._keeper.changed)
        self.coordinator.on_change(self.sealings.changed)

    def _make_artifacts(self) -> Artifacts:
        settings = self._settings
        place = Place(
            folder=settings.checkpoint_dir or settings.state_dir / "checkpoints",
            limit=settings.checkpoint_limit,
            memory=settings.image_dir,
            keys=settings.checkpoint_keys,
            wrapping=settings.checkpoint_wrapping_keys,
            client_tls=settings.client_tls_dir,
            registry=settings.registry,
            objects=Given(place=settings.checkpoint_store),
        )
        measured = partial(self.bandwidths.measured, Tier.OBJECT)
        return Artifacts(place, self.kube, self.node, self._clock, measured)

    def _build_tools(self) -> None:
        settings, clock = self._settings, self._clock
        cgroups = self._cgroups = Cgroups()
        freezer = Freezer(clock, cgroups)
        self._file_journal = FileJournal(settings.state_dir / "journal")
        self.pool = pool_of(settings)
        self.cellar = cellar_of(settings, self.pool, clock)
        self.depot = depot_of(settings, self.pool, self.artifacts.objects, self.node, clock)
        self._watch = CardWatch(
            self._cards.inventory,
            self.groups,
            self.lives,
            clock,
            cgroups,
            self._below,
        )
        inventory = self._cards.inventory
        self.usual = mechanism_of(settings, self.pool, freezer, cgroups, inventory)
        self.tools = Tools(
            journal=_breaking(self._file_journal),
            pool=self.pool,
            cellar=self.cellar,
            depot=self.depot,
            mechanism=by_wish(self.usual, inventory, freezer, clock),
            cards=self._watch,
            clock=self.steady,
            freezer=freezer,
            limits=Limits(drain=settings.drain_limit),
        )

    def _below(self) -> Below:
        """The tiers below the cards."""
        nvme = self.cellar.room()
        return Below(
            pool_free=self.pool.room().free,
            nvme_size=nvme.capacity,
            nvme_free=nvme.free,
            object_free=self.depot.room().free,
            rates=self.bandwidths.all(),
        )

    def rooms(self) -> dict[Tier, Room]:
        """What the tiers below the cards hold, and could."""
        rooms = {Tier.RAM: self.pool.room(), Tier.NVME: self.cellar.room()}
        return {**rooms, Tier.OBJECT: self.depot.room()} if self.depot.given else rooms

    def _build_telling(self) -> None:
        self.events = EventRecorder(self.kube, CONTROLLER, self.node, self._clock)
        self.decisions = DecisionRecorder(self.kube, self.events, self._clock)
        self.teller = KubeTeller(
            self.node,
            self.decisions,
            self.events,
            lambda: self.coordinator.revision,
            self._clock,
            self.steady,
        )

    def _build_coordination(self) -> None:
        stage = Stage(
            tools=self.tools, feed=self.feed, teller=self.teller, bandwidths=self.bandwidths
        )
        self._switches = Switches(
            stage=stage, lives=self.lives, locks=GpuLocks(self._uuids), teller=self.teller
        )
        books = Books(
            memory={gpu.index: gpu.memory for gpu in self._cards.gpus},
            groups=self.groups,
            pool_size=self.pool.limit,
            pool_free=self.pool.room().free,
            switch_seconds=self._settings.switch_seconds,
        )
        self.coordinator = Coordinator(
            books,
            ByTheWall(self.policy, self._clock),
            self._switches,
            self._watch.look,
            self.teller,
            self.steady,
        )
        parts = checkpointing.Parts(
            node=self.node,
            kube=self.kube,
            cards=self._cards,
            artifacts=self.artifacts,
            stage=stage,
            lives=self.lives,
            coordinator=self.coordinator,
            criu_plugins=self._settings.criu_plugins,
            policy=self.policy,
            notes=WokenNotes(self._settings.state_dir / "woken"),
            wall=self._clock,
        )
        self.sealings = checkpointing.sealings_of(parts)
        self.tierings = tuple(
            Tiering(
                stage=stage,
                lives=self.lives,
                coordinator=self.coordinator,
                asks=ByTheWall(self.policy, self._clock),
                teller=self.teller,
                far=far,
            )
            for far in ((False, True) if self.depot.given else (False,))
        )
        self._keeper = Keeper(self.lives, self.tools.journal, lambda: self.coordinator.books)
        self._lifelines = Lifelines()
        self.seats = KubeletSeats(self._settings.podresources_socket)
        self.watching = Watching(self.kube, self.node, self._nudge, self.coordinator.desire)
        boot = processes.boot_id()
        node = Node(
            groups=self.groups,
            uuids=self._uuids,
            place=Newcomers(
                uuids=self._uuids,
                boot=boot,
                clock=self.steady,
                parkable=self.tools.mechanism.name != NoMechanism.name,
            ),
            seats=self.seats,
            journal=self.tools.journal,
            announcements=Announcements(self._settings.state_dir / "announced", boot),
            pool=self.pool,
            cellar=self.cellar,
            depot=self.depot,
            clock=self.steady,
            pod_of=self.watching.pod,
            pods=self.watching.pods,
            synced=lambda: self.watching.synced,
            desired_of=self.watching.desired,
            forget=self._forget,
        )
        self.containers = Containers(
            node, self.lives, self._lifelines, self.coordinator, self.teller
        )
        self.wakings = checkpointing.wakings_of(parts, node, self.containers)

    def _demand_parts(self) -> demand.Parts:
        return demand.Parts(
            lives=self.lives,
            coordinator=self.coordinator,
            policy=self.policy,
            cgroups=self._cgroups,
            clock=self.steady,
            on_connect=self._settings.wake_on_connect,
            pod_of=self.watching.pod,
            pods_known=lambda: self.watching.synced,
            guests=self.usual.guest if isinstance(self.usual, Real) else None,
        )

    def recover(self) -> frozenset[str]:
        """End or undo what a former agent left; the containers that are accounted for, by id, and
        the pods whose record could not be read, by uid."""
        self._lifelines.start()
        self._keeper.start()
        found = recovery.recover(
            self._file_journal, self.tools, self.groups, self._uuids, processes.boot_id()
        )
        for life in found.lives:
            self.coordinator.restore(life.tenancy())
            movable, through_ram = how_it_lies(self.tools.mechanism, life.body)
            self.coordinator.lies(life.key, movable=movable, through_ram=through_ram)
        for life in found.lives:
            self.containers.adopt(life)
        self.containers.remember()
        self.wakings.go_on(found.lives)
        self._say(found)
        recorded = {life.id for life in found.lives} | {one.container_id for one in found.stranded}
        return frozenset(recorded | {one.uid for one in found.corrupt})

    def start(self) -> None:
        """Decide; returns at once."""
        self._probe()
        self.coordinator.start()
        self.containers.start()
        self.demand.start()
        self.depot.start()
        for tiering in self.tierings:
            tiering.start()

    def stop(self) -> None:
        """Begin no more switches; those under way have ended when this returns."""
        for tiering in self.tierings:
            tiering.stop()
        self.depot.stop()
        self.demand.stop()
        self.containers.stop()
        self.coordinator.stop(self._settings.drain_limit + SETTLE)

    def finish(self) -> None:
        """Write what is still to be written, and let go of the cards."""
        self._keeper.stop()
        self.decisions.stop()
        self.events.stop()
        self._lifelines.stop()
        self._cards.inventory.close()

    def _say(self, found: Recovered) -> None:
        log = get_logger()
        for life, why in found.lost:
            self.teller.quarantined(life, why)
        for one in found.corrupt:
            log.error(
                "a journal record is unreadable", uid=one.uid, why=one.why, kept=str(one.path)
            )
            self.containers.unreadable(one.uid, one.why)
        for left in found.stranded:
            log.error("stranded", workload=str(left.key), group=left.seat.group, mark=left.mark)
            self.teller.stranded(left)

    def _probe(self) -> None:
        """Begin the measurement of the bus: placement's first estimates depend on it."""
        for uuid in self._uuids.values():
            measured = self.tools.mechanism.probe(uuid)
            if measured is not None:
                self.bandwidths.measured(Tier.RAM, *measured)

    def _nudge(self) -> None:
        self.containers.nudge()

    def _forget(self, life: Life) -> None:
        self.wakings.over(life)
        self.tools.mechanism.forget(life.body)


def _breaking(journal: FileJournal) -> Journal:
    """The journal, or one that ends the process at a chosen point: fault injection."""
    point = os.environ.get(FAULT)
    if not point:
        return journal
    return BreakingJournal(journal, point, lambda: os.kill(os.getpid(), signal.SIGKILL))
