"""
Where the cards come from and what parks on them, by the settings. Called by `__main__`, `process`.
"""

import threading
from dataclasses import dataclass

from kybernate.api.profiles import ProfileFile, load_profiles
from kybernate.clients.gpus import Inventory, InventoryAway
from kybernate.clients.gpus.choosing import (
    InventorySource,
    open_answering,
    simulated_socket,
)
from kybernate.model.gpu import Gpu
from kybernate.runtime import textfile
from kybernate.runtime.logs import get_logger
from nodeagent.cgroups import Cgroups
from nodeagent.freezer import Freezing
from nodeagent.mechanisms import Mechanism
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.none import NoMechanism
from nodeagent.mechanisms.simulated import Simulated
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.settings import Settings

_RETRY_S = 1.0


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


def mechanism_of(settings: Settings, freezer: Freezing, cgroups: Cgroups) -> Mechanism:
    """What parks here."""
    if settings.inventory is InventorySource.SIMULATED:
        return Simulated(str(simulated_socket(settings.simulated_gpu)), freezer, cgroups)
    if settings.guest_socket is not None:
        slabs = Slabs((settings.pool_dir or settings.state_dir / "pool") / ".slabs")
        return GuestMechanism(Guests(settings.guest_socket), slabs, freezer, cgroups)
    return NoMechanism()
