"""
Where stories are told: under their life's lock, with progress, and with every ending said.

Called by: the switches, the sealings, the wakes. Rule: a story's outcome is told to the coordinator
first, then to people, then to whoever asked.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from kybernate.decisions.lifecycle import Happening
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason
from kybernate.runtime.logs import get_logger
from nodeagent.disk.records import STATES, Mark, Record
from nodeagent.linux import processes
from nodeagent.lives.feed import Doing, Ended, Feed, Update
from nodeagent.lives.life import Life
from nodeagent.lives.phases import PhaseTime, Stopwatch
from nodeagent.lives.telling import Teller
from nodeagent.mechanisms import BodyGone
from nodeagent.stories.bandwidth import Bandwidths
from nodeagent.stories.story import JournalAway, Lost, Story, Tools, Undone

# A process whose GPU state is gone ends within this, or it is quarantined.
_DYING_S = 2.0


class Happens(Protocol):
    """Whom outcomes are told to first."""

    def happened(self, life: Life, happening: Happening) -> bool:
        """Whether it is still so that this life is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """What follows when a story is undone."""

    happening: Happening | None  # None: nobody waits for it, and to the books nothing happened
    tell: Callable[[Life, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """How far something is: bytes, and seconds left (0: not known)."""

    done: int
    total: int
    left: float = 0.0


@dataclass(slots=True, kw_only=True)
class Stage:
    """Thread safe for different lives."""

    tools: Tools
    feed: Feed
    teller: Teller
    bandwidths: Bandwidths

    def story(self, life: Life, doing: Doing, tier: Tier = Tier.RAM) -> Story:
        """A new one about this life, that tells how far it is, by the rate of `tier`."""

        def tell(_: str, done: int, total: int) -> None:
            rate = self.bandwidths.all().get(tier)
            left = rate.seconds(max(0, total - done)) if rate else 0.0
            self.progress(life, story, doing, Far(done=done, total=total, left=left))

        story = Story(
            tools=self.tools,
            body=life.body,
            record=life.record,
            watch=Stopwatch(self.tools.clock),
            tell=tell,
            need=life.need(),
        )
        return story

    def progress(self, life: Life, story: Story, doing: Doing, far: Far) -> None:
        """To whoever listens."""
        self.feed.publish(
            Update(
                key=life.key,
                uid=life.record.uid,
                state=STATES[story.record.mark],
                doing=doing,
                done=far.done,
                total=far.total,
                seconds_left=far.left,
            )
        )

    def run(
        self,
        life: Life,
        story: Story,
        run: Callable[[], Record],
        books: Happens,
        failed: Endings,
    ) -> bool:
        """Whether the story came to its end; every other ending is told here."""
        with life.held():
            return self._run(life, story, run, books, failed)

    def run_aside(
        self,
        life: Life,
        story: Story,
        run: Callable[[], Record],
        books: Happens,
        failed: Endings,
    ) -> bool:
        """As `run`, of a story that can be put off: not while somebody else has the life, and it is
        called off (`life.hurry`) for whoever wants it meanwhile."""
        if not life.lock.acquire(blocking=False):
            return False
        try:
            return not life.hurry.is_set() and self._run(life, story, run, books, failed)
        finally:
            life.lock.release()

    def _run(
        self,
        life: Life,
        story: Story,
        run: Callable[[], Record],
        books: Happens,
        failed: Endings,
    ) -> bool:
        if life.gone:
            return False
        story.record = life.record
        try:
            life.record = run()
        except Undone as undone:
            life.record = undone.record
            self._failed(life, undone, books, failed)
            return False
        except Lost as lost:
            life.record = lost.record
            self._lost(life, str(lost), books)
            return False
        except JournalAway as away:
            self._failed(life, story.undone(None, str(away)), books, failed)
            return False
        except BodyGone as gone:
            self._gone(life, story, str(gone), books)
            return False
        except Exception as fault:  # ours: say so, and touch the workload no more
            get_logger(workload=str(life.key)).exception("a story failed")
            life.record = story.mark(Mark.QUARANTINED)
            self._lost(life, f"fault in the agent: {fault}", books)
            return False
        return True

    def _failed(self, life: Life, undone: Undone, books: Happens, failed: Endings) -> None:
        if failed.happening is not None:
            books.happened(life, failed.happening)
        failed.tell(life, str(undone))
        if failed.happening is not None:
            self.ended(life, Ended(ok=False, reason=undone.reason, message=str(undone)))

    def _lost(self, life: Life, why: str, books: Happens) -> None:
        books.happened(life, Happening.LOST)
        self.teller.quarantined(life, why)
        self.ended(life, Ended(ok=False, reason=Reason.QUARANTINED, message=why))

    def _gone(self, life: Life, story: Story, why: str, books: Happens) -> None:
        """Its GPU state is gone. So is its process, in a moment; one that is not is quarantined."""
        clock, never = self.tools.clock, threading.Event()
        until = clock.monotonic() + _DYING_S
        while processes.is_same(life.record.pid, life.record.pid_started):
            if clock.monotonic() >= until:
                life.record = story.mark(Mark.QUARANTINED)
                self._lost(life, f"it lives, but its GPU state is gone: {why}", books)
                return
            clock.wait(never, 0.05)
        self.ended(life, Ended(ok=False, reason=Reason.UNKNOWN_WORKLOAD, message=f"gone: {why}"))

    def ended(self, life: Life, ended: Ended) -> None:
        """The last word to whoever listens."""
        self.feed.publish(
            Update(
                key=life.key,
                uid=life.record.uid,
                state=STATES[life.record.mark],
                doing=Doing.DONE,
                message=ended.message,
                ended=ended,
            )
        )


def remember(life: Life, story: Story) -> None:
    """What people see of it, after what made the life before its first turn."""
    life.last_switch = (*life.woke, *story.watch.phases())
    life.last_switch_seconds = story.watch.seconds + sum(phase.seconds for phase in life.woke)


def phases_text(phases: Iterable[PhaseTime]) -> str:
    """`lock 0.01 + copy out 0.80 (40.0 GiB) + ...`, what took less than 5 ms left out."""
    parts = []
    for phase in phases:
        size = f" ({phase.size / 2**30:.1f} GiB)" if phase.size else ""
        if phase.seconds >= 0.005:
            parts.append(f"{phase.name} {phase.seconds:.2f}{size}")
    return " + ".join(parts)
