"""
Makes what is kept in the pool smaller, while nobody waits for the card: bf16 by a third.

Owned by `guest`. Copy by copy, as they are finished: some plain chunks are pressed by a card,
stored elsewhere in the pool, expanded from there and compared by fingerprint, and only then put in
place of the plain ones in the copy's list. Until then the old list is whole: it can end anywhere.
What does not become smaller by 15 % stays plain and is not tried again.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kybernate.clients.errors import Refused, Retry
from kybernate.runtime.logs import get_logger
from nodeagent.disk.pool import NoRoom
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import SIZE
from nodeagent.gpuworker.places import UNIT, is_pressed, pressed, span
from nodeagent.gpuworker.pressing import AT_ONCE
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.copies import ZERO, Copy
from nodeagent.mechanisms.quiet import Quiet

_ROUND = 16 * AT_ONCE  # chunks, before the list is written anew: 256 MiB
_STRIP, _SHORTEST = 96, 6  # chunks: a round of bf16 needs 85
_SOON_S, _LATER_S = 0.05, 30.0
_REST = 3.0  # after a round, so many times as long as it took: others are at work on the card

Ask = Callable[[dict[str, Any]], dict[str, Any] | None]
"""A worker's answer; None while there is no worker. Raises Refused, Retry."""


class NotNow(Retry):
    """Contents move, or no worker is there."""


@dataclass(slots=True)
class Press:
    """Of one agent; its `round` is called by one thread."""

    bulk: BulkOfChunks
    ask: Ask
    quiet: Quiet
    _looked: tuple[str, str, int] = ("", "", 0)  # at how many chunks of which copy
    _strip: "_Strip | None" = None
    _tried: dict[int, bytes] = field(default_factory=dict)  # by place: of no use to press
    _made: dict[int, int] = field(default_factory=dict)  # by plain place: the pressed one

    def round(self) -> bool:
        """Press some of one copy; whether there may be more to do. Raises NotNow, and what workers
        raise; NoRoom, OSError."""
        first = self.bulk.to_press()
        if first is None:
            return False
        name, file, copy = first
        before = self._looked[2] if self._looked[:2] == (name, file) else 0
        some, after = self._some(copy, before)
        if not some:
            self.bulk.pressed(name, file)
            return True
        made: dict[int, int] = {}
        try:
            done = self._press(copy, some, made)
            with self._alone():
                self.bulk.swap(name, file, copy, made)
        except BaseException:
            self.bulk.chunks.let(made.values())
            raise
        finally:
            self._close()
        self._looked = (name, file, after if done == len(some) else some[done])
        return True

    def _some(self, copy: Copy, first: int) -> tuple[list[int], int]:
        """The next chunks of a copy that are worth a try, one of each place; where to go on."""
        found: dict[int, int] = {}
        for chunk in range(first, len(copy.places)):
            place = copy.places[chunk]
            if place == ZERO or is_pressed(place) or self._tried.get(place) == _print(copy, chunk):
                continue
            if len(found) == _ROUND:
                return list(found.values()), chunk
            found.setdefault(place, chunk)
        return list(found.values()), len(copy.places)

    def _press(self, copy: Copy, some: Sequence[int], made: dict[int, int]) -> int:
        """Add the new places of some chunks, held for the caller, as long as there is room; how
        many were tried. Raises NoRoom where not even one was."""
        for begin in range(0, len(some), AT_ONCE):
            try:
                with self._alone():
                    self._press_few(copy, some[begin : begin + AT_ONCE], made)
            except NoRoom:
                if not made:
                    raise
                return begin
        return len(some)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.quiet.alone() as alone:
            if not alone:
                raise NotNow("contents move")
            yield

    def _press_few(self, copy: Copy, some: Sequence[int], made: dict[int, int]) -> None:
        anew = [chunk for chunk in some if not self._known(copy, chunk, made)]
        if anew:
            self._press_anew(copy, anew, made)

    def _known(self, copy: Copy, chunk: int, made: dict[int, int]) -> bool:
        """Another copy had this chunk, too, and it was pressed there."""
        place = copy.places[chunk]
        pressed = self._made.get(place)
        if pressed is None or not self.bulk.chunks.contains(pressed, copy.key, _print(copy, chunk)):
            return False
        self.bulk.chunks.hold([pressed])
        made[place] = pressed
        return True

    def _press_anew(self, copy: Copy, some: Sequence[int], made: dict[int, int]) -> None:
        sizes = self._asked({"op": "press", "places": [copy.places[chunk] for chunk in some]})
        worth = [(number, size) for number, size in enumerate(sizes["sizes"]) if size]
        for number, chunk in enumerate(some):
            if not sizes["sizes"][number]:
                self._tried[copy.places[chunk]] = _print(copy, chunk)
        if not worth:
            return
        places = self._places([size for _, size in worth])
        try:
            asked = [
                [number, *span(place)] for (number, _), place in zip(worth, places, strict=True)
            ]
            stored = self._asked({"op": "store", "key": copy.key.hex(), "chunks": asked})
        except BaseException:
            self.bulk.chunks.let(places)
            raise
        for (number, _), place, print_ in zip(worth, places, stored["prints"], strict=True):
            self._proven(copy, some[number], place, bytes.fromhex(print_), made)

    def _places(self, sizes: Sequence[int]) -> list[int]:
        """Of pressed chunks of so many units, held for the caller. Raises NoRoom."""
        places: list[int] = []
        try:
            for size in sizes:
                if self._strip is None or not self._strip.fits(size):
                    self._close()
                    self._strip = _Strip(self.bulk.take_together(_STRIP, _SHORTEST))
                places.append(self._strip.place(size))
                self.bulk.chunks.hold(places[-1:])
        except NoRoom:
            self.bulk.chunks.let(places)
            raise
        return places

    def _close(self) -> None:
        """What is left of the strip is free again."""
        if self._strip is not None:
            self.bulk.chunks.let(self._strip.grains)
            self._strip = None

    def _proven(
        self, copy: Copy, chunk: int, place: int, print_: bytes, made: dict[int, int]
    ) -> None:
        """Only what comes out as it went in is kept."""
        plain = copy.places[chunk]
        if print_ == _print(copy, chunk):
            made[plain] = self._made[plain] = place
            return
        get_logger(chunk=plain).error("a chunk that was pressed does not come out right")
        self._tried[plain] = _print(copy, chunk)
        self.bulk.chunks.let([place])

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        answer = self.ask(message)
        if answer is None:
            raise NotNow("there is no worker")
        return answer


@dataclass(slots=True)
class _Strip:
    """Chunks of the pool, one behind the other, that pressed ones are put into."""

    grains: range
    _used: int = 0  # units

    def fits(self, size: int) -> bool:
        """Whether so many units do."""
        return self._used + size <= len(self.grains) * GRAIN // UNIT

    def place(self, size: int) -> int:
        """The next one's."""
        at = self.grains.start * GRAIN // UNIT + self._used
        self._used += size
        return pressed(at, size)


class InTheBackground(threading.Thread):
    """Rounds, one behind the other, until `stop`."""

    def __init__(self, press: Press) -> None:
        super().__init__(name="pressing", daemon=True)
        self._press, self._over = press, threading.Event()

    def run(self) -> None:
        """Called by threading."""
        while not self._over.is_set():
            self._over.wait(self._pause())

    def stop(self) -> None:
        """What has begun is ended."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _pause(self) -> float:
        began = time.monotonic()
        try:
            more = self._press.round()
            return _REST * (time.monotonic() - began) if more else _SOON_S
        except NotNow:
            return _SOON_S
        except NoRoom:
            return _LATER_S
        except (Refused, Retry, OSError) as error:
            get_logger().info("the pool is not pressed now", why=str(error))
            return _LATER_S


def _print(copy: Copy, chunk: int) -> bytes:
    return copy.prints[chunk * SIZE : (chunk + 1) * SIZE]
