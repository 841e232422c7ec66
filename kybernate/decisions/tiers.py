"""Which parked workload's contents move next between RAM, NVMe and object storage. Pure.

`decide` is called by the agent when something changed or `again_at` came. Policy says in which tier
each should be, and what it is worth to have it in RAM; here is what fits, and who is first.
Undefined protects: without a verdict contents stay where they are. A step down is one tier; up they
come in one.
"""

from collections.abc import Collection
from dataclasses import dataclass

from kybernate.decisions import questions
from kybernate.decisions.books import Books
from kybernate.decisions.questions import Asks
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.turns import Line
from kybernate.model.ids import NO_REVISION, Revision, WorkloadKey
from kybernate.model.tier import BELOW_RAM, Tier
from kybernate.model.verdict import Refusal
from kybernate.model.workload import State

# When policy has no verdict: soon enough for a person, far from a busy loop.
RETRY_SECONDS = 5.0
_DEPTH = {tier: depth for depth, tier in enumerate(Tier)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One workload's contents from tier to tier, and policy's word for why."""

    key: WorkloadKey
    of: Tier
    to: Tier
    why: str
    value: float
    revision: Revision = NO_REVISION

    @property
    def down(self) -> bool:
        """Whether it is a demotion."""
        return _DEPTH[self.to] > _DEPTH[self.of]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One move at most, and when to ask again."""

    move: Move | None = None
    again_at: float | None = None


def decide(
    books: Books,
    now: float,
    asks: Asks,
    short: int,
    not_these: Collection[WorkloadKey] = (),
    *,
    far: bool = False,
) -> Decided:
    """The next move, to or from the object store where it is `far`, else between the others.
    `short` is what a plan lacks of the pool; while that is so nothing comes up. Down goes the least
    valuable first, up the most valuable."""
    line = Line(books, now)
    moves: list[Move] = []
    again: list[float] = []
    for _, tenancy in sorted(books.tenancies.items()):
        if tenancy.state is not State.PARKED or not tenancy.movable or tenancy.key in not_these:
            continue
        verdict = asks.tiering(questions.parked_question(line, tenancy, short))
        if isinstance(verdict, Refusal):
            again.append(now + RETRY_SECONDS)
            continue
        if verdict.after_seconds is not None:
            again.append(now + max(0.1, verdict.after_seconds))
        to = _step(tenancy.tier, verdict.tier)
        is_far = Tier.OBJECT in (tenancy.tier, to)
        if is_far is far and _possible(books, tenancy, to, short):
            moves.append(
                Move(
                    key=tenancy.key,
                    of=tenancy.tier,
                    to=to,
                    why=verdict.reason,
                    value=verdict.value,
                    revision=verdict.revision,
                )
            )
    return Decided(move=_first(moves, short), again_at=min(again, default=None))


def _step(of: Tier, to: Tier) -> Tier:
    """Towards the tier that policy wants: into the object store by way of NVMe only."""
    return Tier.NVME if (of, to) == (Tier.RAM, Tier.OBJECT) else to


def _possible(books: Books, tenancy: Tenancy, to: Tier, short: int) -> bool:
    """Whether it is another tier, and has the room; up only beside those that will be parked for
    it, or it would have to go down again."""
    if (tenancy.tier, to) == (Tier.RAM, Tier.NVME):
        return books.may_go_down(tenancy, Tier.RAM) and tenancy.vram <= books.nvme_free
    if (tenancy.tier, to) == (Tier.NVME, Tier.OBJECT):
        return books.may_go_down(tenancy, Tier.NVME) and tenancy.vram <= books.object_free
    if (tenancy.tier, to) == (Tier.OBJECT, Tier.NVME):
        return not books.nvme_short(short) and tenancy.vram <= books.nvme_free
    if to is Tier.RAM and tenancy.tier in BELOW_RAM:
        needed = tenancy.vram + questions.to_come(books, tenancy)
        return short == 0 and needed <= books.pool_free
    return False


def _first(moves: list[Move], short: int) -> Move | None:
    """Up before down, but where somebody lacks the room; out of RAM before out of NVMe."""
    down = sorted((m for m in moves if m.down), key=lambda m: (_DEPTH[m.of], m.value, m.key))
    up = sorted((m for m in moves if not m.down), key=lambda m: (-m.value, m.key))
    ordered = [*down, *up] if short else [*up, *down]
    return ordered[0] if ordered else None
