"""
What the three stories share: their tools, how far they tell, and the ways they can end.

A story (`start`, `park`, `resume`) takes the workload's journal record and returns the record it
ended with, or raises one of: `Undone` (as before, try later), `Lost` (neither forward nor back),
`BodyGone` (the workload died; there is nothing to hold any more).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.model.ids import GpuUuid
from kybernate.model.verdict import Reason
from kybernate.runtime.logs import get_logger
from nodeagent.cellar import Cellar
from nodeagent.depot import Depot
from nodeagent.disk.journal import Journal
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.disk.records import STATES, Mark, Record
from nodeagent.linux.freezer import Freezing, NotFrozen
from nodeagent.lives.phases import Stopwatch
from nodeagent.lowered import Lowered
from nodeagent.mechanisms import Body, Mechanism, Part

_NEVER = threading.Event()
_Placed = TypeVar("_Placed", Part, Kept)
_Result = TypeVar("_Result")


class Undone(Exception):
    """The story did not happen; the workload is as it was. `record` says so."""

    def __init__(self, record: Record, reason: Reason | None, text: str) -> None:
        super().__init__(text)
        self.record = record
        self.reason = reason


class Lost(Exception):
    """The workload's contents cannot be brought back. `record` is quarantined."""

    def __init__(self, record: Record, text: str) -> None:
        super().__init__(text)
        self.record = record


class JournalAway(Retry):
    """What was to begin could not be written down, so it did not begin."""


ENDS = frozenset({Mark.HELD, Mark.ACTIVE, Mark.PARKED, Mark.QUARANTINED})


class Cards(Protocol):
    """What is in the cards now, as the inventory shows it. Raises a Retry when it cannot tell."""

    def free(self, uuid: GpuUuid) -> int:
        """Bytes of the card that nobody uses."""

    def held_by(self, body: Body) -> int:
        """Bytes the workload's processes hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds a step may take before the story turns back."""

    drain: float = 30.0  # submitted work that does not end keeps its GPU
    unlock: float = 10.0
    release: float = 10.0
    room: float = 5.0  # VRAM of a process that just ended shows for a moment
    tries: int = 3  # of a step that has to succeed or the workload is lost
    pause: float = 0.5  # between two of them
    let_go: float = 10.0  # processes drop their connections to the driver within milliseconds
    release_fifo: float = 20.0  # a created container reaches its exec FIFO in well under a second


Tell = Callable[[str, int, int], None]
"""Progress: what is being done, bytes of the card done, bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every story works with."""

    journal: Journal
    pool: Pool
    mechanism: Mechanism
    cards: Cards
    clock: Clock
    freezer: Freezing
    cellar: Cellar
    depot: Depot
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True, kw_only=True)
class Story:
    """One run: the workload, its record as last written, its stopwatch, whom to tell."""

    tools: Tools
    body: Body
    record: Record
    watch: Stopwatch
    tell: Tell
    need: Mapping[GpuUuid, int] = field(default_factory=dict)  # bytes booked on each card

    def mark(self, mark: Mark, **changes: object) -> Record:
        """Write down what begins now. Time in a state ends when the state does."""
        with self.watch.phase("journal"):
            now, old = self.tools.clock.now(), self.record
            if STATES[mark] is not STATES[old.mark]:
                spent = old.seconds_in.get(STATES[old.mark], 0.0) + max(0.0, now - old.since)
                changes["seconds_in"] = {**old.seconds_in, STATES[old.mark].value: spent}
                changes["since"] = now
            self.record = self._write(replace(old, mark=mark, **changes))  # type: ignore[arg-type]
        return self.record

    def _write(self, record: Record) -> Record:
        """A disk that is full must not stop a story that is over: read again, the older record
        leads to the same end. A step that has not begun is not begun."""
        try:
            return self.tools.journal.write(record)
        except OSError as error:
            if record.mark in ENDS:
                get_logger(workload=str(record.key)).error("journal not written", why=str(error))
                return record
            raise JournalAway(f"the journal cannot be written: {error}") from error

    def contents(self, *, hurried: bool = False, ended: threading.Event | None = None) -> Slot:
        """What it has while it is parked, in the pool, the cellar or the depot: to be read.
        `hurried`: somebody waits for it. `ended`: what calls off waiting for the object store."""
        record, depot = self.record, self.tools.depot
        if record.stored:
            return depot.slot(record.uid, record.lowered, hurried=hurried, ended=ended)
        if record.lowered:
            return self.tools.cellar.slot(record.uid, record.lowered)
        return self.tools.pool.slot(record.uid)

    def carried(self, slot: Slot, part: Kept) -> Iterator[Bytes]:
        """A part of its contents as one stream, to be kept elsewhere: what is below the pool is
        that already. Raises Damaged, Refused, Retry, OSError."""
        if isinstance(slot, Lowered):
            return slot.read(part.name)
        return self.tools.pool.bulk.carried(slot, part)

    def weight(self, slot: Slot, part: Kept) -> int:
        """Bytes of `carried`, about. Raises as it does."""
        if isinstance(slot, Lowered):
            return slot.weight(part)
        return self.tools.pool.bulk.weight(slot, part)

    def drop_below(self) -> None:
        """Nothing of it is needed below the pool any more."""
        self.tools.cellar.drop(self.record.uid)
        self.tools.depot.drop(self.record.uid)

    def moving(self, what: str, total: int) -> Callable[[int], None]:
        """A counter of bytes that tells as it goes. Thread safe."""
        done, lock = 0, threading.Lock()

        def moved(size: int) -> None:
            nonlocal done
            with lock:
                done += size
                self.watch.add(what, 0.0, size)
                self.tell(what, done, total)

        return moved

    def by_card(
        self, parts: Sequence[_Placed], work: Callable[[_Placed], _Result]
    ) -> list[_Result]:
        """Do something with each part: cards side by side, since each has its own bus, and those of
        one card in their order. The results, as the parts are. Raises what `work` raises, once
        nothing is under way any more."""
        cards: dict[str, list[int]] = {}
        for number, part in enumerate(parts):
            cards.setdefault(part.uuid, []).append(number)
        if len(cards) <= 1:
            return [work(part) for part in parts]
        done: dict[int, _Result] = {}

        def one_card(numbers: list[int]) -> None:
            for number in numbers:
                done[number] = work(parts[number])

        with ThreadPoolExecutor(len(cards), "cards") as side_by_side:
            cards_done = [side_by_side.submit(one_card, numbers) for numbers in cards.values()]
        while cards_done:  # no frame of an error's may hold it: what it was reading ends with it
            cards_done.pop(0).result()
        return [done[number] for number in range(len(parts))]

    def patiently(self, step: Callable[[], None]) -> None:
        """For steps behind which there is only quarantine: a Retry is tried again a few times."""
        limits = self.tools.limits
        for _ in range(limits.tries - 1):
            try:
                return step()
            except Retry:
                self.tools.clock.wait(_NEVER, limits.pause)
        return step()

    def pause(self, seconds: float) -> None:
        """Between two looks."""
        self.tools.clock.wait(_NEVER, seconds)

    def freeze(self) -> None:
        """The last step of parking. Its closed gate is what keeps it from VRAM: one that does not
        come to a stand is parked all the same."""
        try:
            with self.watch.phase("freeze"):
                self.tools.freezer.freeze(self.body.pid, self.body.container_id)
        except NotFrozen as error:
            log = get_logger(workload=str(self.body.key), why=str(error))
            log.warning("parked, and not frozen")

    def thaw(self) -> None:
        """Before whatever needs it to run: a driver's call, a kill. Raises NotThawed."""
        self.tools.freezer.thaw(self.body.pid, self.body.container_id)

    def unlock(self) -> None:
        """Open the gate. Raises what the mechanism raises, NotThawed."""
        limit = self.tools.limits.unlock

        def unlock() -> None:
            self.thaw()
            self.tools.mechanism.unlock(self.body, limit)

        self.patiently(unlock)

    def release_all(self) -> None:
        """Give every part that is in VRAM back, cards side by side; those without a size of their
        own (contexts) after all others. Raises what the mechanism raises, NotThawed."""

        def give_back(part: Part) -> None:
            self.tools.mechanism.release(self.body, part, self.tools.limits.release)

        def release() -> None:
            backed = [part for part in self.tools.mechanism.parts(self.body) if part.backed]
            if backed:
                self.thaw()
            self.by_card([part for part in backed if part.size], give_back)
            for part in backed:
                if not part.size:
                    give_back(part)

        self.patiently(release)

    def undone(self, reason: Reason | None, text: str) -> Undone:
        """To be raised when everything is as before."""
        return Undone(self.record, reason, text)

    def lost(self, text: str) -> Lost:
        """To be raised when nothing else is left; the pool's copy is kept for people to look at."""
        return Lost(self.mark(Mark.QUARANTINED), text)
