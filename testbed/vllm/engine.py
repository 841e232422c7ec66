"""
The model in the card's memory: weights and a key-value cache, awake or asleep.

Called by: `routes`. Rule: as vLLM's allocator, sleep level 1 keeps the weights in host memory and
forgets the cache; level 2 forgets both. A waking that finds no room takes back what it got.
"""

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kybernate.clients.simgpu import Attachment, OutOfMemory

WEIGHTS, CACHE = "weights", "kv_cache"
TAGS = (WEIGHTS, CACHE)
_CACHE_SHARE = 0.2


class Broken(Exception):
    """The engine cannot do that; the message says why."""


@dataclass(slots=True)
class Region:
    """What is on one card under one tag. `segment` is empty while it is not there."""

    card: str
    tag: str
    size: int
    segment: str = ""
    counter: int = 0


class Engine:
    """Thread safe. Calls wait while the GPU is somebody else's."""

    def __init__(self, attachment: Attachment, cards: Sequence[str], vram: int, name: str) -> None:
        """Loads `vram` bytes, spread over the cards. Raises OutOfMemory, DeviceAway."""
        self._attachment = attachment
        self._seed = zlib.crc32(name.encode())
        share = vram // len(cards)
        cache = int(share * _CACHE_SHARE)
        sizes = {WEIGHTS: share - cache, CACHE: cache}
        self._regions = [Region(card, tag, sizes[tag]) for card in cards for tag in TAGS]
        self._changed = threading.Condition()
        self._asleep: set[str] = set()
        self._level = 0
        self._busy = False  # sleeping or waking just now
        self.running = self.waiting = self._aborted = 0
        for region in self._regions:
            self._bring(region)
        self._checksum = self._attachment.checksum(self._regions[0].segment)
        self._checked, self._intact = time.monotonic(), True
        self.check_seconds = 0.0  # an answer is by a look at the contents no older than this

    @property
    def level(self) -> int:
        """0 awake, else the level it sleeps on."""
        return self._level if self._asleep else 0

    def answer(self, steps: int, step_seconds: float) -> Iterator[tuple[int, bool, bool]]:
        """One request: for every step (counter, contents intact, aborted); an aborted one is the
        last. Waits while the engine sleeps."""
        with self._admitted():
            epoch = self._aborted
            weights = self._regions[0].segment
            counter = self._attachment.increment(weights)
            intact = self._is_intact(weights)
            for _ in range(steps):
                with self._changed:
                    self._changed.wait_for(lambda: self._aborted != epoch, step_seconds)
                    aborted = self._aborted != epoch
                yield counter, intact, aborted
                if aborted:
                    return

    def _is_intact(self, weights: str) -> bool:
        """To look is to hash the card's memory: work for the machine that pretends to be one."""
        if time.monotonic() - self._checked >= self.check_seconds:
            self._intact = self._attachment.checksum(weights) == self._checksum
            self._checked = time.monotonic()
        return self._intact

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._changed:
            self.waiting += 1
            self._changed.wait_for(lambda: not self._asleep and not self._busy)
            self.waiting -= 1
            self.running += 1
        try:
            yield
        finally:
            with self._changed:
                self.running -= 1
                self._changed.notify_all()

    def sleep(self, level: int, mode: str) -> None:
        """Out of VRAM. `abort` ends running requests, `wait` lets them end. Twice is fine."""
        with self._moving():
            with self._changed:
                if mode == "wait":
                    self._changed.wait_for(lambda: not self.running)
                self._aborted += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self.running)
            if self._asleep:
                return
            for region in self._regions:
                self._give(region)
            self._asleep, self._level = set(TAGS), level

    def wake_up(self, tags: Sequence[str], seconds: float) -> None:
        """Back in VRAM, which takes `seconds`. Raises OutOfMemory: it sleeps as before; Broken."""
        with self._moving():
            wanted = set(tags or TAGS) & self._asleep
            if self._level == 2 and WEIGHTS in wanted:
                raise Broken("the weights were discarded: this stand-in cannot load them again")
            there = [one for one in self._regions if one.tag in wanted]
            try:
                for region in there:
                    self._bring(region)
            except OutOfMemory:
                for region in there:
                    self._give(region)
                raise
            time.sleep(seconds if wanted else 0.0)
            self._asleep -= wanted

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """One at a time, and no request begins meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _bring(self, region: Region) -> None:
        region.segment = self._attachment.allocate(region.card, region.size)
        self._attachment.fill(region.segment, self._seed)
        if region.counter:
            self._attachment.increment(region.segment, region.counter)

    def _give(self, region: Region) -> None:
        if not region.segment:
            return
        region.counter = self._attachment.increment(region.segment, by=0)
        self._attachment.free(region.segment)
        region.segment = ""
