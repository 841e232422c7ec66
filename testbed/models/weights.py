"""
A model's memory on its cards: filled with a pattern of its own, counted in, and checked.

Called by: `serve`, `train`.
Rule: the counter is on the first card. The checksum of every card's part is taken once, after
filling; whatever differs later was lost on the way.
"""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from kybernate.api import names
from kybernate.clients.simgpu import Attachment


class NoGpu(Exception):
    """The container was given none."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is on one card."""

    segment: str
    checksum: str


class Weights:
    """Thread safe. Every method waits while the GPU is somebody else's."""

    def __init__(self, attachment: Attachment, parts: tuple[Part, ...]) -> None:
        self.attachment = attachment
        self._parts = parts

    @classmethod
    def load(cls, vram: int, environment: Mapping[str, str]) -> "Weights":
        """Take `vram` bytes, spread evenly over the container's cards, and fill them.

        Raises NoGpu, and what the simulated GPU's client raises: OutOfMemory, DeviceAway.
        """
        address = environment.get(names.ENV_DEVICE_SOCKET, "")
        cards = [card for card in environment.get(names.ENV_CUDA, "").split(",") if card]
        if not address or not cards:
            raise NoGpu(f"{names.ENV_DEVICE_SOCKET} and {names.ENV_CUDA} must be set")
        attachment = Attachment(address, os.getpid(), cards)
        seed = zlib.crc32(environment.get("POD_NAME", "").encode())
        sizes = _spread(vram, len(cards))
        parts = [
            _fill(attachment, card, size, seed + number)
            for number, (card, size) in enumerate(zip(cards, sizes, strict=True))
        ]
        return cls(attachment, tuple(parts))

    def count(self) -> int:
        """One more; the new value."""
        return self.attachment.increment(self._parts[0].segment)

    def counted(self) -> int:
        """The counter as it is in the card's memory."""
        return self.attachment.increment(self._parts[0].segment, by=0)

    def busy(self, seconds: float) -> None:
        """Keep the first card busy."""
        self.attachment.busy(self._parts[0].segment, seconds)

    def intact(self) -> bool:
        """Whether everything on every card is as it was filled."""
        return all(self.attachment.checksum(one.segment) == one.checksum for one in self._parts)


def _spread(vram: int, count: int) -> list[int]:
    share, rest = divmod(vram, count)
    return [share + (1 if number < rest else 0) for number in range(count)]


def _fill(attachment: Attachment, card: str, size: int, seed: int) -> Part:
    segment = attachment.allocate(card, size)
    attachment.fill(segment, seed)
    return Part(segment, attachment.checksum(segment))
