"""
Which checkpoints of a workload have been replaced by newer ones and may go.

Called by: the controller. Rules: where no CheckpointPolicy speaks of a workload nothing goes; of
several that do, the one that keeps most counts. A claimed one, a gold image and one that is not
ready never go, and only a ready one counts as a newer one: the old goes after the new is sealed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kybernate.model.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What a CheckpointPolicy says: how many, and of which pods (by their labels)."""

    namespace: str
    keep: int
    selects: Callable[[Checkpoint], bool]


def replaced(
    checkpoints: Iterable[Checkpoint], policies: Sequence[Keeping]
) -> tuple[Checkpoint, ...]:
    """Those that may go, oldest first."""
    by_workload: dict[tuple[str, str], list[Checkpoint]] = defaultdict(list)
    for one in checkpoints:
        if one.ready and not one.gold and one.workload:
            by_workload[one.namespace, one.workload].append(one)
    going = [old for ours in by_workload.values() for old in _replaced(ours, policies)]
    return tuple(sorted(going, key=_age))


def _replaced(ours: list[Checkpoint], policies: Sequence[Keeping]) -> Iterator[Checkpoint]:
    newest = sorted(ours, key=_age, reverse=True)
    keeps = [
        p.keep for p in policies if p.namespace == newest[0].namespace and p.selects(newest[0])
    ]
    if keeps:
        yield from (old for old in newest[max(1, *keeps) :] if old.claim is None)


def _age(checkpoint: Checkpoint) -> tuple[float, str, str]:
    return checkpoint.sealed_at, checkpoint.namespace, checkpoint.name
