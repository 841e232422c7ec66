"""
`python -m extender --replay view.json`: a dump becomes the decisions it led to, itemised.

Called by: `__main__.py`, and by operators who wonder why. Rule: the same code decides as did live;
only the clock stands still and policy's verdicts come from the dump.
"""

from collections.abc import Iterator

from extender.dump import Dump
from extender.placing import Options, Placement, Placing
from extender.verdicts import NEUTRAL
from extender.view import View
from kybernate.decisions import ranking, wording
from kybernate.model.cluster import ClusterView
from kybernate.model.ids import NodeName
from kybernate.model.policy import NodeClass, PlacementVerdict
from kybernate.model.workload import Workload


def view_of(cluster: ClusterView) -> View:
    """A view that holds this picture."""
    view = View()
    for name, node in cluster.nodes.items():
        view.put_state(name, node.state)
        view.put_labels(name, node.state.labels)
    for uid, workload in cluster.workloads.items():
        view.put_workload(uid, workload)
    for key, checkpoint in cluster.checkpoints.items():
        view.put_checkpoint(key, checkpoint)
    return view


def decisions(dump: Dump) -> Iterator[tuple[Workload, Placement]]:
    """What filter would answer for every pod that waits for a node, by name."""
    options = Options(candidates=dump.candidates, cold_start=dump.cold_start)
    placing = Placing(view_of(dump.cluster), _Recorded(dump), _Standstill(dump.now), options)
    everywhere: tuple[NodeName, ...] = tuple(sorted(dump.cluster.nodes))
    for workload in sorted(dump.cluster.workloads.values(), key=lambda found: found.key):
        if workload.node is None:
            names = dump.asked.get(workload.uid, everywhere)
            yield workload, placing.filter(workload, names)


def text(dump: Dump) -> str:
    """The decisions for people, with the scores the scheduler would be told."""
    lines = [line for workload, found in decisions(dump) for line in _lines(workload, found)]
    return "\n".join(lines or ["no pod waits for a node in this view"])


def _lines(workload: Workload, found: Placement) -> list[str]:
    revision = found.verdict.revision
    if not found.ranked:
        return [f"{workload.key}: {wording.refused(found.refused, revision)}"]
    scores = ranking.scores(found.ranked, found.at)
    head = f"{workload.key}: {len(found.ranked)} candidates" + (
        f", policy {revision}" if revision else ""
    )
    return [
        head,
        *(f"  {scores[one.node]:>2}  {wording.line(one, found.at)}" for one in found.ranked),
    ]


class _Recorded:
    """Answers from the dump; a pod it has no verdict for gets the neutral one."""

    def __init__(self, dump: Dump) -> None:
        self._verdicts = dump.verdicts

    def of(
        self,
        workload: Workload,
        classes: tuple[NodeClass, ...],  # noqa: ARG002 - the dump's verdict was about these
    ) -> PlacementVerdict:
        return self._verdicts.get(workload.uid, NEUTRAL)


class _Standstill:
    """The moment of the dump."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now
