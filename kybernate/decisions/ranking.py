"""
Which nodes are best, and what they score.

Called by: the extender for small requests and in replay; `extender/standings.py` gives the same
order for large ones without looking at every node.
Rule: nodes whose cost is within the best one's uncertainty are tied. Ties are broken, never
widened: best VRAM fit, fewer waiting seats, then a spread that depends on the pod and the node, so
that pods asked about at the same moment do not all go to one place. See docs/decisions/0001.
"""

import zlib
from collections.abc import Iterable, Sequence

from kybernate.decisions.placement import Assessment
from kybernate.model.ids import NodeName, PodUid

FLOOR_SECONDS = 0.05
"""Estimates are printed to the tenth of a second; a smaller difference is no difference."""
TOP = 10
"""kube-scheduler's highest extender score (`MaxExtenderPriority`)."""
TIED = 9
_RING = 0xFFFFFFFF


def seed_of(uid: PodUid) -> int:
    """Where on the ring of nodes this pod begins."""
    return zlib.crc32(uid.encode())


def rank(found: Iterable[Assessment], now: float, seed: int) -> list[Assessment]:
    """Best first."""
    by_cost = sorted(found, key=lambda a: (a.cost(now), a.node))
    if not by_cost:
        return []
    cut = tie_limit(by_cost[0], now)
    tied = [a for a in by_cost if a.cost(now) <= cut]
    tied.sort(key=lambda a: tie_key(a, seed))
    return tied + by_cost[len(tied) :]


def tie_limit(best: Assessment, now: float) -> float:
    """The highest cost that may in truth be the best one's."""
    return best.cost(now) + max(best.spread, FLOOR_SECONDS)


def tie_key(found: Assessment, seed: int) -> tuple[int, int, int, NodeName]:
    """Order among ties."""
    return (found.misfit, found.waiting, (found.ring - seed) & _RING, found.node)


def scores(ranked: Sequence[Assessment], now: float) -> dict[NodeName, int]:
    """Whole scores 0..10: 10 as good as the best in everything, 9 tied in time, less by ratio."""
    if not ranked:
        return {}
    best = min(ranked, key=lambda a: (a.cost(now), a.node))
    cut = tie_limit(best, now)
    first = ranked[0]
    return {found.node: _score(found, first, cut, now) for found in ranked}


def _score(found: Assessment, first: Assessment, cut: float, now: float) -> int:
    cost = found.cost(now)
    if cost <= cut:
        equal = (found.misfit, found.waiting) == (first.misfit, first.waiting)
        return TOP if equal else TIED
    return round((TIED - 1) * cut / cost)
