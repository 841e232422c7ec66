"""
The three verbs, bytes in and bytes out: reads the request, has it decided, writes the answer.

Called by: `app.py`. Rule: always an answer that the scheduler reads; what cannot be read is said in
`Error`, or, where the answer has no such field, answered neutrally: no scores, no victims.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from extender import wire
from extender.dump import Recent
from extender.metrics import ExtenderMetrics
from extender.placing import Placement, Placing
from extender.wire import Args
from kybernate.api import pods
from kybernate.api.errors import Malformed
from kybernate.decisions import placement
from kybernate.model.ids import NodeName
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger

_NOT_YET = "kybernate: the view of the cluster is not complete yet"


class Listener(Protocol):
    """Who hears of decisions: `recorder.Recorder`."""

    def decided(self, placement: Placement, /) -> None:
        """An answer is about to be given."""
        ...


class Service:
    """Safe for several threads. `synced` says whether the view can be decided upon."""

    def __init__(
        self,
        placing: Placing,
        listener: Listener,
        metrics: ExtenderMetrics,
        synced: Callable[[], bool],
    ) -> None:
        self._placing = placing
        self._listener = listener
        self._metrics = metrics
        self._synced = synced
        self.recent = Recent()
        self._log = get_logger()

    def filter(self, body: bytes) -> bytes:
        """ExtenderFilterResult."""
        try:
            args = wire.read_args(body)
        except Malformed as problem:
            self._malformed("filter", problem)
            return wire.write_filter_error(f"kybernate: {problem}")
        if not self._synced():
            return wire.write_filter_error(_NOT_YET)
        try:
            workload = pods.read_workload(args.pod)
        except Malformed as problem:
            return self._refuse_all(args, Refusal(reason=Reason.MALFORMED, detail=str(problem)))
        if workload is None:  # no seat asked for, so nothing of ours to judge
            return wire.write_filtered(args, args.names, {})
        return self._filter(args, workload)

    def prioritize(self, body: bytes) -> bytes:
        """HostPriorityList; all zero for a pod that is not ours."""
        try:
            args = wire.read_args(body)
            workload = pods.read_workload(args.pod)
        except Malformed as problem:
            self._malformed("prioritize", problem)
            return wire.write_scores((), {})
        if workload is None or not self._synced():
            return wire.write_scores(args.names, {})
        return wire.write_scores(args.names, self._placing.scores(workload, args.names))

    def preempt(self, body: bytes) -> bytes:
        """ExtenderPreemptionResult."""
        try:
            args = wire.read_preemption(body)
            workload = pods.read_workload(args.pod)
        except Malformed as problem:
            self._malformed("preempt", problem)
            return wire.write_victims({})
        if workload is None:
            return wire.write_victims({n: found for n, found in args.victims.items() if found.pods})
        if not self._synced():
            return wire.write_victims({})
        return wire.write_victims(self._placing.victims(workload, args.victims))

    def _filter(self, args: Args, workload: Workload) -> bytes:
        decided = self._placing.filter(workload, args.names)
        self.recent.asked(workload.uid, args.names)
        self._metrics.candidates.observe(len(decided.ranked))
        self._count(decided.refused)
        self._log_decision(decided)
        self._listener.decided(decided)
        names = [found.node for found in decided.ranked]
        return wire.write_filtered(args, names, _failed(decided.refused))

    def _refuse_all(self, args: Args, refusal: Refusal) -> bytes:
        refused = dict.fromkeys(args.names, refusal)
        self._count(refused)
        return wire.write_filtered(args, (), _failed(refused))

    def _count(self, refused: Mapping[NodeName, Refusal]) -> None:
        for reason, count in Counter(refusal.reason for refusal in refused.values()).items():
            self._metrics.refusals.labels(reason.name).inc(count)

    def _log_decision(self, decided: Placement) -> None:
        best = decided.ranked[0].node if decided.ranked else None
        self._log.debug(
            "filtered",
            pod=str(decided.workload.key),
            candidates=len(decided.ranked),
            best=best,
            revision=decided.verdict.revision,
        )

    def _malformed(self, verb: str, problem: Malformed) -> None:
        self._metrics.malformed.labels(verb).inc()
        self._log.warning("a request cannot be read", verb=verb, faults=str(problem))


def _failed(refused: Mapping[NodeName, Refusal]) -> dict[NodeName, tuple[str, bool]]:
    return {
        name: (f"kybernate: {refusal.reason}", placement.unresolvable(refusal))
        for name, refusal in refused.items()
    }
