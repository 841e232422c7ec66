"""
Says of every workload whether it can be parked: the condition `Parkable` of its GpuWorkload, and an
event when something new stands in the way.

Called by `process`. Looks every so often at those that are active, which alone change.
Rule: a patch only when what is found changes; an API server that is away is tried again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from kybernate.api import gpuworkloads, timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import ParkMechanism
from kybernate.runtime.logs import get_logger
from nodeagent.disk.records import Mark
from nodeagent.eligibility import facts
from nodeagent.eligibility.judging import Facts, Obstacle, obstacles
from nodeagent.linux import processes
from nodeagent.lives.life import Life
from nodeagent.looking import Looking
from nodeagent.mechanisms import Body

EVERY_S = 30.0

Left = Callable[[Body], tuple[str, ...]]
"""What stays on the card, as its guests say. Raises Retry, Refused."""


class Decisions(Protocol):
    """`DecisionRecorder`, or a fake of it."""

    def record(
        self,
        workload: tuple[WorkloadKey, PodUid],
        decision: Decision,
        action: str,
        *,
        warning: bool = False,
    ) -> None:
        """In the background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Whom it asks and tells. `patch` of a GpuWorkload's status may raise Retry, Refused."""

    lives: Callable[[], Iterable[Life]]
    left: Left
    decisions: Decisions
    patch: Callable[[WorkloadKey, PodUid, dict[str, Any]], None]


class Eligibility:
    """`start` and `stop` once."""

    def __init__(self, parts: Parts, clock: Clock) -> None:
        self._p, self._clock = parts, clock
        self._told: dict[PodUid, tuple[Obstacle, ...]] = {}
        self._written: dict[PodUid, tuple[Obstacle, ...]] = {}
        self._since: dict[PodUid, tuple[bool, float]] = {}  # whether it can be parked, since when
        self._looking = Looking("eligibility", self._again, clock, EVERY_S)
        self.start, self.stop = self._looking.start, self._looking.stop

    def look(self) -> None:
        """Once, at all that are active."""
        lives = [one for one in self._p.lives() if not one.gone]
        here = {one.record.uid for one in lives}
        self._told = {uid: said for uid, said in self._told.items() if uid in here}
        self._written = {uid: said for uid, said in self._written.items() if uid in here}
        self._since = {uid: since for uid, since in self._since.items() if uid in here}
        for life in lives:
            by_us = life.body.park is ParkMechanism.AUTO
            if life.record.mark is Mark.ACTIVE and life.record.pid and by_us:
                self._look_at(life)

    def _again(self) -> float:
        self.look()
        return EVERY_S

    def _look_at(self, life: Life) -> None:
        found = self._found(life)
        uid = life.record.uid
        known = self._told.get(uid, ())
        self._told[uid] = found
        if new := [one for one in found if one.reason not in {old.reason for old in known}]:
            self._tell(life, new)
        if self._written.get(uid) != found:
            self._write(life, found)

    def _found(self, life: Life) -> tuple[Obstacle, ...]:
        body = life.body
        try:
            left = self._p.left(body)
        except (Retry, Refused):
            left = ()
        seen = facts.of(processes.tree(body.pid))
        return obstacles(Facts(processes=seen, left=left, cards=len(body.gpus)))

    def _tell(self, life: Life, new: list[Obstacle]) -> None:
        forbids = any(one.forbids for one in new)
        reason = EventReason.NOT_PARKABLE if forbids else EventReason.PARKABLE_IN_PART
        decision = Decision(
            time=timestamps.rfc3339(self._clock.now()),
            reason=reason,
            message="; ".join(f"{one.reason}: {one.words}" for one in new),
        )
        self._p.decisions.record((life.key, life.record.uid), decision, "Judging", warning=forbids)

    def _write(self, life: Life, found: tuple[Obstacle, ...]) -> None:
        uid, holds = life.record.uid, not any(one.forbids for one in found)
        if self._since.get(uid, (None, 0.0))[0] is not holds:
            self._since[uid] = (holds, self._clock.now())
        condition = gpuworkloads.parkable_condition(
            holds,
            found[0].reason if found else "NothingFound",
            "; ".join(one.words for one in found),
            self._since[uid][1],
        )
        try:
            self._p.patch(life.key, uid, {"status": {"conditions": [condition]}})
        except (Retry, Refused) as problem:
            get_logger(workload=str(life.key)).warning("not written", why=str(problem))
            return
        self._written[uid] = found
