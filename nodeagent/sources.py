"""
Where the cards come from and what parks on them, by the settings. Called by `__main__`, `process`.
"""

import socket
import threading
from dataclasses import dataclass

from kybernate.api.profiles import ProfileFile, load_profiles
from kybernate.clients.clock import Clock
from kybernate.clients.gpus import GpuProcess, Inventory, InventoryAway
from kybernate.clients.gpus.choosing import (
    InventorySource,
    open_answering,
    simulated_socket,
)
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid, NodeName
from kybernate.model.workload import ParkMechanism
from kybernate.runtime import textfile
from kybernate.runtime.logs import get_logger
from nodeagent.cellar import Cellar, secret_in, sparing
from nodeagent.checkpoints.objects import Objects
from nodeagent.depot import Depot
from nodeagent.disk.pool import Pool
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezing
from nodeagent.linux.processes import of_container, started
from nodeagent.mechanisms import Body, Mechanism
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chosen import Chosen
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.moving import Notes
from nodeagent.mechanisms.none import NoMechanism
from nodeagent.mechanisms.real import Real
from nodeagent.mechanisms.simulated import Simulated
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.mechanisms.vllmsleep import VllmSleep
from nodeagent.probing import netns
from nodeagent.settings import Settings

_RETRY_S = 1.0
SLABS = ".chunks"  # in the pool's folder
WORKERS = "workers"  # beside our own socket; containers see the guests' folder, so never there


@dataclass(slots=True, kw_only=True)
class Cards:
    """The cards as found at the start. Indices and UUIDs do not change while we run."""

    inventory: Inventory
    gpus: tuple[Gpu, ...]
    file: ProfileFile
    _driver: str = ""

    def driver(self) -> str:
        """The driver's version; empty while it cannot be asked."""
        if not self._driver:
            try:
                self._driver = self.inventory.driver()
            except InventoryAway:
                return ""
        return self._driver


def await_cards(settings: Settings, stop: threading.Event) -> Cards | None:
    """Until the inventory answers; None when stopped before. Raises Malformed, OSError."""
    text = textfile.read(settings.profiles, "the profile file")
    listed = load_profiles(text).gpus
    log = get_logger()
    while not stop.is_set():
        try:
            inventory, gpus = open_answering(settings.inventory, listed, settings.simulated_gpu)
            return Cards(inventory=inventory, gpus=gpus, file=load_profiles(text))
        except InventoryAway as problem:
            log.warning("the GPUs do not answer yet", why=str(problem))
            stop.wait(_RETRY_S)
    return None


def pool_of(settings: Settings) -> Pool:
    """Where parked contents are kept. Raises OSError."""
    folder = settings.pool_dir or settings.state_dir / "pool"
    if settings.inventory is InventorySource.SIMULATED or settings.guest_socket is None:
        return Pool(folder, settings.pool_limit)
    chunks = Chunks(Slabs(folder / SLABS), settings.pool_limit)
    return Pool(folder, settings.pool_limit, BulkOfChunks(folder, chunks))


def cellar_of(settings: Settings, pool: Pool, clock: Clock) -> Cellar:
    """Where contents go that leave the pool. Its key is made where the pool is. Raises OSError."""
    folder = settings.nvme_dir or settings.state_dir / "parked"
    free = sparing(settings.nvme_keep_free)
    return Cellar(folder, settings.nvme_limit, secret_in(pool.folder), clock, free=free)


def depot_of(
    settings: Settings, pool: Pool, objects: Objects, node: NodeName, clock: Clock
) -> Depot:
    """Where contents go that leave NVMe: into the store of checkpoints, where there is one. Raises
    OSError, BadKey."""
    limit, secret = settings.object_limit, secret_in(pool.folder)
    return Depot(objects.store, node, limit, secret, clock, objects.link)


def mechanism_of(
    settings: Settings, pool: Pool, freezer: Freezing, cgroups: Cgroups, inventory: Inventory
) -> Mechanism:
    """What parks here."""
    if settings.inventory is InventorySource.SIMULATED:
        return Simulated(str(simulated_socket(settings.simulated_gpu)), freezer, cgroups)
    if settings.guest_socket is not None and isinstance(pool.bulk, BulkOfChunks):
        guests, workers = Guests(settings.guest_socket), settings.socket.parent / WORKERS
        guest = GuestMechanism(guests, pool.bulk, workers, freezer, cgroups)
        if settings.pool_pressing:
            guest.press_in_the_background()
        return _real(guest, pool, freezer, cgroups, inventory)
    return NoMechanism()


def _real(
    guest: GuestMechanism, pool: Pool, freezer: Freezing, cgroups: Cgroups, inventory: Inventory
) -> Real:
    """All that works with one set of workers."""
    states = DriverStates(guest.worker)

    def held(body: Body) -> dict[int, int]:
        found: dict[int, int] = {}
        for one in _of(body, inventory, cgroups):
            found[one.pid] = found.get(one.pid, 0) + one.used
        return found

    deep = Deep(guest, states, lambda body: sum(held(body).values()), Notes(pool))
    return Real(deep, DriverMechanism(states, held, freezer, pool))


def _of(body: Body, inventory: Inventory, cgroups: Cgroups) -> tuple[GpuProcess, ...]:
    """The workload's processes on the cards."""
    return of_container(inventory.processes(), body.pid, body.container_id, cgroups)


def by_wish(usual: Mechanism, inventory: Inventory, freezer: Freezing, clock: Clock) -> Mechanism:
    """`usual`, but for the workloads whose pods ask for another one (`kyb.ai/park`)."""
    network, cgroups = netns.Namespaces(), Cgroups()

    def reach(body: Body, address: tuple[str, int], limit: float) -> socket.socket:
        process = netns.Process(body.pid, started(body.pid) or 0)
        return netns.connect(network, process, *address, limit)

    def holdings(body: Body) -> dict[GpuUuid, int]:
        held = dict.fromkeys(body.gpus, 0)
        for one in _of(body, inventory, cgroups):
            if one.uuid in held:
                held[one.uuid] += one.used
        return held

    sleep = VllmSleep(freezer, clock, reach, holdings)
    wishes: dict[ParkMechanism, Mechanism] = {ParkMechanism.VLLM_SLEEP: sleep}
    if isinstance(usual, Real):
        wishes[ParkMechanism.DRIVER] = usual.driver
    return Chosen(usual, wishes)
