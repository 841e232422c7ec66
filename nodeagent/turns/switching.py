"""
Carrying out a plan: park the holders, verify, resume (or start) the next.

Called by the coordinator, one thread per switch. It takes the GPUs' locks in index order, runs the
stories and says what happened; what follows from that is the coordinator's to decide.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from kybernate.clients.errors import Refused, Retry
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import SwitchPlan
from kybernate.model.ids import WorkloadKey
from kybernate.model.tier import Tier
from kybernate.runtime.logs import get_logger
from nodeagent.disk.records import Mark
from nodeagent.lives.feed import Doing, Ended
from nodeagent.lives.life import Life, Lives, tier_of
from nodeagent.lives.phases import PhaseTime, Stopwatch
from nodeagent.lives.telling import Teller
from nodeagent.mechanisms import Body, Mechanism, Stands
from nodeagent.stories import park, resume, start
from nodeagent.stories.stage import Endings, Stage, remember
from nodeagent.stories.story import Story

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

    def stays(self, key: WorkloadKey, size: int) -> None:
        """So many bytes of its cards stay its own while it is parked."""

    def lies(self, key: WorkloadKey, *, movable: bool, through_ram: bool) -> None:
        """Whether its parked contents may leave RAM, and how they come back from there."""

    def moved(self, life: Life, tier: Tier) -> None:
        """Its parked contents are in this tier now."""

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

    stage: Stage
    lives: Lives
    locks: GpuLocks
    teller: Teller

    def carry_out(self, plan: SwitchPlan, books: Books) -> None:
        """The whole switch. Never raises: whatever goes wrong is told and ends in some state."""
        log = get_logger(switch=str(plan.key))
        watch = Stopwatch(self.stage.tools.clock)
        try:
            with self.locks.held(plan.gpus):
                if not self._in_reach(plan, books, watch):
                    self._keep(plan, books)
                elif self._park_all(plan, books, watch) and plan.resume is not None:
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

    # nobody is parked for one whose contents cannot be had

    def _in_reach(self, plan: SwitchPlan, books: Books, watch: Stopwatch) -> bool:
        """Whether who is to come in can: contents in the object store may be away."""
        life = self.lives.get(plan.key)
        if plan.resume is None or life is None or not life.record.stored:
            return True
        story = self.stage.story(life, Doing.RESUMING, Tier.OBJECT)
        failed = Endings(happening=Happening.ACTIVATION_FAILED, tell=self.teller.resume_failed)
        if not self.stage.run(life, story, lambda: resume.reach(story), books, failed):
            return False
        books.moved(life, tier_of(life.record))
        for phase in story.watch.phases()[:-1]:
            watch.add(phase.name, phase.seconds, phase.size)
        return True

    def _keep(self, plan: SwitchPlan, books: Books) -> None:
        """They hold their VRAM as if nothing had been planned."""
        for key in plan.park:
            if (life := self.lives.get(key)) is not None:
                books.happened(life, Happening.KEPT)

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
        story = self.stage.story(life, Doing.PARKING)
        story.body = replace(story.body, returns_soon=life.key in plan.shallow)
        failed = Endings(happening=Happening.PARK_FAILED, tell=self.teller.park_failed)
        if not self.stage.run(life, story, lambda: park.park(story), books, failed):
            return () if life.gone else None
        remember(life, story)
        self._measured(story, "copy out")
        self._note_residue(life, story, books)
        movable, through_ram = how_it_lies(self.stage.tools.mechanism, story.body)
        books.lies(life.key, movable=movable, through_ram=through_ram)
        books.happened(life, Happening.PARKED)
        self.teller.parked(life, plan)
        self.stage.ended(life, Ended(ok=True, message="parked", phases=life.last_switch))
        return life.last_switch

    def _note_residue(self, life: Life, story: Story, books: Books) -> None:
        """What stays on the cards although it was to leave, whenever this one is parked."""
        if not story.body.returns_soon:
            with suppress(Retry):
                books.stays(life.key, self.stage.tools.cards.held_by(story.body))

    # moving in

    def _bring_in(self, plan: SwitchPlan, books: Books, watch: Stopwatch) -> None:
        life = self.lives.get(plan.key)
        if life is None or (plan.park and not books.wants(plan.key)):
            return
        if plan.park and not books.happened(life, Happening.GRANTED):
            return
        first = life.record.mark is Mark.HELD
        story = self.stage.story(life, Doing.RESUMING, tier_of(life.record))
        failed = Endings(
            happening=Happening.START_FAILED if first else Happening.ACTIVATION_FAILED,
            tell=self.teller.resume_failed,
        )
        run = start.start if first else resume.resume
        if not self.stage.run(life, story, lambda: run(story), books, failed):
            return
        remember(life, story)
        self._measured(story, "copy in")
        life.woke = ()
        books.happened(life, Happening.RUNS)
        (self.teller.started if first else self.teller.resumed)(life, plan)
        for phase in story.watch.phases()[:-1]:
            watch.add(phase.name, phase.seconds, phase.size)
        self.stage.ended(life, Ended(ok=True, message=str(plan), phases=watch.phases()))

    def _measured(self, story: Story, phase: str) -> None:
        copied = story.watch.of(phase)
        if copied is not None:
            self.stage.bandwidths.measured(Tier.RAM, copied.size, copied.seconds)


def how_it_lies(mechanism: Mechanism, body: Body) -> tuple[bool, bool]:
    """Of one that is parked: whether its contents may leave RAM, and whether they come back from
    below by way of the pool. What cannot be told does not move."""
    try:
        stands = mechanism.stands(body)
    except (Refused, Retry, OSError):
        stands = Stands.PROCESS
    return stands is not Stands.PROCESS, stands is Stands.BULK


def _seconds(phases: tuple[PhaseTime, ...] | None) -> float:
    return sum(phase.seconds for phase in phases or ())
