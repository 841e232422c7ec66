"""
Where the cards come from and what parks on them, by the settings. Called by `__main__`, `process`.
"""

import threading
from dataclasses import dataclass

from kybernate.api.errors import Fault, Malformed
from kybernate.api.profiles import ProfileFile, load_profiles
from kybernate.clients.gpus import Inventory, InventoryAway
from kybernate.clients.gpus.listed import ListedGpus
from kybernate.clients.gpus.nvml import NvmlGpus
from kybernate.clients.gpus.simulated import SimulatedGpus
from kybernate.model.gpu import Gpu
from kybernate.runtime.logs import get_logger
from nodeagent.mechanisms import Mechanism
from nodeagent.mechanisms.none import NoMechanism
from nodeagent.mechanisms.simulated import Simulated
from nodeagent.settings import InventorySource, Settings

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
    text = settings.profiles.read_text()
    listed = load_profiles(text).gpus
    log = get_logger()
    while not stop.is_set():
        try:
            inventory = _inventory(settings, listed)
            gpus = inventory.gpus()
            file = load_profiles(text, present={gpu.index for gpu in gpus})
            return Cards(inventory=inventory, gpus=gpus, file=file)
        except InventoryAway as problem:
            log.warning("the GPUs do not answer yet", why=str(problem))
            stop.wait(_RETRY_S)
    return None


def mechanism_of(settings: Settings) -> Mechanism:
    """What parks here."""
    if settings.inventory is InventorySource.SIMULATED:
        return Simulated(_simulated(settings))
    return NoMechanism()


def _inventory(settings: Settings, listed: tuple[Gpu, ...]) -> Inventory:
    match settings.inventory:
        case InventorySource.LISTED:
            if not listed:
                raise Malformed([Fault("gpus", None, "a list of GPUs, as --inventory is listed")])
            return ListedGpus(listed)
        case InventorySource.SIMULATED:
            return SimulatedGpus(_simulated(settings))
        case _:
            return NvmlGpus()


def _simulated(settings: Settings) -> str:
    if settings.simulated_gpu is None:
        raise Malformed([Fault("--simulated-gpu", None, "the simulated device's socket")])
    return str(settings.simulated_gpu)
