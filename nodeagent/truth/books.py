"""
What workloads hold on the cards, as the inventory shows it, against what their state entitles them
to. Pure; called by `process` for the node's conditions.

Rule: what is under way is not judged, nor what has just changed; and a context, with what the
driver has for it, is nobody's fault.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kybernate.decisions.tenancy import Tenancy
from kybernate.model.workload import State

GRACE_S = 10.0
CONTEXT = 2**30  # of a CUDA process; 0.8 GiB was measured, kernels and libraries included
_PARKED = frozenset({State.PARKED, State.WAITING})
_SHOWN = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """`reason` is constant, `words` are for people."""

    reason: str
    words: str


def deviations(tenancies: Iterable[Tenancy], now: float) -> tuple[Deviation, ...]:
    """All of them, by workload."""
    settled = (one for one in tenancies if now - one.since >= GRACE_S)
    return tuple(d for one in sorted(settled, key=lambda t: t.key) for d in _of(one))


def _of(one: Tenancy) -> Iterator[Deviation]:
    for gpu, held in sorted(one.held.items()):
        has = f"{one.key} holds {held / _SHOWN:.1f} GiB of GPU {gpu}"
        if gpu not in one.gpus:
            words = f"{has}, which is not of its group {one.group.name}"
            yield Deviation(reason="OnAnothersGpu", words=words)
        elif one.state in _PARKED and held > -(-one.residue // len(one.gpus)) + CONTEXT:
            yield Deviation(reason="ParkedHoldsVram", words=f"{has}, though it is {one.state}")
        elif one.state is State.ACTIVE and held > one.share() + CONTEXT:
            words = f"{has}; its kyb.ai/vram gives it {one.share() / _SHOWN:.1f} GiB there"
            yield Deviation(reason="MoreThanItsVram", words=words)
