"""
The GPUs a profile file lists: where nothing can be asked, or in tests.

Rule: it knows what was written, so nothing is ever in use and nothing is ever sick.
"""

from collections.abc import Mapping

from kybernate.clients.gpus import Ailment, GpuProcess, Setup
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid


class ListedGpus:
    """An `Inventory` of fixed cards (`ProfileFile.gpus`)."""

    def __init__(self, gpus: tuple[Gpu, ...]) -> None:
        self._gpus = gpus

    def gpus(self) -> tuple[Gpu, ...]:
        """As listed."""
        return self._gpus

    def usage(self) -> Mapping[GpuUuid, int]:
        """Nothing is in use."""
        return {gpu.uuid: 0 for gpu in self._gpus}

    def processes(self) -> tuple[GpuProcess, ...]:
        """Nobody is there."""
        return ()

    def setups(self) -> Mapping[GpuUuid, Setup]:
        """Nothing is known of that."""
        return {}

    def ailments(self) -> Mapping[GpuUuid, tuple[Ailment, ...]]:
        """None is known."""
        return {}

    def driver(self) -> str:
        """No driver was asked."""
        return "listed"

    def close(self) -> None:
        """Nothing to let go of."""
