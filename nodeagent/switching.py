"""
Carrying out a plan: park the holders, verify, resume (or start) the next.

Called by the coordinator, one thread per switch. It takes the GPUs' locks in index order, runs the
stories and says what happened; what follows from that is the coordinator's to decide.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import SwitchPlan
from kybernate.model.ids import WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason
from kybernate.runtime.logs import get_logger
from nodeagent import park, processes, resume, start
from nodeagent.bandwidth import Bandwidths
from nodeagent.feed import Doing, Ended, Feed, Update
from nodeagent.lives import Life, Lives
from nodeagent.mechanisms import BodyGone
from nodeagent.phases import PhaseTime, Stopwatch
from nodeagent.records import STATES, Mark, Record
from nodeagent.stories import JournalAway, Lost, Story, Tools, Undone
from nodeagent.telling import Teller

# A process whose GPU state is gone ends within this, or it is quarantined.
_DYING_S = 2.0


_NOT_REACHED = {
    Mark.ACTIVE: Happening.PARK_FAILED,
    Mark.PARKED: Happening.ACTIVATION_FAILED,
    Mark.HELD: Happening.START_FAILED,
}


class Books(Protocol):
    """What a switch tells the coordinator."""

    def happened(self, life: Life, happening: Happening) -> bool:
        """Whether it is still so that this life is here."""

    def wants(self, key: WorkloadKey) -> bool:
        """Whether the workload still waits for its turn."""

    def ask_again(self, key: WorkloadKey) -> None:
        """It was parked for nothing: it wants its GPU back."""

    def switched(self, plan: SwitchPlan) -> None:
        """The GPUs are free for the next decision."""


class GpuLocks:
    """One lock per GPU, always taken in index order."""

    def __init__(self, gpus: Iterable[int]) -> None:
        self._locks = {gpu: threading.Lock() for gpu in sorted(gpus)}

    @contextmanager
    def held(self, gpus: Iterable[int]) -> Iterator[None]:
        """All of these."""
        with ExitStack() as stack:
            for gpu in sorted(gpus):
                stack.enter_context(self._locks[gpu])
            yield


@dataclass(slots=True, kw_only=True)
class Switches:
    """Runs switches. Thread safe for plans over different GPUs."""

    tools: Tools
    lives: Lives
    locks: GpuLocks
    feed: Feed
    teller: Teller
    bandwidths: Bandwidths

    def carry_out(self, plan: SwitchPlan, books: Books) -> None:
        """The whole switch. Never raises: whatever goes wrong is told and ends in some state."""
        log = get_logger(switch=str(plan.key))
        watch = Stopwatch(self.tools.clock)
        try:
            with self.locks.held(plan.gpus):
                if self._park_all(plan, books, watch) and plan.resume is not None:
                    self._bring_in(plan, books, watch)
        except Exception:
            log.exception("a switch ended in an error")
            self._tie_up(plan, books)
        finally:
            books.switched(plan)

    def _tie_up(self, plan: SwitchPlan, books: Books) -> None:
        """Who was not reached is where its record says: left on its way, it would be for ever."""
        for key in (*plan.park, plan.key):
            life = self.lives.get(key)
            if life is not None and (happening := _NOT_REACHED.get(life.record.mark)) is not None:
                books.happened(life, happening)

    # moving out

    def _park_all(self, plan: SwitchPlan, books: Books, watch: Stopwatch) -> bool:
        """Whether every holder is out. Several are parked side by side: each has its own bus."""
        holders = [life for key in plan.park if (life := self.lives.get(key)) is not None]
        if len(holders) <= 1:
            outcomes = [self._park(life, plan, books) for life in holders]
        else:
            with ThreadPoolExecutor(len(holders), "park") as side_by_side:
                outcomes = list(side_by_side.map(lambda one: self._park(one, plan, books), holders))
        for phase in max(outcomes, key=_seconds, default=()) or ():
            watch.add(phase.name, phase.seconds, phase.size)
        out = all(phases is not None for phases in outcomes)
        if not out and plan.resume is not None:
            for life, phases in zip(holders, outcomes, strict=True):
                if phases is not None:
                    books.ask_again(life.key)
        return out

    def _park(self, life: Life, plan: SwitchPlan, books: Books) -> tuple[PhaseTime, ...] | None:
        """The phases, or None when it holds its VRAM still."""
        story = self._story(life, Doing.PARKING)
        failed = _Endings(happening=Happening.PARK_FAILED, tell=self.teller.park_failed)
        if not self._run(life, story, lambda: park.park(story), books, failed):
            return () if life.gone else None
        _remember(life, story)
        self._measured(story, "copy out")
        books.happened(life, Happening.PARKED)
        self.teller.parked(life, plan)
        self._ended(life, Ended(ok=True, message="parked", phases=life.last_switch))
        return life.last_switch

    # moving in

    def _bring_in(self, plan: SwitchPlan, books: Books, watch: Stopwatch) -> None:
        life = self.lives.get(plan.key)
        if life is None or (plan.park and not books.wants(plan.key)):
            return
        if plan.park and not books.happened(life, Happening.GRANTED):
            return
        first = life.record.mark is Mark.HELD
        story = self._story(life, Doing.RESUMING)
        failed = _Endings(
            happening=Happening.START_FAILED if first else Happening.ACTIVATION_FAILED,
            tell=self.teller.resume_failed,
        )
        run = start.start if first else resume.resume
        if not self._run(life, story, lambda: run(story), books, failed):
            return
        _remember(life, story)
        self._measured(story, "copy in")
        books.happened(life, Happening.RUNS)
        self.teller.resumed(life, plan)
        for phase in story.watch.phases()[:-1]:
            watch.add(phase.name, phase.seconds, phase.size)
        self._ended(life, Ended(ok=True, message=str(plan), phases=watch.phases()))

    # what both share

    def _story(self, life: Life, doing: Doing) -> Story:
        def tell(_: str, done: int, total: int) -> None:
            rate = self.bandwidths.bus()
            left = rate.seconds(max(0, total - done)) if rate else 0.0
            self.feed.publish(
                Update(
                    key=life.key,
                    uid=life.record.uid,
                    state=STATES[story.record.mark],
                    doing=doing,
                    done=done,
                    total=total,
                    seconds_left=left,
                )
            )

        story = Story(
            tools=self.tools,
            body=life.body,
            record=life.record,
            watch=Stopwatch(self.tools.clock),
            tell=tell,
            need=life.need(),
        )
        return story

    def _run(
        self,
        life: Life,
        story: Story,
        run: Callable[[], Record],
        books: Books,
        failed: "_Endings",
    ) -> bool:
        """Whether the story came to its end; every other ending is told here."""
        with life.lock:
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

    def _failed(self, life: Life, undone: Undone, books: Books, failed: "_Endings") -> None:
        books.happened(life, failed.happening)
        failed.tell(life, str(undone))
        self._ended(life, Ended(ok=False, reason=undone.reason, message=str(undone)))

    def _lost(self, life: Life, why: str, books: Books) -> None:
        books.happened(life, Happening.LOST)
        self.teller.quarantined(life, why)
        self._ended(life, Ended(ok=False, reason=Reason.QUARANTINED, message=why))

    def _gone(self, life: Life, story: Story, why: str, books: Books) -> None:
        """Its GPU state is gone. So is its process, in a moment; one that is not is quarantined."""
        clock, never = self.tools.clock, threading.Event()
        until = clock.monotonic() + _DYING_S
        while processes.is_same(life.record.pid, life.record.pid_started):
            if clock.monotonic() >= until:
                life.record = story.mark(Mark.QUARANTINED)
                self._lost(life, f"it lives, but its GPU state is gone: {why}", books)
                return
            clock.wait(never, 0.05)
        self._ended(life, Ended(ok=False, reason=Reason.UNKNOWN_WORKLOAD, message=f"gone: {why}"))

    def _measured(self, story: Story, phase: str) -> None:
        copied = story.watch.of(phase)
        if copied is not None:
            self.bandwidths.measured(Tier.RAM, copied.size, copied.seconds)

    def _ended(self, life: Life, ended: Ended) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endings:
    """What follows when a story is undone."""

    happening: Happening
    tell: Callable[[Life, str], None]


def _remember(life: Life, story: Story) -> None:
    life.last_switch = story.watch.phases()
    life.last_switch_seconds = story.watch.seconds


def _seconds(phases: tuple[PhaseTime, ...] | None) -> float:
    return sum(phase.seconds for phase in phases or ())


def phases_text(phases: Iterable[PhaseTime]) -> str:
    """`lock 0.01 + copy out 0.80 (40.0 GiB) + ...`, what took less than 5 ms left out."""
    parts = []
    for phase in phases:
        size = f" ({phase.size / 2**30:.1f} GiB)" if phase.size else ""
        if phase.seconds >= 0.005:
            parts.append(f"{phase.name} {phase.seconds:.2f}{size}")
    return " + ".join(parts)
