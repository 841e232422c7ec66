"""
Moving parked contents between the RAM pool, NVMe and the object store: what `decisions.tiers` says,
one at a time between RAM and NVMe, and one to or from the object store beside it.

Called by the engine; one thread for each of the two, since who needs the pool's room must not wait
for a network. Rule: a move can be put off. Whoever wants the workload
meanwhile calls it off, and finds its contents where they were. Rule: what failed is left alone for
a while, longer each time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from kybernate.decisions import tiers
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.questions import Asks
from kybernate.decisions.tiers import Move
from kybernate.model.ids import WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.workload import State
from nodeagent.disk.records import Mark, Record
from nodeagent.lives.feed import Doing
from nodeagent.lives.life import Life, Lives, tier_of
from nodeagent.lives.telling import Teller
from nodeagent.looking import Looking
from nodeagent.stories import demote, fetch, promote, store
from nodeagent.stories.stage import Endings, Stage
from nodeagent.stories.story import Story
from nodeagent.turns.coordinator import Coordinator

LOOK_S = 1.0  # between two looks at whether anything changed; policy is asked only then
BUSY_S = 1.0  # after one that was called off, or that somebody has
_DOUBLED = 10  # times at most, of pauses that have a longest one before
AGAIN_FIRST_S, AGAIN_MOST_S = 5.0, 600.0  # after one that failed


@dataclass(frozen=True, slots=True)
class _Way:
    """A story, the phase in which bytes are read, and the tier whose rate that tells."""

    tell: Callable[[Story, threading.Event], Record]
    read: str
    rate: Tier


_WAYS = {
    (Tier.RAM, Tier.NVME): _Way(demote.demote, demote.VERIFY, Tier.NVME),
    (Tier.NVME, Tier.OBJECT): _Way(store.store, store.VERIFY, Tier.OBJECT),
    (Tier.OBJECT, Tier.NVME): _Way(fetch.fetch, fetch.READ, Tier.OBJECT),
    (Tier.NVME, Tier.RAM): _Way(promote.promote, promote.READ, Tier.NVME),
    (Tier.OBJECT, Tier.RAM): _Way(promote.promote, promote.READ_STORED, Tier.OBJECT),
}


@dataclass(slots=True)
class _Failed:
    """How often in a row, and until when it is left alone."""

    times: int = 0
    until: float = 0.0


@dataclass(slots=True, kw_only=True)
class Tiering:
    """Of one of the two ways: `far` is that of the object store. `start` and `stop` once. `moved`
    is told of each move that ended: the tier it went to, "ok" or "failed", bytes of the card,
    seconds."""

    stage: Stage
    lives: Lives
    coordinator: Coordinator
    asks: Asks
    teller: Teller
    far: bool = False
    moved: Callable[[Tier, str, int, float], None] = lambda *_: None
    _failed: dict[WorkloadKey, _Failed] = field(default_factory=dict)
    _seen: object = None
    _again_at: float = 0.0
    _looking: Looking = field(init=False)

    def __post_init__(self) -> None:
        name, clock = "storing" if self.far else "tiering", self.stage.tools.clock
        self._looking = Looking(name, self.look, clock, tiers.RETRY_SECONDS)

    def start(self) -> None:
        """Begin; returns at once."""
        self._looking.start()

    def stop(self) -> None:
        """End; a move under way is called off."""
        for life in self.lives.all():
            life.hurry.set()
        self._looking.stop()

    def look(self) -> float:
        """One look, and a move where there is one to make; seconds until the next."""
        now, coordinator = self.stage.tools.clock.now(), self.coordinator
        books, short = coordinator.books, coordinator.short
        seen = (short, coordinator.revision, _matters(books))
        if seen == self._seen and now < self._again_at:
            return LOOK_S
        self._seen = seen
        left_alone = [key for key, one in self._failed.items() if one.until > now]
        decided = tiers.decide(books, now, self.asks, short, left_alone, far=self.far)
        again = [self._failed[key].until for key in left_alone]
        again += [decided.again_at] if decided.again_at is not None else []
        self._again_at = min(again, default=float("inf"))
        if decided.move is None:
            return LOOK_S
        self._seen = None
        self._carry_out(decided.move)
        return 0.0

    def _carry_out(self, move: Move) -> None:
        life = self.lives.get(move.key)
        if life is None:
            self._put_off(move.key)
            return
        way = _WAYS[move.of, move.to]
        doing = Doing.DEMOTING if move.down else Doing.PROMOTING
        story = self.stage.story(life, doing, way.rate)

        def run() -> Record:
            if story.record.mark is not Mark.PARKED or tier_of(story.record) is not move.of:
                raise story.undone(None, f"it is not parked in {move.of} any more")
            return way.tell(story, life.hurry)

        endings = Endings(happening=None, tell=lambda one, why: self._undone(one, move, story, why))
        if self.stage.run_aside(life, story, run, _Quiet(self.coordinator), endings):
            self._done(life, move, story)
        else:
            self._put_off(move.key)

    def _done(self, life: Life, move: Move, story: Story) -> None:
        self._failed.pop(move.key, None)
        self.coordinator.moved(life, move.to)
        way = _WAYS[move.of, move.to]
        read = story.watch.of(way.read)
        size = read.size if read else 0
        if read is not None:
            self.stage.bandwidths.measured(way.rate, read.size, read.seconds)
        self.moved(move.to, "ok", size, story.watch.seconds)
        phases = story.watch.phases()
        (self.teller.demoted if move.down else self.teller.promoted)(life, move, phases)

    def _undone(self, life: Life, move: Move, story: Story, why: str) -> None:
        """Called off, or it failed: that is told, and not tried again at once."""
        if life.hurry.is_set():
            self._leave_alone(move.key, BUSY_S)
            return
        self._leave_alone(move.key, AGAIN_FIRST_S)
        self.moved(move.to, "failed", 0, story.watch.seconds)
        self.teller.move_failed(life, move, why)

    def _put_off(self, key: WorkloadKey) -> None:
        """Somebody has it now, or it is gone: it is not asked about again at once."""
        one = self._failed.setdefault(key, _Failed())
        one.until = max(one.until, self.stage.tools.clock.now() + BUSY_S)

    def _leave_alone(self, key: WorkloadKey, first: float) -> None:
        one = self._failed.setdefault(key, _Failed())
        pause = min(AGAIN_MOST_S, first * 2 ** min(one.times, _DOUBLED))
        one.times += first == AGAIN_FIRST_S
        one.until = self.stage.tools.clock.now() + pause


@dataclass(frozen=True, slots=True)
class _Quiet:
    """To the books a move changes nothing, unless contents are lost."""

    coordinator: Coordinator

    def happened(self, life: Life, happening: Happening) -> bool:
        """As the port says."""
        return happening is not Happening.LOST or self.coordinator.happened(life, happening)


def _matters(books: Books) -> tuple[object, ...]:
    """What may change where contents should be, time aside."""
    there = tuple(
        (key, t.state, t.tier, t.wanted_since, t.vram, t.desired, t.movable)
        for key, t in sorted(books.tenancies.items())
        if t.state is State.PARKED or t.in_vram
    )
    return (there, books.pool_free, books.nvme_free, books.object_free)
