"""
The workloads that are here: what of each one's life is not a matter of turns.

Kept by: containers and recovery, who add and drop; used by whoever needs a workload's processes,
record or last switch. Rule: a story holds its life's lock, so nothing of a life is thrown away
under a story's feet.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group
from kybernate.model.ids import GpuUuid, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from nodeagent.disk.records import STATES, Mark, Record
from nodeagent.lives.phases import PhaseTime
from nodeagent.mechanisms import Body


@dataclass(slots=True, kw_only=True)
class Life:
    """One container's life on a seat. `record` is the newest one written."""

    record: Record
    group: Group
    uuids: Mapping[int, GpuUuid]  # the group's cards by index
    lock: threading.Lock = field(default_factory=threading.Lock)
    hurry: threading.Event = field(default_factory=threading.Event)
    last_switch: tuple[PhaseTime, ...] = ()
    last_switch_seconds: float = 0.0
    woke: tuple[PhaseTime, ...] = ()  # of how it was made from a checkpoint, until it has its GPU
    gone: bool = False
    _wanting: int = 0  # who waits for the lock
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its lock, soon: a story that can be put off is called off for it."""
        with self._counting:
            self._wanting += 1
            self.hurry.set()
        with self.lock:
            with self._counting:
                self._wanting -= 1
                if not self._wanting:
                    self.hurry.clear()
            yield

    @property
    def key(self) -> WorkloadKey:
        """The pod's name."""
        return self.record.key

    @property
    def id(self) -> str:
        """Tells this life from the pod's next container's."""
        return self.record.container_id

    @property
    def body(self) -> Body:
        """For mechanisms."""
        cards = tuple(self.uuids[index] for index in self.group.gpus)
        return Body(
            key=self.key,
            uid=self.record.uid,
            pid=self.record.pid,
            gpus=cards,
            container_id=self.id,
            park=self.record.terms.park,
        )

    def need(self) -> dict[GpuUuid, int]:
        """Bytes booked for it on each of its cards."""
        share = -(-self.record.terms.vram // len(self.group.gpus))
        return {self.uuids[index]: share for index in self.group.gpus}

    def barred(self) -> Refusal | None:
        """Why it must not start on the seat it was given."""
        terms = self.record.terms
        if not terms.barred_reason:
            return None
        return Refusal(reason=Reason[terms.barred_reason], detail=terms.barred_detail)

    def tenancy(self) -> Tenancy:
        """How the coordinator sees it, from what was written down."""
        record, terms = self.record, self.record.terms
        return Tenancy(
            key=record.key,
            uid=record.uid,
            life=record.container_id,
            group=self.group,
            seat=record.seat,
            vram=terms.vram,
            state=STATES[record.mark],
            since=record.since,
            workload_class=terms.workload_class,
            priority=terms.priority,
            desired=terms.desired,
            min_runtime=terms.min_runtime,
            idle_after=terms.idle_after,
            parkable=terms.parkable,
            pinned=terms.pinned,
            wanted_since=None if record.mark is Mark.ACTIVE else record.wanted_since,
            active_since=record.active_since if record.mark is Mark.ACTIVE else None,
            last_active=record.last_active,
            asked_to_park=record.asked_to_park,
            barred=self.barred(),
            tier=tier_of(record),
        )


def tier_of(record: Record) -> Tier:
    """Where its contents are while it is parked."""
    if record.stored:
        return Tier.OBJECT
    return Tier.NVME if record.lowered else Tier.RAM


class Lives:
    """All of them, by workload. Thread safe."""

    def __init__(self) -> None:
        self._lives: dict[WorkloadKey, Life] = {}
        self._lock = threading.Lock()

    def add(self, life: Life) -> None:
        """A new life. Raises ValueError while an earlier one of the workload is still here."""
        with self._lock:
            if life.key in self._lives:
                raise ValueError(f"{life.key} is here already")
            self._lives[life.key] = life

    def drop(self, life: Life) -> None:
        """It is over and everything kept for it is gone."""
        with self._lock:
            if self._lives.get(life.key) is life:
                del self._lives[life.key]

    def get(self, key: WorkloadKey) -> Life | None:
        """The present life of a workload."""
        with self._lock:
            return self._lives.get(key)

    def all(self) -> tuple[Life, ...]:
        """Every life, by name."""
        with self._lock:
            return tuple(life for _, life in sorted(self._lives.items()))
