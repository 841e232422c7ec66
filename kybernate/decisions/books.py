"""What the coordinator knows, as one value, and what may happen to it.

Every change of a workload's state goes through `happen`, which asks `lifecycle.after`; nobody else
makes tenancies. The agent keeps one `Books` and swaps it under its lock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.decisions import lifecycle
from kybernate.decisions.ledger import Ledger
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group, Health
from kybernate.model.ids import GroupName, WorkloadKey
from kybernate.model.policy import HolderTerms
from kybernate.model.tier import Bandwidth, Tier, can_leave_ram
from kybernate.model.workload import State

# After a failed switch: 1, 2, 4 ... seconds until it is tried again, at most a minute.
BACKOFF_FIRST, BACKOFF_MOST = 1.0, 60.0
_LATEST = 0.3  # what the latest gap between two asks counts for
FAILURES = frozenset(
    {Happening.START_FAILED, Happening.ACTIVATION_FAILED, Happening.PARK_FAILED}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """One node. `switching` maps a GPU to the switch that keeps it; room is in the card's bytes."""

    memory: Mapping[int, int]
    groups: Mapping[GroupName, Group]
    health: Mapping[GroupName, Health] = field(default_factory=dict)
    tenancies: Mapping[WorkloadKey, Tenancy] = field(default_factory=dict)
    switching: Mapping[int, WorkloadKey] = field(default_factory=dict)
    foreign: Mapping[int, int] = field(default_factory=dict)
    terms: Mapping[WorkloadKey, HolderTerms] = field(default_factory=dict)
    switches: tuple[tuple[float, tuple[int, ...]], ...] = ()  # when and where, the last minute's
    pool_size: int = 0
    pool_free: int = 0
    bus: Bandwidth | None = None
    nvme_size: int = 0
    nvme_free: int = 0  # bytes left on NVMe for contents that leave the pool
    nvme: Bandwidth | None = None
    object_free: int = 0  # bytes left in the object store for contents that leave NVMe
    store: Bandwidth | None = None
    switch_seconds: float = 5.0  # how long a switch may take, for the bound on waiting

    def ledger(self) -> Ledger:
        """Bytes booked on every GPU."""
        return Ledger(
            memory=self.memory, tenancies=tuple(self.tenancies.values()), foreign=self.foreign
        )

    def queue(self) -> tuple[Tenancy, ...]:
        """Who waits, longest first."""
        waiting = (t for t in self.tenancies.values() if t.waits)
        return tuple(sorted(waiting, key=Tenancy.queue_order))

    def in_vram(self) -> tuple[Tenancy, ...]:
        """Who holds VRAM, by name."""
        return tuple(t for _, t in sorted(self.tenancies.items()) if t.in_vram)

    def rates(self) -> dict[Tier, Bandwidth]:
        """What is measured."""
        measured = {Tier.RAM: self.bus, Tier.NVME: self.nvme, Tier.OBJECT: self.store}
        return {tier: rate for tier, rate in measured.items() if rate is not None}

    def demotable(self) -> int:
        """Bytes of the pool that could be on NVMe instead, once others there have made room by
        going on into the object store."""
        in_ram, on_nvme = (
            sum(t.vram for t in self.tenancies.values() if self.may_go_down(t, tier))
            for tier in (Tier.RAM, Tier.NVME)
        )
        return can_leave_ram(in_ram, on_nvme, self.nvme_free, self.object_free)

    def nvme_short(self, short: int) -> int:
        """Bytes that NVMe lacks for the next one that has to leave the pool, where the pool is
        short of so many."""
        there = (t for t in self.tenancies.values() if self.may_go_down(t, Tier.RAM))
        needed = [t.vram for t in there if t.vram <= self.nvme_size]
        return max(0, min(needed) - self.nvme_free) if short and needed else 0

    def may_go_down(self, tenancy: Tenancy, tier: Tier) -> bool:
        """Whether it is parked in this tier, and its contents could leave it: who comes back by way
        of the pool needs a place there beside those that are parked for it, or it would never come
        back."""
        if tenancy.state is not State.PARKED or tenancy.tier is not tier:
            return False
        beside = sum(self.memory.get(gpu, 0) for gpu in tenancy.gpus)
        fits = not tenancy.through_ram or tenancy.vram + beside <= self.pool_size
        return tenancy.movable and fits

    def healthy(self, group: GroupName) -> bool:
        """Whether the group may be given out. Not reported yet counts as healthy."""
        return self.health.get(group, Health.HEALTHY) is Health.HEALTHY

    def island(self, tenancy: Tenancy) -> frozenset[int]:
        """The GPUs tied to the workload's own by groups that overlap."""
        return next(i for i in islands(self.groups.values()) if tenancy.gpus[0] in i)

    def having(self, tenancy: Tenancy) -> "Books":
        """The books with this tenancy new or changed."""
        return replace(self, tenancies={**self.tenancies, tenancy.key: tenancy})

    def change(self, key: WorkloadKey, **changes: object) -> "Books":
        """The books with fields of one tenancy changed; unknown workloads change nothing."""
        tenancy = self.tenancies.get(key)
        return self if tenancy is None else self.having(replace(tenancy, **changes))  # type: ignore[arg-type]


def islands(groups: Iterable[Group]) -> tuple[frozenset[int], ...]:
    """Sets of GPUs that no group crosses: each can be decided on its own."""
    found: list[frozenset[int]] = []
    for group in groups:
        touching = [i for i in found if not i.isdisjoint(group.gpus)]
        found = [i for i in found if i not in touching]
        found.append(frozenset(group.gpus).union(*touching))
    return tuple(sorted(found, key=min))


def arrive(books: Books, tenancy: Tenancy, now: float) -> Books:
    """A container was made and is held: it waits from now on. Its first turn it wants by itself."""
    state = lifecycle.after(State.ABSENT, Happening.STARTED)
    return want(books.having(replace(tenancy, state=state, since=now)), tenancy.key, now)


def want(books: Books, key: WorkloadKey, now: float) -> Books:
    """The workload wants its GPU. Wanting again does not move it in the queue."""
    tenancy = books.tenancies[key]
    if tenancy.wanted_since is None:
        books = books.having(
            replace(
                tenancy,
                wanted_since=now,
                asked_to_park=False,
                asked_at=now,
                asked_every=_every(tenancy, now),
            )
        )
    return _count_waiting(books, tenancy)


def _every(tenancy: Tenancy, now: float) -> float | None:
    """How often it is asked for, as far as that is known."""
    if tenancy.asked_at is None:
        return None
    gap = max(0.0, now - tenancy.asked_at)
    if tenancy.asked_every is None:
        return gap
    return tenancy.asked_every + _LATEST * (gap - tenancy.asked_every)


def unwant(books: Books, key: WorkloadKey) -> Books:
    """It does not want the GPU any more."""
    return books.change(key, wanted_since=None, most_waiting=0)


def _count_waiting(books: Books, newcomer: Tenancy) -> Books:
    """Everybody who waits on the island remembers how many waited at once: their bound."""
    island = books.island(newcomer)
    there = [t for t in books.queue() if not island.isdisjoint(t.gpus)]
    for tenancy in there:
        most = max(tenancy.most_waiting, len(there))
        books = books.having(replace(tenancy, most_waiting=most))
    return books


def happen(books: Books, key: WorkloadKey, happening: Happening, now: float) -> Books:
    """Something happened to a workload. Raises KeyError for one that is not here and
    IllegalTransition where the table has no such step."""
    tenancy = books.tenancies[key]
    state = lifecycle.after(tenancy.state, happening)
    if state is State.ABSENT:
        return leave(books, key)
    moved = replace(tenancy, state=state, since=now)
    if tenancy.in_vram and not moved.in_vram:
        moved = replace(moved, active_since=None, last_active=now)
    return _consequences(books, moved, happening, now)


def _consequences(books: Books, tenancy: Tenancy, happening: Happening, now: float) -> Books:
    if happening is Happening.RUNS:
        return books.having(_runs(tenancy, now))
    if happening in FAILURES:
        failures = tenancy.failures + 1
        pause = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (failures - 1))
        return books.having(
            replace(tenancy, failures=failures, not_before=now + pause, asked_to_park=False)
        )
    if happening is Happening.PARKED:
        return _parked(books.having(replace(tenancy, held={}, failures=0)), tenancy, now)
    if happening is Happening.LOST:
        return books.having(replace(tenancy, wanted_since=None))
    return books.having(tenancy)


def _parked(books: Books, tenancy: Tenancy, now: float) -> Books:
    """It may have been asked for while it was on its way out; else it depends on what it is."""
    if tenancy.wanted_since is not None or tenancy.returns_by_itself:
        return want(books, tenancy.key, now)
    return books


def _runs(tenancy: Tenancy, now: float) -> Tenancy:
    return replace(
        tenancy, active_since=now, idle_since=now, wanted_since=None, most_waiting=0, failures=0,
        not_before=0.0, tier=Tier.RAM,
    )  # fmt: skip


def leave(books: Books, key: WorkloadKey) -> Books:
    """The workload is gone. GPUs that a switch keeps stay kept until that switch ends."""
    tenancies = {k: t for k, t in books.tenancies.items() if k != key}
    terms = {k: t for k, t in books.terms.items() if k != key}
    return replace(books, tenancies=tenancies, terms=terms)


def begin_switch(books: Books, key: WorkloadKey, gpus: Iterable[int], now: float) -> Books:
    """A switch for `key` keeps these GPUs until `end_switch`."""
    kept = tuple(sorted(gpus))
    recent = tuple(s for s in books.switches if now - s[0] < 60.0)
    switching = {**books.switching, **dict.fromkeys(kept, key)}
    return replace(books, switching=switching, switches=(*recent, (now, kept)))


def end_switch(books: Books, key: WorkloadKey) -> Books:
    """The switch for `key` is over, however it went."""
    return replace(books, switching={g: k for g, k in books.switching.items() if k != key})
