"""
The ranking of all nodes for one demand, kept up to date node by node.

Called by: `placing.py`, one per demand. `best` answers what `ranking.rank` would say of the same
nodes, without looking at each: a request at 5,000 nodes costs as much as one at 50.
Rule: pure bookkeeping; the caller holds the lock and says what time it is.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Set

from kybernate.decisions import ranking
from kybernate.decisions.placement import NEVER, Assessment
from kybernate.model.ids import NodeName

# Below this many ties, collecting and sorting them is quicker than walking the order of ties.
_FEW = 256

_ByCost = tuple[float, NodeName]
_ByTie = tuple[int, int, int, NodeName]
_LAST = NodeName("\U0010ffff")


class Standings:
    """Assessments of one demand. Nodes that are refused are simply not in it."""

    def __init__(self) -> None:
        self._found: dict[NodeName, Assessment] = {}
        self._ripe: list[_ByCost] = []  # by seconds: their holders may go now
        self._ripening: list[_ByCost] = []  # by the moment they would run; all come nearer alike
        self._ties: list[_ByTie] = []
        self._ends: list[_ByCost] = []  # a heap: when an assessment may change by itself

    def get(self, node: NodeName) -> Assessment | None:
        """The node's assessment."""
        return self._found.get(node)

    def put(self, found: Assessment, now: float) -> None:
        """Take a node's assessment, made at `now`, in place of an older one."""
        self.drop(found.node)
        self._found[found.node] = found
        insort(*self._place(found, now))
        insort(self._ties, _tie(found))
        if found.valid_until != NEVER:
            heapq.heappush(self._ends, (found.valid_until, found.node))

    def drop(self, node: NodeName) -> None:
        """Forget a node."""
        old = self._found.pop(node, None)
        if old is None:
            return
        for order, key in ((self._ripe, _ripe(old)), (self._ripening, _ripening(old))):
            at = bisect_left(order, key)
            if at < len(order) and order[at] == key:
                del order[at]
        del self._ties[bisect_left(self._ties, _tie(old))]

    def fill(self, all_found: list[Assessment], now: float) -> None:
        """Start afresh with many at once: sorting once is cheaper than inserting one by one."""
        self._found = {found.node: found for found in all_found}
        self._ripe = sorted(_ripe(found) for found in all_found if found.not_before <= now)
        self._ripening = sorted(_ripening(found) for found in all_found if found.not_before > now)
        self._ties = sorted(_tie(found) for found in all_found)
        self._ends = [(f.valid_until, f.node) for f in all_found if f.valid_until != NEVER]
        heapq.heapify(self._ends)

    def expired(self, now: float) -> list[NodeName]:
        """The nodes to assess again because time has passed. Each is named once."""
        names: set[NodeName] = set()
        while self._ends and self._ends[0][0] <= now:
            moment, node = heapq.heappop(self._ends)
            found = self._found.get(node)
            if found is not None and found.valid_until == moment:
                names.add(node)
        return sorted(names)

    def best(self, names: Set[NodeName], now: float, seed: int, limit: int) -> list[Assessment]:
        """The best `limit` of `names`, best first.

        Every assessment must be valid at `now`: assess what `expired` names first.
        """
        firsts = (self._first(order, names) for order in (self._ripe, self._ripening))
        best = min(
            (found for found in firsts if found),
            key=lambda found: (found.cost(now), found.node),
            default=None,
        )
        if best is None:
            return []
        cut = ranking.tie_limit(best, now)
        ranked = self._tied(names, cut, now, seed, limit)
        if len(ranked) < limit:
            ranked += self._beyond(names, cut, now, limit - len(ranked))
        return ranked

    def _first(self, order: list[_ByCost], names: Set[NodeName]) -> Assessment | None:
        node = next((node for _, node in order if node in names), None)
        return self._found[node] if node is not None else None

    def _tied(
        self, names: Set[NodeName], cut: float, now: float, seed: int, wanted: int
    ) -> list[Assessment]:
        ripe = bisect_right(self._ripe, (cut, _LAST))
        ripening = bisect_right(self._ripening, (cut + now, _LAST))
        if ripe + ripening > _FEW:
            return self._walk_ties(names, cut, now, seed, wanted)
        near = (*self._ripe[:ripe], *self._ripening[:ripening])
        tied = [self._found[node] for _, node in near if node in names]
        return heapq.nsmallest(wanted, tied, key=lambda a: ranking.tie_key(a, seed))

    def _walk_ties(
        self, names: Set[NodeName], cut: float, now: float, seed: int, wanted: int
    ) -> list[Assessment]:
        tied: list[Assessment] = []
        for node in self._in_tie_order(seed):
            if node in names and (found := self._found[node]).cost(now) <= cut:
                tied.append(found)
                if len(tied) == wanted:
                    break
        return tied

    def _in_tie_order(self, seed: int) -> Iterator[NodeName]:
        """Run by run of equal fit and waiting; a run is a ring that this pod enters at `seed`."""
        ties, start = self._ties, 0
        while start < len(ties):
            misfit, waiting = ties[start][:2]
            end = bisect_left(ties, (misfit, waiting + 1), start)
            enter = bisect_left(ties, (misfit, waiting, seed), start, end)
            for at in (*range(enter, end), *range(start, enter)):
                yield ties[at][3]
            start = end

    def _beyond(
        self, names: Set[NodeName], cut: float, now: float, wanted: int
    ) -> list[Assessment]:
        ripe = bisect_right(self._ripe, (cut, _LAST))
        ripening = bisect_right(self._ripening, (cut + now, _LAST))
        near = _some(self._ripe, ripe, names, wanted) + _some(
            self._ripening, ripening, names, wanted
        )
        found = (self._found[node] for node in near)
        return heapq.nsmallest(wanted, found, key=lambda a: (a.cost(now), a.node))

    def _place(self, found: Assessment, now: float) -> tuple[list[_ByCost], _ByCost]:
        if found.not_before <= now:
            return self._ripe, _ripe(found)
        return self._ripening, _ripening(found)


def _some(order: list[_ByCost], start: int, names: Set[NodeName], wanted: int) -> list[NodeName]:
    some: list[NodeName] = []
    for at in range(start, len(order)):
        if order[at][1] in names:
            some.append(order[at][1])
            if len(some) == wanted:
                break
    return some


def _ripe(found: Assessment) -> _ByCost:
    return found.seconds_after + found.penalty, found.node


def _ripening(found: Assessment) -> _ByCost:
    return found.not_before + found.seconds_after + found.penalty, found.node


def _tie(found: Assessment) -> _ByTie:
    return found.misfit, found.waiting, found.ring, found.node
