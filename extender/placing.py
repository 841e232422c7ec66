"""
The three answers: filter, prioritize, preempt, in model types.

Called by: `app.py` and `replay.py`. Rule: no side effects; asked twice, the answer is the same, and
a request for one nominated node is answered as that node would be among many. What was decided is
returned as a value; `recorder.py` may tell about it afterwards.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from extender.standings import Standings
from extender.view import View
from extender.wire import Victims
from kybernate.decisions import demand, placement, ranking
from kybernate.decisions.demand import Demand
from kybernate.decisions.outlook import NodeOutlook
from kybernate.decisions.placement import Assessment
from kybernate.model.ids import NodeName
from kybernate.model.policy import NodeClass, PlacementVerdict
from kybernate.model.verdict import Refusal
from kybernate.model.workload import Workload

# Requests for fewer nodes are worked out on the spot: it is quicker, and a pod with a demand of its
# own (a nominated one) must not make a board of 5,000 nodes for one name.
_FEW = 64
_BOARDS = 64  # demands remembered; each costs a few MB at 5,000 nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`candidates` filter answers with (0: all); `cold_start` in seconds."""

    candidates: int = 32
    cold_start: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What filter decided. `refused` names every node asked about, but only when none is left."""

    workload: Workload
    at: float  # wall clock
    verdict: PlacementVerdict
    ranked: Sequence[Assessment] = ()
    refused: Mapping[NodeName, Refusal] = field(default_factory=dict)


class Judge(Protocol):
    """Who says what policy thinks: `verdicts.Verdicts`, or a dump."""

    def of(self, workload: Workload, classes: tuple[NodeClass, ...]) -> PlacementVerdict:
        """The verdict for this workload over these classes of nodes."""
        ...


class Now(Protocol):
    """The part of a clock that is needed here."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class Placing:
    """Decides over a view. Safe for several threads."""

    def __init__(self, view: View, judge: Judge, clock: Now, options: Options) -> None:
        self._view = view
        self._judge = judge
        self._clock = clock
        self.options = options
        self._boards: OrderedDict[_BoardKey, _Board] = OrderedDict()
        view.on_dirty(self._mark)

    def verdict(self, workload: Workload) -> PlacementVerdict:
        """What policy says of this workload, everywhere."""
        with self._view.lock:
            classes = self._view.classes()
        return self._judge.of(workload, classes)

    def filter(self, workload: Workload, names: Sequence[NodeName]) -> Placement:
        """The best candidates among the nodes of the request."""
        verdict = self.verdict(workload)
        with self._view.lock:
            now = self._clock.now()
            found, refused = self._among(workload, verdict, names, now)
        return Placement(workload=workload, at=now, verdict=verdict, ranked=found, refused=refused)

    def scores(self, workload: Workload, names: Sequence[NodeName]) -> Mapping[NodeName, int]:
        """0..10 for each node that can take it; the others have none."""
        verdict = self.verdict(workload)
        with self._view.lock:
            now = self._clock.now()
            found = self._known(self._demand(workload), verdict, names, now)
        ranked = ranking.rank(found, now, ranking.seed_of(workload.uid))
        return ranking.scores(ranked, now)

    def victims(
        self, workload: Workload, victims: Mapping[NodeName, Victims]
    ) -> Mapping[NodeName, Victims]:
        """The scheduler's own victims, where evicting them would let the pod in.

        A node we would refuse all the same is dropped, and so is one without victims: the scheduler
        would take it for an error.
        """
        verdict = self.verdict(workload)
        names = [node for node, found in victims.items() if found.pods]
        with self._view.lock:
            now = self._clock.now()
            _, refused = self._each(self._demand(workload), verdict, names, now)
        return {
            node: victims[node]
            for node in names
            if node not in refused or not placement.unresolvable(refused[node])
        }

    def _among(
        self, workload: Workload, verdict: PlacementVerdict, names: Sequence[NodeName], now: float
    ) -> tuple[list[Assessment], Mapping[NodeName, Refusal]]:
        wanted, limit = self._demand(workload), self.options.candidates
        seed = ranking.seed_of(workload.uid)
        if limit and len(names) > _FEW:
            return self._board(wanted, verdict, now).best(names, now, seed, limit)
        found, refused = self._each(wanted, verdict, names, now)
        ranked = ranking.rank(found, now, seed)
        return ranked[: limit or None], {} if ranked else refused

    def _known(
        self, wanted: Demand, verdict: PlacementVerdict, names: Sequence[NodeName], now: float
    ) -> list[Assessment]:
        """Where filter has just worked them out on a board, they are read from it."""
        if len(names) > _FEW or _key(wanted, verdict) in self._boards:
            board = self._board(wanted, verdict, now)
            return [found for name in names if (found := board.get(name))]
        return self._each(wanted, verdict, names, now)[0]

    def _each(
        self, wanted: Demand, verdict: PlacementVerdict, names: Sequence[NodeName], now: float
    ) -> tuple[list[Assessment], dict[NodeName, Refusal]]:
        outlooks = self._view.outlooks()
        found: list[Assessment] = []
        refused: dict[NodeName, Refusal] = {}
        for name in names:
            answer = placement.assess(outlooks.get(name), wanted, verdict, now)
            if isinstance(answer, Refusal):
                refused[name] = answer
            else:
                found.append(answer)
        return found, refused

    def _demand(self, workload: Workload) -> Demand:
        return demand.of(workload, self._view.checkpoints, self.options.cold_start)

    def _board(self, wanted: Demand, verdict: PlacementVerdict, now: float) -> "_Board":
        """The board of this demand, up to date. Boards nobody asked for lately are forgotten."""
        key = _key(wanted, verdict)
        outlooks = self._view.outlooks()
        board = self._boards.get(key)
        if board is None:
            board = self._boards[key] = _Board(wanted, verdict, outlooks, now)
            if len(self._boards) > _BOARDS:
                self._boards.popitem(last=False)
        self._boards.move_to_end(key)
        board.renew(outlooks, now)
        return board

    def _mark(self, node: NodeName) -> None:
        for board in self._boards.values():
            board.dirty.add(node)


_BoardKey = tuple[Demand, frozenset[tuple[str, object]], frozenset[tuple[str, object]]]


def _key(wanted: Demand, verdict: PlacementVerdict) -> _BoardKey:
    """What policy says counts, not which question it answered: namespaces share boards."""
    terms = verdict.deny, verdict.penalty_seconds
    return wanted, frozenset(terms[0].items()), frozenset(terms[1].items())


class _Board:
    """All nodes for one demand under one verdict: standings, and the refusals."""

    def __init__(
        self,
        wanted: Demand,
        verdict: PlacementVerdict,
        outlooks: Mapping[NodeName, NodeOutlook],
        now: float,
    ) -> None:
        self._wanted = wanted
        self._verdict = verdict
        self._standings = Standings()
        self._refused: dict[NodeName, Refusal] = {}
        self._unknown = placement.assess(None, wanted, verdict, now)
        self.dirty: set[NodeName] = set()
        self._fill(outlooks, now)

    def renew(self, outlooks: Mapping[NodeName, NodeOutlook], now: float) -> None:
        """Assess again what changed, and what time has changed."""
        again = self.dirty.union(self._standings.expired(now))
        self.dirty.clear()
        if len(again) > len(outlooks) // 8:
            self._fill(outlooks, now)
            return
        for name in again:
            self._refused.pop(name, None)
            self._standings.drop(name)
            outlook = outlooks.get(name)
            if outlook is not None:
                self._put(outlook, now)

    def best(
        self, names: Sequence[NodeName], now: float, seed: int, limit: int
    ) -> tuple[list[Assessment], Mapping[NodeName, Refusal]]:
        """The best of these nodes; when none is left, why, for every one of them."""
        found = self._standings.best(frozenset(names), now, seed, limit)
        if found:
            return found, {}
        assert isinstance(self._unknown, Refusal)
        return [], {name: self._refused.get(name, self._unknown) for name in names}

    def get(self, node: NodeName) -> Assessment | None:
        """The node's assessment; None where it is refused or unknown."""
        return self._standings.get(node)

    def _fill(self, outlooks: Mapping[NodeName, NodeOutlook], now: float) -> None:
        self._refused.clear()
        found: list[Assessment] = []
        for name, outlook in outlooks.items():
            answer = placement.assess(outlook, self._wanted, self._verdict, now)
            if isinstance(answer, Refusal):
                self._refused[name] = answer
            else:
                found.append(answer)
        self._standings.fill(found, now)

    def _put(self, outlook: NodeOutlook, now: float) -> None:
        answer = placement.assess(outlook, self._wanted, self._verdict, now)
        if isinstance(answer, Refusal):
            self._refused[outlook.name] = answer
        else:
            self._standings.put(answer, now)
