"""Which inventory a setting means. Called by: the device plugin, the node agent, `kyb topology`."""

from enum import StrEnum
from pathlib import Path

from kybernate.api.errors import Fault, Malformed
from kybernate.clients.gpus import Inventory
from kybernate.clients.gpus.listed import ListedGpus
from kybernate.clients.gpus.nvml import NvmlGpus
from kybernate.clients.gpus.simulated import SimulatedGpus
from kybernate.model.gpu import Gpu


class InventorySource(StrEnum):
    """Where the GPUs are asked for."""

    NVML = "nvml"
    LISTED = "listed"
    SIMULATED = "simulated"


def open_inventory(
    source: InventorySource, listed: tuple[Gpu, ...], simulated: Path | None
) -> Inventory:
    """The GPUs' source. `listed` are those of the profile file, `simulated` the device's socket.

    Raises Malformed where what the source needs is missing, InventoryAway where it does not answer.
    """
    match source:
        case InventorySource.LISTED:
            if not listed:
                raise Malformed([Fault("gpus", None, "a list of GPUs, as --inventory is listed")])
            return ListedGpus(listed)
        case InventorySource.SIMULATED:
            return SimulatedGpus(simulated_socket(simulated))
        case InventorySource.NVML:
            return NvmlGpus()


def open_answering(
    source: InventorySource, listed: tuple[Gpu, ...], simulated: Path | None
) -> tuple[Inventory, tuple[Gpu, ...]]:
    """The same, and its GPUs. One that does not answer is closed again: it is asked for in a loop.

    Raises as `open_inventory`.
    """
    inventory = open_inventory(source, listed, simulated)
    try:
        return inventory, inventory.gpus()
    except BaseException:
        inventory.close()
        raise


def simulated_socket(socket: Path | None) -> Path:
    """Raises Malformed where it is not given."""
    if socket is None:
        raise Malformed([Fault("--simulated-gpu", None, "the simulated device's socket")])
    return socket
