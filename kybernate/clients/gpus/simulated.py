"""The testbed's simulated GPUs as an inventory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kybernate.clients.errors import Refused, Retry
from kybernate.clients.gpus import Ailment, GpuProcess, InventoryAway, Setup
from kybernate.clients.simgpu import Driver, Showing
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid


class SimulatedGpus:
    """An `Inventory` over the device's unix socket."""

    def __init__(self, address: str | Path) -> None:
        self._driver = Driver(address)

    def gpus(self) -> tuple[Gpu, ...]:
        """Every card with its health now."""
        return self._showing().gpus

    def usage(self) -> Mapping[GpuUuid, int]:
        """Bytes in use, strangers' included."""
        return self._showing().used

    def processes(self) -> tuple[GpuProcess, ...]:
        """Every context, once per card it may use."""
        return tuple(
            GpuProcess(
                pid=one.pid,
                uuid=one.uuid,
                used=one.used,
                idle_seconds=one.idle_seconds,
                submitted=one.submitted,
            )
            for one in self._showing().processes
        )

    def setups(self) -> Mapping[GpuUuid, Setup]:
        """Simulated cards are always whole, and open to many."""
        return {gpu.uuid: Setup() for gpu in self.gpus()}

    def ailments(self) -> Mapping[GpuUuid, tuple[Ailment, ...]]:
        """None is known."""
        return {}

    def driver(self) -> str:
        """What the device calls itself."""
        return self._showing().driver

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def _showing(self) -> Showing:
        with _away():
            return self._driver.showing()


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (Refused, Retry) as error:
        raise InventoryAway(str(error)) from error
