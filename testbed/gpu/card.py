"""
The cards of a service: what they are, from flags or a file, and how they are now.

Called by: `__main__` to make them, `device` to hold them.
Rule: memory is counted in pretended bytes, and `used` is what a card would show: contents that are
there, room that is kept for contents on their way in, and what strangers hold.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from kybernate.api.profiles import made_up_uuid
from kybernate.api.quantity import parse_bytes
from kybernate.model.gpu import Gpu
from testbed.gpu.bus import Lane
from testbed.gpu.errors import NoRoom, Sick

DEFAULT_BUS = 25e9  # bytes/s each way: what pinned copies reach over PCIe 4.0 x16


@dataclass
class Card:
    """One pretended card. Not thread safe: `device` holds its lock around every change."""

    gpu: Gpu
    out: Lane  # device to host
    into: Lane  # host to device
    used: int = 0  # by our contexts
    foreign: int = 0
    healthy: bool = True
    compute: threading.Lock = field(default_factory=threading.Lock)  # one kernel at a time

    @classmethod
    def of(cls, gpu: Gpu, bytes_per_second: float = DEFAULT_BUS) -> "Card":
        """An empty, healthy card whose bus does `bytes_per_second` each way."""
        return cls(gpu, Lane(bytes_per_second), Lane(bytes_per_second))

    @property
    def shown(self) -> int:
        """Bytes in use as NVML would show them."""
        return self.used + self.foreign

    def take(self, size: int) -> None:
        """Count `size` bytes as used. Raises NoRoom, and then nothing changed."""
        self._need(size)
        self.used += size

    def give(self, size: int) -> None:
        """Count them as free again."""
        self.used -= size

    def let_in(self, foreign: int) -> None:
        """A stranger holds `foreign` bytes from now on. Raises NoRoom as for anybody."""
        self._need(foreign - self.foreign)
        self.foreign = foreign

    def rate(self, bytes_per_second: float) -> None:
        """Change the bus, both ways; chunks under way keep their time."""
        self.out.bytes_per_second = bytes_per_second
        self.into.bytes_per_second = bytes_per_second

    def must_be_well(self) -> None:
        """Raises Sick when it is not."""
        if not self.healthy:
            raise Sick(f"card {self.gpu.index} is unhealthy")

    def _need(self, size: int) -> None:
        free = self.gpu.memory - self.shown
        if size > free:
            raise NoRoom(f"card {self.gpu.index}: {size} bytes asked for, {free} free")


def parse_cards(flags: Iterable[str], name: str) -> tuple[Gpu, ...]:
    """`PRODUCT=SIZE` each, numbered from 0. `name` makes the UUIDs; the same one, the same UUIDs.

    Raises ValueError naming the flag that cannot be read.
    """
    return tuple(_parse_card(index, flag, name) for index, flag in enumerate(flags))


def _parse_card(index: int, flag: str, name: str) -> Gpu:
    product, equals, size = flag.rpartition("=")
    if not equals or not product:
        raise ValueError(f"not a card: {flag!r} (expected PRODUCT=SIZE, like NVIDIA L4=24Gi)")
    return Gpu(
        index=index, uuid=made_up_uuid(name, index), product=product, memory=parse_bytes(size)
    )
