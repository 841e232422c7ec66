"""
Whether a checkpoint may go into the object store: its room, and what its namespace may keep there.

Called by: the controller, before an agent demotes it; `kyb store usage` counts likewise. Pure.
Rule: a checkpoint counts whole, whatever it shares with others there, as in quotas of checkpoints.
"""

from collections import Counter
from collections.abc import Iterable

from kybernate.model.checkpoint import Checkpoint
from kybernate.model.storelimits import StoreLimits
from kybernate.model.verdict import Reason, Refusal

_GIB = 1 << 30


def kept(stored: Iterable[Checkpoint]) -> Counter[str]:
    """Bytes by namespace, of those that are there."""
    sizes: Counter[str] = Counter()
    for one in stored:
        sizes[one.namespace] += one.size
    return sizes


def refused(one: Checkpoint, stored: Iterable[Checkpoint], limits: StoreLimits) -> Refusal | None:
    """Why it may not be put there. `stored` are those that are there, or on their way."""
    sizes = kept(stored)
    whole, quota = limits.whole, limits.of(one.namespace)
    if whole is not None and sizes.total() + one.size > whole:
        detail = _numbers("it", sizes.total(), whole, one)
        return Refusal(reason=Reason.NO_STORE_ROOM, detail=detail)
    if quota is not None and sizes[one.namespace] + one.size > quota:
        detail = _numbers(f"namespace {one.namespace}", sizes[one.namespace], quota, one)
        return Refusal(reason=Reason.STORE_QUOTA, detail=detail)
    return None


def _numbers(who: str, used: int, most: int, one: Checkpoint) -> str:
    return (
        f"{who} keeps {used / _GIB:.1f} of {most / _GIB:.1f} GiB, and {one.name} has "
        f"{one.size / _GIB:.1f} GiB"
    )
