"""
Contexts and their segments: who holds which bytes, and whether they may be touched.

Called by: `device`, which holds its lock around every call here.
Rule: a gate is closed from the moment somebody asks for the lock; `locked` says that the work
which ran then has ended. Work runs only through an open gate, copies only behind a closed one.
"""

from dataclasses import dataclass, field

from testbed.gpu import content
from testbed.gpu.card import Card
from testbed.gpu.errors import Absent, Unfit, WrongState


@dataclass
class Segment:
    """One allocation. Its handle lives on while its contents are elsewhere."""

    name: str
    card: Card
    size: int  # pretended bytes
    length: int  # bytes of content
    content: bytearray | None
    arriving: bool = False  # a copy in has kept room for it
    copies: int = 0

    @property
    def holds(self) -> bool:
        """Whether the card counts its bytes as used."""
        return self.content is not None or self.arriving

    def pretended(self, start: int, end: int) -> int:
        """Bytes on the bus for the content from `start` to `end`."""
        return self.size * end // self.length - self.size * start // self.length


@dataclass
class Activity:
    """Work of a context on one card."""

    submitted: int = 0
    running: int = 0
    ended: float = 0.0  # monotonic

    def idle(self, now: float) -> float:
        """Seconds since work last ran."""
        return 0.0 if self.running else max(0.0, now - self.ended)


@dataclass
class Context:
    """One process's hold on some cards."""

    name: str
    pid: int  # as the process itself sees it
    cards: dict[str, Card]  # by the uuid the process knows
    activity: dict[str, Activity]  # by the uuid of the card
    namespace: int = 0  # of the process's numbers
    identity: str = ""  # stays when its process is moved to another card
    segments: dict[str, Segment] = field(default_factory=dict)
    locked: bool = False
    closing: int = 0  # calls of Lock that wait for running work
    running: int = 0
    waiting: int = 0
    gone: bool = False
    disconnected: bool = False  # its process was told to go, and comes back when it may
    joined: int = 1  # how often its process has attached
    made: int = 0

    @property
    def gate_open(self) -> bool:
        """Whether new work may begin."""
        return not self.locked and not self.closing

    @property
    def copying(self) -> bool:
        """Whether a copy of any segment is under way."""
        return any(segment.copies for segment in self.segments.values())

    def used(self, card: Card) -> int:
        """Bytes it holds on this card."""
        return sum(s.size for s in self.segments.values() if s.card is card and s.holds)

    def add(self, uuid: str, size: int, scale: int) -> Segment:
        """Allocate on the card. Raises NoRoom, Unfit, or Sick; then nothing changed."""
        if size <= 0:
            raise Unfit(f"{size} bytes cannot be allocated")
        card = self._card(uuid)
        card.must_be_well()
        card.take(size)
        length = content.length(size, scale)
        name = self._unused_name()
        self.segments[name] = Segment(name, card, size, length, bytearray(length))
        return self.segments[name]

    def _unused_name(self) -> str:
        while (name := f"{self.identity}-{self.made}") in self.segments:
            self.made += 1
        self.made += 1
        return name

    def segment(self, name: str) -> Segment:
        """Raises Absent."""
        try:
            return self.segments[name]
        except KeyError:
            raise Absent(f"no segment {name!r} in context {self.name}") from None

    def drop(self, segment: Segment) -> None:
        """Forget the segment and its memory. Idempotent."""
        self.unback(segment)
        self.segments.pop(segment.name, None)

    def unback(self, segment: Segment) -> None:
        """Its contents go, its handle stays. Idempotent."""
        if segment.holds:
            segment.card.give(segment.size)
        segment.content = None
        segment.arriving = False

    def must_be_locked(self) -> None:
        """Raises WrongState when work may run."""
        if not self.locked:
            raise WrongState(f"context {self.name} is not locked")

    def must_be_whole(self) -> None:
        """Raises WrongState when a segment's contents are elsewhere."""
        away = [s.name for s in self.segments.values() if s.content is None]
        if away:
            raise WrongState(f"not in VRAM: {', '.join(away)}")

    def _card(self, uuid: str) -> Card:
        try:
            return self.cards[uuid]
        except KeyError:
            raise Unfit(f"card {uuid!r} is not one of context {self.name}") from None
