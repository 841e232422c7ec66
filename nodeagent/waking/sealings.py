"""
Making checkpoints of workloads, whatever they are doing: parked first where that is needed.

Called by: the API and the hook of a pod that is deleted. One thread for each that is under way.
Rule: a workload is sealed by one at a time, and it wants its GPU back where it had it before.
Rule: what cannot be sealed is found before the workload is parked.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from kybernate.api import timestamps
from kybernate.clients.clock import Clock
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening
from kybernate.model.checkpoint import Pause
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import State
from nodeagent import images
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.disk.records import Record
from nodeagent.linux import processes
from nodeagent.lives.feed import Doing, Ended
from nodeagent.lives.life import Life, Lives
from nodeagent.lives.phases import PhaseTime
from nodeagent.stories import seal
from nodeagent.stories.seal import Means
from nodeagent.stories.stage import Endings, Stage, remember
from nodeagent.stories.story import Undone
from nodeagent.turns.coordinator import Coordinator

# Until one was made: a slow disk's, and CRIU's way through some hundred mappings.
_FIRST_RATE, _BEGIN_S = 200e6, 0.5
_LOOK_S = 1.0  # a change wakes us; this is for a deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked. `within` is in seconds, for everything together."""

    key: WorkloadKey
    uid: PodUid | None = None
    name: str = ""  # empty: by the pod's name and the time
    leave_parked: bool = False
    gold: bool = False  # many replicas may start from it
    within: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How it ended. Without a checkpoint `refusal` says why, and the workload is as before."""

    sealed: Sealed | None = None
    refusal: Refusal | None = None
    phases: tuple[PhaseTime, ...] = ()


@dataclass(slots=True, kw_only=True)
class Sealings:
    """Thread safe. `changed` listens to the coordinator."""

    stage: Stage
    lives: Lives
    coordinator: Coordinator
    means: Means
    publish: Callable[[Sealed], None]
    paused: Callable[[Sealed, Pause], None]
    wall: Clock
    _changes: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False
    _rate: float = _FIRST_RATE
    _still: dict[str, "_Still"] = field(default_factory=dict)  # by the life's id

    def changed(self, before: Books, after: Books) -> None:  # noqa: ARG002
        """From the coordinator."""
        with self._changes:
            self._changes.notify_all()
            lives = {one.life for one in after.tenancies.values()}
            self._still = {life: still for life, still in self._still.items() if life in lives}
            over = [
                self._still.pop(one.life)
                for one in after.tenancies.values()
                if one.state is State.ACTIVE and one.life in self._still
            ]
        for still in over:
            self.paused(still.sealed, still.over())

    def stop(self) -> None:
        """Begin no more; those that wait for their workload give up."""
        with self._changes:
            self._stopping = True
            self._changes.notify_all()

    def seal(self, wish: Wish) -> Made:
        """In the caller's thread, to the end."""
        clock = self.stage.tools.clock
        wanted_back = _Back(self.coordinator, wish)
        made = self._seal(wish, clock.monotonic() + wish.within, wanted_back)
        if made.sealed is None or not wish.leave_parked:
            wanted_back.ask()
        return made

    def _seal(self, wish: Wish, until: float, back: "_Back") -> Made:
        while True:
            life = self.lives.get(wish.key)
            refusal = self._refused(wish, life)
            if refusal is not None or life is None:
                return Made(refusal=refusal)
            tenancy = self.coordinator.books.tenancies.get(wish.key)
            state = tenancy.state if tenancy else State.ABSENT
            if state is State.PARKED and self.coordinator.happened(life, Happening.SEAL):
                return self._carry_out(life, wish, back)
            if state is State.ACTIVE and (refusal := self._park(life, back)) is not None:
                return Made(refusal=refusal)
            if not self._wait(wish.key, state, until):
                detail = f"{wish.key} is still {state} after {wish.within:.0f} s"
                return Made(refusal=Refusal(reason=Reason.NOT_SEALABLE, detail=detail))

    def _refused(self, wish: Wish, life: Life | None) -> Refusal | None:
        """What no waiting changes."""
        tenancy = self.coordinator.books.tenancies.get(wish.key)
        if life is None or tenancy is None or life.gone:
            return Refusal(reason=Reason.UNKNOWN_WORKLOAD, detail=str(wish.key))
        if wish.uid and tenancy.uid != wish.uid:
            detail = f"{wish.key} is another pod now"
            return Refusal(reason=Reason.UNKNOWN_WORKLOAD, detail=detail)
        if tenancy.state is State.QUARANTINED:
            return Refusal(reason=Reason.QUARANTINED, detail=str(wish.key))
        if tenancy.state is State.WAITING:
            return Refusal(reason=Reason.NOT_STARTED, detail=str(wish.key))
        return None

    def _park(self, life: Life, back: "_Back") -> Refusal | None:
        """Have it parked; once: who is asked for it meanwhile is not parked again."""
        if back.parked:
            detail = f"{life.key} could not be parked, or somebody asked for it meanwhile"
            return Refusal(reason=Reason.NOT_SEALABLE, detail=detail)
        if unfit := self._obstacles(life):
            return Refusal(reason=Reason.NOT_SEALABLE, detail=unfit)
        refusal = self.coordinator.park(life.key)
        back.parked = refusal is None
        return refusal

    def _obstacles(self, life: Life) -> str:
        try:
            found = seal.obstacles(seal.body_of(life.record), self.means.images)
        except images.BodyGone as gone:
            return str(gone)
        return seal.words(found)

    def _wait(self, key: WorkloadKey, state: State, until: float) -> bool:
        """Until it is in another state; False when the time is over or the agent stops."""

        def moved() -> bool:
            tenancy = self.coordinator.books.tenancies.get(key)
            return self._stopping or tenancy is None or tenancy.state is not state

        clock: Clock = self.stage.tools.clock
        with self._changes:
            while not moved():
                left = until - clock.monotonic()
                if left <= 0.0:
                    return False
                self._changes.wait(min(left, _LOOK_S))
        return not self._stopping

    def _carry_out(self, life: Life, wish: Wish, back: "_Back") -> Made:
        out = life.last_switch if back.parked else ()
        story = self.stage.story(life, Doing.SEALING)
        found: list[Sealed] = []
        undone: list[Refusal] = []

        def run() -> Record:
            try:
                record, sealed = seal.seal(
                    story, self.means, wish.name or self._name(life), gold=wish.gold
                )
            except Undone as why:
                reason = why.reason or Reason.NOT_SEALABLE
                undone.append(Refusal(reason=reason, detail=str(why)))
                raise
            found.append(sealed)
            return record

        def failed(one: Life, why: str) -> None:
            self.stage.teller.seal_failed(one, str(undone[0]) if undone else why)

        endings = Endings(happening=Happening.SEAL_FAILED, tell=failed)
        done = self.stage.run(life, story, run, self.coordinator, endings)
        if found:
            self.publish(found[0])
        if not done:
            other = Refusal(reason=Reason.NOT_SEALABLE, detail=f"{life.key} ended meanwhile")
            return Made(refusal=undone[0] if undone else other)
        if back.parked and not wish.leave_parked:
            with self._changes:
                self._still[life.id] = _Still(life, found[0], (*out, *story.watch.phases()))
        remember(life, story)
        self._learn(found[0], story.watch.phases())
        self.coordinator.happened(life, Happening.SEALED)
        self.stage.teller.sealed(life, found[0], story.watch.phases())
        self.stage.ended(life, Ended(ok=True, message=f"checkpoint {found[0].manifest.name}"))
        return Made(sealed=found[0], phases=story.watch.phases())

    def seconds(self, key: WorkloadKey) -> float:
        """About how long one of it takes: its contents out where they are in VRAM, then all of it
        to the disk."""
        life, books = self.lives.get(key), self.coordinator.books
        tenancy = books.tenancies.get(key)
        if life is None or tenancy is None:
            return 0.0
        out = books.bus.seconds(tenancy.vram) if books.bus and tenancy.in_vram else 0.0
        slot = self.stage.tools.pool.slots().get(life.record.uid, 0)
        size = processes.resident(life.record.pid) + (slot or tenancy.vram)
        return out + _BEGIN_S + size / self._rate

    def _learn(self, sealed: Sealed, phases: tuple[PhaseTime, ...]) -> None:
        seconds = max(sum(phase.seconds for phase in phases) - _BEGIN_S, 0.01)
        self._rate += (sealed.size / seconds - self._rate) / 2

    def _name(self, life: Life) -> str:
        """By the pod and the second."""
        stamp = timestamps.rfc3339(self.wall.now())
        digits = "".join(one for one in stamp.partition(".")[0] if one.isdigit())
        return f"{life.key.name}-{digits[:8]}t{digits[8:14]}z"


@dataclass(frozen=True, slots=True)
class _Still:
    """A workload that stands still because it was sealed, until it has its GPU again."""

    life: Life
    sealed: Sealed
    phases: tuple[PhaseTime, ...]

    def over(self) -> Pause:
        """It goes on: what its last switch took is the rest."""
        seconds: dict[str, float] = {}
        for phase in (*self.phases, *self.life.last_switch):
            seconds[phase.name] = seconds.get(phase.name, 0.0) + phase.seconds
        return Pause(phases=tuple(seconds.items()))


@dataclass(slots=True)
class _Back:
    """Whether we parked it, and it is to have its GPU again."""

    coordinator: Coordinator
    wish: Wish
    parked: bool = False

    def ask(self) -> None:
        """Where it was active before."""
        if self.parked:
            self.coordinator.want(self.wish.key)
